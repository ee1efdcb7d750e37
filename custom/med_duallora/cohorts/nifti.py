"""NIfTI files in and out: one pass over a file gives voxels, geometry and hash; damaged files are refused."""

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np

from med_duallora.cohorts.itk_geometry import itk_geometry
from med_duallora.cohorts.nifti_stream import read_frames
from med_duallora.errors import SubjectRefused
from med_duallora.support.files import atomic_path
from med_duallora.support.private import PRIVATE_FILE

Array = np.ndarray[Any, np.dtype[Any]]

GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to say a gzip stream


@dataclass(frozen=True)
class NiftiImage:
    """Voxels and geometry of one NIfTI file.

    Args:
        data: voxels as stored, (X, Y, Z) or (X, Y, Z, frames); float when the header rescales intensities.
        affine: (4, 4), voxel index to RAS world in mm: unit directions times spacing, and the origin.
        spacing: voxel size in mm along the three spatial axes.
        sha256: of the file's bytes, as stored.
        n_frames: frames in the file, which may be more than were read; 1 for a 3-D file.
        placed: whether the header tells a place in space at all.
        remarks: contradictions in the header and how they were resolved, one sentence each; what follows a colon is
            a detail of this file.
    """

    data: Array
    affine: Array
    spacing: tuple[float, float, float]
    sha256: str
    n_frames: int = 1
    placed: bool = True
    remarks: tuple[str, ...] = ()

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Return (X, Y, Z)."""
        return cast(tuple[int, int, int], self.data.shape[:3])


def read_nifti(path: Path, frames: Collection[int] | None = None) -> NiftiImage:
    """Read a NIfTI-1 or NIfTI-2 file, compressed or not, with the geometry that ITK reads from it.

    Axes of length 1 behind the third are left out. The file is read to its end, and what it promises is bounded
    before anything is allocated (see ``cohorts.nifti_header``).

    Args:
        path: the file.
        frames: those of a 4-D file to keep, in ascending order along the last axis; None for all. A 3-D file is one
            stack, whatever is asked for.

    Raises:
        SubjectRefused: ``missing-file``, ``unreadable-file`` (truncated, damaged, no NIfTI image),
            ``wrong-dimensions`` (not 3-D or 4-D, or empty), ``bad-data-type`` (complex or colour voxels),
            ``frame-out-of-range``, ``too-large``, ``bad-geometry`` (no usable voxel size or axes).
    """
    header, data, sha256 = read_frames(path, frames)
    try:
        geometry = itk_geometry(header.fields)
    except SubjectRefused as refused:
        raise SubjectRefused(refused.reason, f"{path}: {refused.detail}") from refused
    return NiftiImage(
        data, geometry.affine, geometry.spacing, sha256, header.n_frames, geometry.placed, geometry.remarks
    )


def write_nifti(path: Path, data: Array, affine: Array, mode: int | None = PRIVATE_FILE, noisy: bool = False) -> None:
    """Write voxels (X, Y, Z[, frames]) with their RAS affine, atomically; ``.gz`` paths are compressed.

    Equal input gives equal bytes: neither a time nor a file name enters the compressed stream.

    Args:
        path: the file.
        data: the voxels.
        affine: (4, 4), voxel index to RAS world in mm.
        mode: of the file, see ``atomic_path``; None only where the image is of no person.
        noisy: no two voxels in a row repeat, so none are looked for: two thirds of the time, 2 % more bytes. Of a
            scan, whose background does repeat, it would make a quarter more.
    """
    image = nibabel.Nifti1Image(data, affine)
    # Both forms, as scanner anatomy: readers differ in which one they prefer.
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec" if data.ndim == 4 else None)
    content = image.to_bytes()
    if path.suffix == ".gz":
        content = _compressed(content, zlib.Z_RLE if noisy else zlib.Z_DEFAULT_STRATEGY)
    with atomic_path(path, mode) as partial:
        partial.write_bytes(content)


def _compressed(content: bytes, strategy: int) -> bytes:
    """Return a gzip stream without time or name; higher levels take up to four times as long for 1 % less."""
    stream = zlib.compressobj(1, zlib.DEFLATED, GZIP_WINDOW, 9, strategy)
    return stream.compress(content) + stream.flush()
