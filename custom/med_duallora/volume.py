"""From raw ED and ES stacks to prepared volumes: the numeric rules the published CineMA weights expect.

World coordinates are ITK's (LPS, mm) here, because one of the rules is stated in them; NIfTI files and
everything outside this module use RAS.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from med_duallora.errors import SubjectRefused
from med_duallora.nifti import NiftiImage, read_nifti, write_nifti

__all__ = [
    "CROP_SIZE",
    "LV",
    "MYO",
    "PREPARATION",
    "RV",
    "TARGET_SPACING",
    "NiftiImage",
    "PreparedVolume",
    "prepare_volume",
    "read_nifti",
    "write_nifti",
]

Array = np.ndarray[Any, np.dtype[Any]]

# Names the rules of this module. Change it when any prepared voxel can change: earlier output is then redone.
PREPARATION = "cinema-sax-1"

TARGET_SPACING = (1.0, 1.0, 10.0)  # mm
CROP_SIZE = 192  # voxels = mm, in plane
CLIP_PERCENTILES = (0.95, 99.5)

RV, MYO, LV = 1, 2, 3

# Outside of these the header is in other units or belongs to another kind of image.
PLAUSIBLE_SPACING = ((0.3, 5.0), (0.3, 5.0), (1.0, 40.0))  # mm

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class PreparedVolume:
    """ED and ES of one subject, prepared alike.

    Args:
        ed: uint8 (X, Y, Z), end-diastole, 1 x 1 x 10 mm, X and Y at most 192.
        es: uint8 (X, Y, Z), end-systole.
        ed_labels: uint8 (X, Y, Z) with 1 RV, 2 MYO, 3 LV, or None without a segmentation.
        es_labels: the same for end-systole.
        affine: (4, 4), voxel index to RAS world in mm.
        window: start and stop of the crop along x and y, in voxels of the resampled stack.
        crop_centre: ``segmentation`` (LV bounding box at ED) or ``image``.
    """

    ed: Array
    es: Array
    ed_labels: Array | None
    es_labels: Array | None
    affine: Array
    window: tuple[tuple[int, int], tuple[int, int]]
    crop_centre: str


@dataclass(frozen=True)
class _Grid:
    """Where the voxels of the resampled stack lie on the raw one.

    The direction matrix is kept and the shift of the origin is constant, so the map from target to raw
    index is a scale and an offset per axis: interpolation separates into three one-dimensional passes.
    """

    positions: tuple[Array, Array, Array]  # raw continuous index of each target voxel, per axis
    affine: Array  # (4, 4) target index to RAS


def prepare_volume(
    ed: Array,
    es: Array,
    affine: Array,
    spacing: tuple[float, float, float],
    *,
    ed_labels: Array | None = None,
    es_labels: Array | None = None,
    label_numbers: tuple[int, int, int, int] = (0, RV, MYO, LV),
    rotated_origin_shift: bool = False,
) -> PreparedVolume:
    """Resample, crop and scale one subject's ED and ES stacks.

    Args:
        ed: raw end-diastolic stack (X, Y, Z), integer or float.
        es: raw end-systolic stack of the same shape.
        affine: (4, 4), voxel index to RAS world in mm; the direction cosines need not be orthonormal.
        spacing: raw voxel size in mm.
        ed_labels: optional segmentation of ``ed``, same shape, labels 0 to 3; centres the crop.
        es_labels: optional segmentation of ``es``.
        label_numbers: what the given labels 0 to 3 are as 1 RV, 2 MYO, 3 LV.
        rotated_origin_shift: turn the half-voxel shift of the origin with the image axes, which is the
            geometrically right thing. The default does not, because the published weights were trained so.

    Raises:
        SubjectRefused: ``shape-mismatch``, ``wrong-dimensions``, ``bad-geometry``, ``non-finite``,
            ``constant-image``, ``bad-segmentation``, ``empty-lv``.
    """
    stacks = {"ED": ed, "ES": es, "ED segmentation": ed_labels, "ES segmentation": es_labels}
    _check_stacks({name: stack for name, stack in stacks.items() if stack is not None}, spacing)
    grid = _target_grid(ed.shape, affine, spacing, rotated_origin_shift)
    numbers = np.array(label_numbers, dtype=np.uint8)
    labels = [
        None if stack is None else _nearest(numbers[stack.astype(np.uint8)], grid) for stack in (ed_labels, es_labels)
    ]
    window, crop_centre = _crop_window(labels[0], tuple(len(axis) for axis in grid.positions))
    inside = (slice(*window[0]), slice(*window[1]))
    origin = grid.affine[:3, :3] @ [window[0][0], window[1][0], 0] + grid.affine[:3, 3]
    cropped_affine = grid.affine.copy()
    cropped_affine[:3, 3] = origin
    return PreparedVolume(
        ed=_scale_intensity(_linear(ed, grid)[inside], "ED"),
        es=_scale_intensity(_linear(es, grid)[inside], "ES"),
        ed_labels=None if labels[0] is None else labels[0][inside],
        es_labels=None if labels[1] is None else labels[1][inside],
        affine=cropped_affine,
        window=window,
        crop_centre=crop_centre,
    )


def _check_stacks(stacks: dict[str, Array], spacing: tuple[float, float, float]) -> None:
    """Refuse what the numbers below cannot be computed from, naming what was found and expected."""
    expected = stacks["ED"].shape
    for name, stack in stacks.items():
        if stack.ndim != 3 or 0 in stack.shape:
            raise SubjectRefused("wrong-dimensions", f"{name} has shape {stack.shape}; expected X x Y x Z")
        if stack.shape != expected:
            raise SubjectRefused("shape-mismatch", f"{name} has shape {stack.shape}, but ED has {expected}")
        if not np.isfinite(stack).all():
            raise SubjectRefused("non-finite", f"{name} holds NaN or infinity")
        if not name.endswith("segmentation"):
            # Here already, because the zeros outside the raw grid would lend a flat image contrast.
            _contrast(stack, name)
        if name.endswith("segmentation") and not np.isin(stack, (0, 1, 2, 3)).all():
            found = np.unique(stack)[:8].tolist()
            raise SubjectRefused("bad-segmentation", f"{name} holds the values {found}; expected 0, 1, 2 and 3")
    for axis, value, (low, high) in zip("xyz", spacing, PLAUSIBLE_SPACING, strict=True):
        if not low <= value <= high:
            detail = f"voxel size along {axis} is {value:g} mm; expected {low:g} to {high:g} mm"
            raise SubjectRefused("bad-geometry", detail)


def _target_grid(shape: tuple[int, ...], affine: Array, spacing: tuple[float, ...], rotated: bool) -> _Grid:
    source, target = np.asarray(spacing, dtype=np.float64), np.asarray(TARGET_SPACING)
    # Python's round, half to even: 9 slices of 5 mm become 4 slices of 10 mm.
    size = [round(n * float(s) / float(t)) for n, s, t in zip(shape, source, target, strict=True)]
    if 0 in size:
        raise SubjectRefused("wrong-dimensions", f"{shape} voxels of {source.tolist()} mm leave no 10 mm slice")
    axes = RAS_TO_LPS @ affine[:3, :3]
    direction = axes / np.linalg.norm(axes, axis=0)
    shift = 0.5 * (target - source)
    if rotated:
        shift = direction @ shift
    offset = np.linalg.solve(direction, shift) / source
    starts = [offset[axis] + np.arange(size[axis]) * (target[axis] / source[axis]) for axis in range(3)]
    target_affine = np.eye(4)
    target_affine[:3, :3] = RAS_TO_LPS @ (direction * target)
    target_affine[:3, 3] = RAS_TO_LPS @ (RAS_TO_LPS @ affine[:3, 3] + shift)
    return _Grid((starts[0], starts[1], starts[2]), target_affine)


def _inside(positions: Array, n: int) -> Array:
    """Return which raw positions lie on the grid; its border reaches half a voxel beyond the outer centres."""
    return (positions >= -0.5) & (positions < n - 0.5)


def _linear(stack: Array, grid: _Grid) -> Array:
    """Interpolate linearly: edge values up to half a voxel outside, 0 beyond, integer types truncated."""
    values = stack.astype(np.float64)
    for axis, positions in enumerate(grid.positions):
        n = stack.shape[axis]
        clamped = np.clip(positions, 0, n - 1)
        lower = np.minimum(np.floor(clamped).astype(np.intp), max(n - 2, 0))
        upper = np.minimum(lower + 1, n - 1)
        weight = (clamped - lower).reshape([-1 if i == axis else 1 for i in range(3)])
        first = values.take(lower, axis)
        # In this form a flat region stays exactly flat, which truncation would otherwise turn into speckle.
        values = first + weight * (values.take(upper, axis) - first)
        values[_at(axis, ~_inside(positions, n))] = 0
    return values.astype(stack.dtype)


def _nearest(labels: Array, grid: _Grid) -> Array:
    """Take the nearest raw label, halves upward; 0 outside the raw grid."""
    result = labels
    for axis, positions in enumerate(grid.positions):
        n = labels.shape[axis]
        index = np.clip(np.floor(positions + 0.5).astype(np.intp), 0, n - 1)
        result = result.take(index, axis)
        result[_at(axis, ~_inside(positions, n))] = 0
    return result


def _at(axis: int, index: Array) -> tuple[Any, ...]:
    return (slice(None),) * axis + (index,)


def _crop_window(labels: Array | None, shape: tuple[int, ...]) -> tuple[tuple[tuple[int, int], tuple[int, int]], str]:
    """Return start and stop along x and y, and what the crop is centred on."""
    if labels is None:
        return (_axis_window(0, shape[0] - 1, shape[0]), _axis_window(0, shape[1] - 1, shape[1])), "image"
    x, y, _ = np.nonzero(labels == LV)
    if not len(x):
        raise SubjectRefused("empty-lv", "the ED segmentation has no left ventricle (label 3) to centre the crop on")
    windows = (_axis_window(int(i.min()), int(i.max()), n) for i, n in zip((x, y), shape, strict=False))
    first, second = windows
    return (first, second), "segmentation"


def _axis_window(first: int, last: int, n: int) -> tuple[int, int]:
    """Return the crop along one axis, centred on [first, last], shifted inside [0, n); short axes stay whole."""
    if n <= CROP_SIZE:
        return 0, n
    start = int(np.ceil((first + last) / 2 - CROP_SIZE / 2))
    start = min(max(start, 0), n - CROP_SIZE)
    return start, start + CROP_SIZE


def _contrast(stack: Array, name: str) -> tuple[float, float]:
    """Return the intensities between which a stack is scaled."""
    low, high = (float(value) for value in np.percentile(stack, CLIP_PERCENTILES))
    if not high > low:
        raise SubjectRefused("constant-image", f"{name} has no contrast: it is {low:g} almost everywhere")
    return low, high


def _scale_intensity(stack: Array, name: str) -> Array:
    """Clip to the 0.95th and 99.5th percentile and scale to uint8, truncating."""
    low, high = _contrast(stack, name)
    scaled = (np.clip(stack.astype(np.float64), low, high) - low) / (high - low) * 255
    result: Array = scaled.astype(np.uint8)
    return result
