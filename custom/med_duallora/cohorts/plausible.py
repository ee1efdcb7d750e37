"""Can this be a short-axis stack of a heart? Its limits lie far outside of what is seen: only mistakes meet them."""

from typing import Any

import numpy as np

from med_duallora.errors import SubjectRefused

Array = np.ndarray[Any, np.dtype[Any]]

LV = 3

# mm. Outside of these the header is in other units or belongs to another kind of image.
SPACING = ((0.3, 5.0), (0.3, 5.0), (1.0, 40.0))
EXTENT = (1000.0, 1000.0, 500.0)  # at most; the bore of a scanner is 600 to 700 mm wide
MIN_SLICES = 3  # of 10 mm: base, middle and apex; the shortest left ventricles are longer

# mL at ED. Newborns have about 8, the largest dilated ventricles of adults 600 to 700; adults of the public cohorts 40
# to 500.
LV_VOLUME = (8.0, 1000.0)

Window = tuple[tuple[int, int], tuple[int, int]]


def check_stack(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Refuse a stack whose voxels or extent are not those of a short-axis stack.

    Args:
        shape: (X, Y, Z).
        spacing: voxel size in mm.

    Raises:
        SubjectRefused: ``bad-geometry`` (voxel size) or ``implausible-stack``.
    """
    for axis, value, (low, high) in zip("xyz", spacing, SPACING, strict=True):
        if not low <= value <= high:
            detail = f"voxel size along {axis} is {value:g} mm; expected {low:g} to {high:g} mm"
            raise SubjectRefused("bad-geometry", detail)
    for axis, n, value, limit in zip("xyz", shape, spacing, EXTENT, strict=True):
        if n * value > limit:
            detail = (
                f"{n} voxels of {value:g} mm along {axis} are {n * value:.0f} mm; at most {limit:g} mm are plausible"
            )
            raise SubjectRefused("implausible-stack", detail)


def check_slices(n_slices: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Refuse a stack that is too short for a heart, which most often lost its slice distance.

    Args:
        n_slices: of the prepared volume, at 10 mm.
        shape: raw (X, Y, Z).
        spacing: raw voxel size in mm.

    Raises:
        SubjectRefused: ``implausible-stack``.
    """
    if n_slices >= MIN_SLICES:
        return
    detail = f"{shape[2]} slices of {spacing[2]:g} mm make {n_slices} of 10 mm; a heart needs {MIN_SLICES} or more"
    if tuple(spacing) == (1.0, 1.0, 1.0):
        detail += "; a voxel size of 1 x 1 x 1 mm is what programs write that lost the true one: correct pixdim"
    raise SubjectRefused("implausible-stack", detail)


def check_heart(ed_lv: Array | None, es_lv: Array | None, voxel_ml: float) -> None:
    """Refuse label maps whose left ventricle cannot be one, and those in which it does not contract.

    Args:
        ed_lv: where the raw ED segmentation has the LV, bool (X, Y, Z); None without a segmentation.
        es_lv: the same at ES.
        voxel_ml: volume of a raw voxel in mL.

    Raises:
        SubjectRefused: ``empty-lv``, ``implausible-heart`` or ``phases-exchanged``.
    """
    volumes = {}
    for phase, mask in (("ED", ed_lv), ("ES", es_lv)):
        if mask is None:
            continue
        volumes[phase] = float(np.count_nonzero(mask)) * voxel_ml
        if not volumes[phase]:
            hint = "; perhaps ED and ES are exchanged, or it is a label map of another image" if phase == "ES" else ""
            raise SubjectRefused("empty-lv", f"the {phase} segmentation has no left ventricle (label {LV}){hint}")
    if len(volumes) == 2 and volumes["ES"] >= volumes["ED"]:
        detail = f"the left ventricle is {volumes['ES']:.1f} mL large at ES and {volumes['ED']:.1f} mL at ED"
        raise SubjectRefused("phases-exchanged", f"{detail}; ED and ES may be exchanged")
    low, high = LV_VOLUME
    if "ED" in volumes and not low <= volumes["ED"] <= high:
        detail = f"the left ventricle at ED is {volumes['ED']:.1f} mL large; expected {low:g} to {high:g} mL"
        raise SubjectRefused("implausible-heart", f"{detail}: check the voxel size and the label map")


def check_crop(labels: Array | None, window: Window, phase: str) -> None:
    """Refuse a crop that does not hold the whole left ventricle.

    Args:
        labels: resampled label map (X, Y, Z); None without a segmentation.
        window: start and stop of the crop along x and y.
        phase: ED or ES.

    Raises:
        SubjectRefused: ``empty-lv`` (nothing of the LV lies on the resampled grid) or ``heart-outside``.
    """
    if labels is None:
        return
    found = np.nonzero((labels == LV).any(axis=2))
    if not len(found[0]):
        raise SubjectRefused(
            "empty-lv", f"the {phase} segmentation has no left ventricle (label {LV}) inside the image"
        )
    for axis, index, (start, stop) in zip("xy", found, window, strict=True):
        if index.min() < start or index.max() >= stop:
            detail = f"the left ventricle at {phase} spans voxels {index.min()} to {index.max()} along {axis}, the crop"
            detail += f" around the one at ED {start} to {stop - 1}: do both label maps belong to this scan?"
            raise SubjectRefused("heart-outside", detail)
