"""From the files of an ordered short-axis cine to one array with its place in space."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from med_duallora.cohorts.dicom.headers import Picture, discreet, need_pydicom
from med_duallora.cohorts.dicom.stack import Slice
from med_duallora.cohorts.nifti import Array
from med_duallora.errors import SubjectRefused

MAX_VOXELS = 1 << 28  # 1 GiB as float32; a cine of 256 x 256 x 20 x 50 has a quarter of them

# What decodes the compressed forms that pydicom itself does not, as said by ``pip install``.
PLUGINS = {
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG-LS": "pylibjpeg pylibjpeg-libjpeg",
    "JPEG": "pylibjpeg pylibjpeg-libjpeg",
}


def read_cine(slices: Sequence[Slice]) -> tuple[Array, Array]:
    """Read all pictures, one file at a time.

    Args:
        slices: in rising order along the normal, each with the same number of frames in order.

    Returns:
        Intensities (X, Y, Z, T), int16 where these hold them exactly, else float32, and the affine (4, 4), voxel
        index to RAS world in mm.

    Raises:
        SubjectRefused: ``too-many-voxels``, ``unsupported-dicom`` (compressed, and the package that decodes is
            missing), ``unreadable-file``.
    """
    first = slices[0].pictures[0]
    shape = (*first.shape, len(slices), len(slices[0].pictures))
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise SubjectRefused("unsupported-dicom", f"the cine has {shape} voxels, more than {MAX_VOXELS} in all")
    cine = np.empty(shape, dtype=np.float32)
    whole = True
    for k, item in enumerate(slices):
        for t, picture in enumerate(item.pictures):
            plane = read_plane(picture, f"slice {k + 1}, frame {t + 1}")
            if plane.shape != first.shape:
                raise SubjectRefused(
                    "unreadable-file", f"slice {k + 1}, frame {t + 1}: size of the image is not as said"
                )
            whole = whole and plane.dtype.kind in "iu" and plane.min() >= -(2**15) and plane.max() < 2**15
            cine[:, :, k, t] = plane
    return (cine.astype(np.int16) if whole else cine), _affine(slices)


def _affine(slices: Sequence[Slice]) -> Array:
    first = slices[0].pictures[0]
    distance = (slices[-1].at - slices[0].at) / (len(slices) - 1)
    x, y = (np.asarray(axis) / np.linalg.norm(axis) for axis in first.axes)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = x * first.spacing[0], y * first.spacing[1], first.normal * distance
    affine[:3, 3] = first.position
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def read_plane(picture: Picture, name: str) -> Array:
    """Return (X, Y) the intensities of one file; whole numbers unless they are rescaled by others.

    Args:
        picture: whose file is read.
        name: what messages call it.

    Raises:
        SubjectRefused: ``unsupported-dicom`` (compressed, and the package that decodes is missing, or too little
            memory), ``unreadable-file``.
    """
    pydicom = need_pydicom()
    with discreet():
        try:
            dataset = pydicom.dcmread(picture.path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
            _check_decoder(pydicom, dataset.file_meta.TransferSyntaxUID)
            stored = np.asarray(dataset.pixel_array)
            return np.asarray(_intensities(dataset, stored).T)
        except SubjectRefused:
            raise
        except MemoryError as error:
            raise SubjectRefused("unsupported-dicom", f"{name} needs more memory than there is") from error
        except Exception as error:  # what pydicom says of a damaged file may quote its header
            raise SubjectRefused("unreadable-file", f"{name} is truncated or damaged") from error


def _check_decoder(pydicom: Any, syntax: Any) -> None:
    """Refuse a compressed form for which the package that decodes it is not installed."""
    if not syntax.is_encapsulated:
        return
    try:
        available = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        raise SubjectRefused(
            "unsupported-dicom", "pixels are compressed in a form that pydicom does not decode"
        ) from None
    if not available:
        form = next((form for form in PLUGINS if syntax.name.startswith(form)), "JPEG")
        form = "JPEG 2000" if "2000" in syntax.name else form
        detail = (
            f"pixels are compressed as {form}, which pydicom decodes with further packages: pip install {PLUGINS[form]}"
        )
        raise SubjectRefused("unsupported-dicom", detail)


def _intensities(dataset: Any, stored: Array) -> Array:
    values = stored.astype(np.int64) if stored.dtype.kind in "iu" else stored.astype(np.float64)
    slope, intercept = (float(dataset.get(f"Rescale{name}", plain)) for name, plain in (("Slope", 1), ("Intercept", 0)))
    if not (np.isfinite([slope, intercept]).all() and slope):
        raise ValueError("unusable rescaling")
    if str(dataset.PhotometricInterpretation) == "MONOCHROME1":
        # The smallest number is white there; blood must be bright.
        bits = int(dataset.BitsStored)
        values = (-1 if int(dataset.PixelRepresentation) else 2**bits - 1) - values
    if slope.is_integer() and intercept.is_integer():
        return values * int(slope) + int(intercept)
    return values * slope + intercept
