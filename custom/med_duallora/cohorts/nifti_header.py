"""What a NIfTI header promises, checked before anything is allocated for it."""

import math
from dataclasses import dataclass
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from med_duallora.errors import SubjectRefused

# NIfTI-1 and NIfTI-2: bytes of the header, where its magic text stands, and the text of a single file.
NIFTI_1 = (348, 344, b"n+1\0")
NIFTI_2 = (540, 4, b"n+2\0\r\n\x1a\n")
EXTENSION_FLAG = 4  # bytes between header and voxels at least

# Far more than any cine: 512 x 512 x 40 x 100 voxels in all, 512 x 512 x 64 in one frame.
MAX_VOXELS = 512 * 512 * 40 * 100
MAX_FRAME_VOXELS = 512 * 512 * 64
MAX_OFFSET = 2**26  # bytes; header extensions of converters hold a few kilobytes
MAX_ITEM_BYTES = 8


@dataclass(frozen=True)
class Header:
    """A NIfTI-1 or NIfTI-2 header that a file can be read by.

    Args:
        fields: nibabel's header, for its fields.
        shape: (X, Y, Z).
        n_frames: frames of a 4-D file; 1 for a 3-D one.
        four_dimensional: whether there is an axis of frames (of more than one).
        dtype: of the stored voxels.
        offset: byte at which the voxels start.
        scale: slope and intercept of intensities; None where voxels are to be taken as they are.
    """

    fields: Any
    shape: tuple[int, int, int]
    n_frames: int
    four_dimensional: bool
    dtype: np.dtype[Any]
    offset: int
    scale: tuple[float, float] | None

    @property
    def frame_bytes(self) -> int:
        """Return the stored bytes of one frame."""
        return math.prod(self.shape) * self.dtype.itemsize


def header_size(start: bytes) -> int | None:
    """Return how many bytes the header has that begins with ``start`` (at least 348 bytes); None if it is none."""
    for size, at, magic in (NIFTI_1, NIFTI_2):
        if start[at : at + len(magic)] == magic:
            return size
    return None


def parse_header(block: bytes) -> Header:
    """Check a header.

    Args:
        block: its bytes, as many as ``header_size`` says.

    Raises:
        SubjectRefused: ``unreadable-file``, ``wrong-dimensions`` (not 3-D or 4-D, or empty), ``bad-data-type``,
            ``too-large``. The detail does not name the file.
    """
    kind = nibabel.Nifti1Header if len(block) == NIFTI_1[0] else nibabel.Nifti2Header
    fields = kind(block, check=False)
    shape = _shape([int(n) for n in fields["dim"]])
    dtype = _dtype(fields)
    n_voxels, n_frame_voxels = math.prod(shape), math.prod(shape[:3])
    if n_voxels > MAX_VOXELS or n_frame_voxels > MAX_FRAME_VOXELS:
        detail = f"the header promises {' x '.join(map(str, shape))} voxels; at most {MAX_FRAME_VOXELS:,} in one frame"
        raise SubjectRefused("too-large", f"{detail} and {MAX_VOXELS:,} in all are read")
    n_frames = shape[3] if len(shape) == 4 else 1
    offset = _offset(float(fields["vox_offset"]), len(block) + EXTENSION_FLAG)
    spatial = (shape[0], shape[1], shape[2])
    return Header(fields, spatial, n_frames, len(shape) == 4, dtype, offset, _scale(fields))


def _shape(dim: list[int]) -> list[int]:
    """Return the shape, without axes of length 1 behind the third."""
    if not 1 <= dim[0] <= 7:
        raise SubjectRefused("unreadable-file", f"no NIfTI image: its header says {dim[0]} dimensions")
    shape = dim[1 : dim[0] + 1]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) not in (3, 4) or min(shape) < 1:
        detail = f"the image has shape ({', '.join(map(str, shape))}); expected X x Y x Z (x frames)"
        raise SubjectRefused("wrong-dimensions", detail)
    return shape


def _dtype(fields: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = fields.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        detail = f"voxels are of the unknown type {int(fields['datatype'])}; expected whole or real numbers"
        raise SubjectRefused("bad-data-type", detail) from error
    if dtype.kind not in "iuf" or dtype.itemsize > MAX_ITEM_BYTES:
        raise SubjectRefused("bad-data-type", f"voxels are of type {dtype}; expected whole or real numbers")
    return dtype


def _offset(offset: float, least: int) -> int:
    """Return where the voxels start; 0 stands for the earliest place."""
    if offset == 0:
        return least
    if not (math.isfinite(offset) and least <= offset <= MAX_OFFSET):
        raise SubjectRefused("unreadable-file", f"damaged: the header says that voxels start at byte {offset:g}")
    return int(offset)


def _scale(fields: Any) -> tuple[float, float] | None:
    """Return slope and intercept; as in ITK a slope of 0 means none, and what is not a number is 0."""
    slope, intercept = (float(fields[name]) for name in ("scl_slope", "scl_inter"))
    if not math.isfinite(slope) or slope == 0:
        return None
    intercept = intercept if math.isfinite(intercept) else 0.0
    return None if (slope, intercept) == (1.0, 0.0) else (slope, intercept)
