"""From raw ED and ES stacks to prepared volumes: the numeric rules the published CineMA weights expect.

World coordinates are ITK's (LPS, mm) here, because one of the rules is stated in them; NIfTI files and
everything outside this module use RAS.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from med_duallora.cohorts.nifti import NiftiImage, read_nifti, write_nifti
from med_duallora.cohorts.plausible import check_crop, check_heart, check_slices, check_stack
from med_duallora.errors import SubjectRefused

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
PREPARATION = "cinema-sax-3"

TARGET_SPACING = (1.0, 1.0, 10.0)  # mm
CROP_SIZE = 192  # voxels = mm, in plane
CLIP_PERCENTILES = (0.95, 99.5)

RV, MYO, LV = 1, 2, 3

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])

Window = tuple[tuple[int, int], tuple[int, int]]


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
        crop_centre: ``segmentation`` (LV bounding box at ED), ``motion`` (a centre that was given) or ``image``.
    """

    ed: Array
    es: Array
    ed_labels: Array | None
    es_labels: Array | None
    affine: Array
    window: Window
    crop_centre: str


@dataclass(frozen=True)
class _Grid:
    """Where the voxels of the resampled stack lie on the raw one.

    The direction matrix is kept and the shift of the origin is constant, so the map from target to raw
    index is a scale and an offset per axis: interpolation separates into three one-dimensional passes.
    """

    positions: tuple[Array, Array, Array]  # raw continuous index of each target voxel, per axis
    affine: Array  # (4, 4) target index to RAS

    def cropped(self, window: Window) -> "_Grid":
        """Return the part inside a window along x and y: only what is kept needs to be interpolated."""
        (x, x_stop), (y, y_stop) = window
        affine = self.affine.copy()
        affine[:3, 3] = self.affine[:3, :3] @ [x, y, 0] + self.affine[:3, 3]
        return replace(
            self, positions=(self.positions[0][x:x_stop], self.positions[1][y:y_stop], self.positions[2]), affine=affine
        )


