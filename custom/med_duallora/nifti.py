"""NIfTI files in and out: one read of the bytes gives voxels, geometry and hash; damaged files are refused."""

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from med_duallora.errors import SubjectRefused
from med_duallora.files import atomic_path

Array = np.ndarray[Any, np.dtype[Any]]

GZIP_MAGIC = b"\x1f\x8b"

# A header whose pixdim and affine tell different voxel sizes does not say which of them is right.
SPACING_TOLERANCE = 0.01


@dataclass(frozen=True)
class NiftiImage:
    """Voxels and geometry of one NIfTI file.

    Args:
        data: voxels as stored, (X, Y, Z) or (X, Y, Z, frames); float when the header rescales intensities.
        affine: (4, 4), voxel index to RAS world in mm.
        spacing: voxel size in mm along the three spatial axes.
        sha256: of the file's bytes, as stored.
    """

    data: Array
    affine: Array
    spacing: tuple[float, float, float]
    sha256: str

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Return (X, Y, Z)."""
        return cast(tuple[int, int, int], self.data.shape[:3])


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; SubjectRefused ``missing-file`` or ``unreadable-file``."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise SubjectRefused("missing-file", f"{path} does not exist") from error
    except OSError as error:
        raise SubjectRefused("unreadable-file", f"{path}: {error.strerror or error}") from error


def read_nifti(path: Path) -> NiftiImage:
    """Read a whole .nii or .nii.gz file; refusals as in ``read_bytes`` and ``parse_nifti``."""
    return parse_nifti(path, read_bytes(path))


def parse_nifti(path: Path, stored: bytes) -> NiftiImage:
    """Turn a file's bytes into voxels and geometry.

    The bytes are used to their end even where only a frame is wanted: a compressed stream proves its
    integrity only there. Compression is recognised by content, not by name.

    Args:
        path: where the bytes come from, for messages.
        stored: the whole file.

    Raises:
        SubjectRefused: ``unreadable-file`` (truncated, damaged, not NIfTI-1), ``wrong-dimensions`` (not 3-D or
            4-D, or empty), ``bad-data-type`` (complex or colour voxels), ``bad-geometry`` (no usable voxel
            size or axes).
    """
    image = _parse(path, stored)
    if len(image.shape) not in (3, 4) or 0 in image.shape:
        raise SubjectRefused("wrong-dimensions", f"{path} has shape {image.shape}; expected X x Y x Z (x frames)")
    data = _voxels(path, image)
    affine = _affine(image)
    spacing = _spacing(path, image, affine)
    return NiftiImage(data, affine, spacing, hashlib.sha256(stored).hexdigest())


def write_nifti(path: Path, data: Array, affine: Array) -> None:
    """Write voxels (X, Y, Z[, frames]) with their RAS affine, atomically; ``.gz`` paths are compressed.

    Equal input gives equal bytes: neither a time nor a file name enters the compressed stream.
    """
    image = nibabel.Nifti1Image(data, affine)
    # Both forms, as scanner anatomy: readers differ in which one they prefer.
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec" if data.ndim == 4 else None)
    content = image.to_bytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=4, mtime=0)
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _parse(path: Path, stored: bytes) -> Any:
    if not stored:
        raise SubjectRefused("unreadable-file", f"{path} is empty")
    try:
        content = gzip.decompress(stored) if stored.startswith(GZIP_MAGIC) else stored
    except (EOFError, OSError, zlib.error) as error:
        raise SubjectRefused("unreadable-file", f"{path} is truncated or damaged: {error}") from error
    try:
        return nibabel.Nifti1Image.from_stream(io.BytesIO(content))
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, ValueError, KeyError) as error:
        raise SubjectRefused("unreadable-file", f"{path} is not a NIfTI-1 image: {error}") from error


def _voxels(path: Path, image: Any) -> Array:
    try:
        data: Array = np.asanyarray(image.dataobj)
    except (OSError, ValueError) as error:
        raise SubjectRefused("unreadable-file", f"{path} is truncated or damaged: {error}") from error
    if data.dtype.kind not in "iuf":
        raise SubjectRefused("bad-data-type", f"{path} holds {data.dtype} voxels; expected whole or real numbers")
    return data


def _affine(image: Any) -> Array:
    """Return the affine; a file without any orientation gets ITK's axes, not nibabel's.

    The axes decide where the half-voxel shift of the preparation goes, and the published weights were
    trained on what ITK read.
    """
    if image.header["qform_code"] == 0 and image.header["sform_code"] == 0:
        return np.diag([*(np.asarray(image.header.get_zooms()[:3], dtype=np.float64) * (-1, -1, 1)), 1.0])
    return np.asarray(image.affine, dtype=np.float64)


def _spacing(path: Path, image: Any, affine: Array) -> tuple[float, float, float]:
    """Return the header's voxel size in mm, checked against the affine's columns."""
    zooms = np.asarray(image.header.get_zooms()[:3], dtype=np.float64)
    axes = affine[:3, :3]
    if not (np.isfinite(affine).all() and np.isfinite(zooms).all() and (zooms > 0).all()):
        raise SubjectRefused("bad-geometry", f"{path}: voxel size {zooms.tolist()} mm or axes are not usable numbers")
    lengths = np.linalg.norm(axes, axis=0)
    if np.abs(lengths / zooms - 1).max() > SPACING_TOLERANCE:
        detail = f"{path}: the header says voxels of {zooms.round(4).tolist()} mm, its axes {lengths.round(4).tolist()}"
        raise SubjectRefused("bad-geometry", detail)
    if abs(np.linalg.det(axes / lengths)) < 0.1:
        raise SubjectRefused("bad-geometry", f"{path}: two voxel axes are almost parallel")
    return float(zooms[0]), float(zooms[1]), float(zooms[2])