def prepare_volume(
    ed: Array,
    es: Array,
    affine: Array,
    spacing: tuple[float, float, float],
    *,
    ed_labels: Array | None = None,
    es_labels: Array | None = None,
    label_numbers: tuple[int, int, int, int] = (0, RV, MYO, LV),
    centre: tuple[float, float] | None = None,
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
        centre: where the heart was found, as a raw voxel index along x and y; centres the crop where there is no
            segmentation of ED. None: the image's centre.
        rotated_origin_shift: turn the half-voxel shift of the origin with the image axes, which is the
            geometrically right thing. The default does not, because the published weights were trained so.

    Raises:
        SubjectRefused: ``shape-mismatch``, ``wrong-dimensions``, ``bad-geometry``, ``implausible-stack``,
            ``non-finite``, ``constant-image``, ``bad-segmentation``, ``empty-lv``, ``implausible-heart``,
            ``phases-exchanged``, ``heart-outside``.
    """
    stacks = {"ED": ed, "ES": es, "ED segmentation": ed_labels, "ES segmentation": es_labels}
    _check_stacks({name: stack for name, stack in stacks.items() if stack is not None}, spacing)
    numbered = [_numbered(stack, label_numbers) for stack in (ed_labels, es_labels)]
    cavities = [None if stack is None else stack == LV for stack in numbered]
    check_heart(cavities[0], cavities[1], float(np.prod(spacing)) / 1000)
    grid = _target_grid(ed.shape, affine, spacing, rotated_origin_shift)
    check_slices(len(grid.positions[2]), ed.shape, spacing)
    labels = [None if stack is None else _nearest(stack, grid) for stack in numbered]
    window, crop_centre = _crop_window(labels[0], grid, centre)
    for stack, phase in zip(labels, ("ED", "ES"), strict=True):
        check_crop(stack, window, phase)
    inside = (slice(*window[0]), slice(*window[1]))
    cropped = grid.cropped(window)
    return PreparedVolume(
        ed=_scale_intensity(_linear(ed, cropped), "ED"),
        es=_scale_intensity(_linear(es, cropped), "ES"),
        ed_labels=None if labels[0] is None else labels[0][inside],
        es_labels=None if labels[1] is None else labels[1][inside],
        affine=cropped.affine,
        window=window,
        crop_centre=crop_centre,
    )


def _numbered(labels: Array | None, numbers: tuple[int, int, int, int]) -> Array | None:
    """Return labels in CineMA's numbers, as uint8."""
    if labels is None:
        return None
    renumbered: Array = np.array(numbers, dtype=np.uint8)[labels.astype(np.uint8)]
    return renumbered


def _check_stacks(stacks: dict[str, Array], spacing: tuple[float, float, float]) -> None:
    """Refuse what the numbers below cannot be computed from, naming what was found and expected."""
    expected = stacks["ED"].shape
    for name, stack in stacks.items():
        if stack.ndim != 3 or 0 in stack.shape:
            raise SubjectRefused("wrong-dimensions", f"{name} has shape {stack.shape}; expected X x Y x Z")
    check_stack(expected, spacing)
    for name, stack in stacks.items():
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


def _target_grid(shape: tuple[int, ...], affine: Array, spacing: tuple[float, ...], rotated: bool) -> _Grid:
    source, target = np.asarray(spacing, dtype=np.float64), np.asarray(TARGET_SPACING)
    # Python's round, half to even: 9 slices of 5 mm become 4 slices of 10 mm.
    size = [round(n * float(s) / float(t)) for n, s, t in zip(shape, source, target, strict=True)]
    if 0 in size[:2]:
        raise SubjectRefused("wrong-dimensions", f"{shape} voxels of {source.tolist()} mm leave no 1 mm voxel")
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
    values: Array = stack
    for axis, positions in enumerate(grid.positions):
        n = stack.shape[axis]
        clamped = np.clip(positions, 0, n - 1)
        lower = np.minimum(np.floor(clamped).astype(np.intp), max(n - 2, 0))
        upper = np.minimum(lower + 1, n - 1)
        weight = (clamped - lower).reshape([-1 if i == axis else 1 for i in range(3)])
        first = values.take(lower, axis).astype(np.float64)
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


def _crop_window(labels: Array | None, grid: _Grid, centre: tuple[float, float] | None) -> tuple[Window, str]:
    """Return start and stop along x and y, and what the crop is centred on."""
    shape = [len(positions) for positions in grid.positions[:2]]
    middles = [(0.0, n - 1.0) for n in shape]
    found = "image"
    if labels is not None:
        x, y, _ = np.nonzero(labels == LV)
        if not len(x):
            raise SubjectRefused("empty-lv", "the ED segmentation has no left ventricle (label 3) inside the image")
        middles, found = [(float(i.min()), float(i.max())) for i in (x, y)], "segmentation"
    elif centre is not None:
        indices = [_target_index(grid.positions[axis], centre[axis]) for axis in range(2)]
        middles, found = [(index, index) for index in indices], "motion"
    return (_axis_window(*middles[0], shape[0]), _axis_window(*middles[1], shape[1])), found


def _target_index(positions: Array, raw: float) -> float:
    """Return the continuous target index at a raw one."""
    step = positions[1] - positions[0] if len(positions) > 1 else 1.0
    return float((raw - positions[0]) / step)


def _axis_window(first: float, last: float, n: int) -> tuple[int, int]:
    """Return the crop along one axis, centred on [first, last], shifted inside [0, n); short axes stay whole."""
    if n <= CROP_SIZE:
        return 0, n
    start = int(np.ceil((first + last) / 2 - CROP_SIZE / 2))
    start = min(max(start, 0), n - CROP_SIZE)
    return start, start + CROP_SIZE


def _contrast(stack: Array, name: str) -> tuple[float, float]:
    """Return the intensities between which a stack is scaled."""
    low, high = (float(value) for value in np.percentile(stack, CLIP_PERCENTILES))
    if not np.isfinite(high - low):
        raise SubjectRefused(
            "non-finite", f"{name} holds values up to {max(abs(low), abs(high)):g}, too large to scale"
        )
    if not high > low:
        raise SubjectRefused("constant-image", f"{name} has no contrast: it is {low:g} almost everywhere")
    return low, high


def _scale_intensity(stack: Array, name: str) -> Array:
    """Clip to the 0.95th and 99.5th percentile and scale to uint8, truncating."""
    low, high = _contrast(stack, name)
    scaled = (np.clip(stack.astype(np.float64), low, high) - low) / (high - low) * 255
    result: Array = scaled.astype(np.uint8)
    return result
