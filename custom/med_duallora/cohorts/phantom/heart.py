"""Where the heart lies in a slice stack, and the labels of its structures."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.phantom.anatomy import Anatomy
from med_duallora.cohorts.phantom.geometry import N_ANGLES, Phase
from med_duallora.cohorts.phantom.surroundings import Scene, part_around
from med_duallora.cohorts.phantom.texture import Array, smooth_noise

# the heart lies between these u, and within this far of v = 0 (mm)
BOX_MM = (-102.0, 78.0, 86.0)
LV, MYOCARDIUM, RV = 1, 2, 3


@dataclass(frozen=True)
class HeartBox:
    """The part of a scene around the heart, in polar coordinates about the LV's axis.

    Args:
        window: (slices, x, y) of the whole image.
        u: lateral position relative to the axis in mm, (slices, x, y).
        v: inferior position relative to the axis in mm.
        z: heights of the slices in mm, (slices,).
        radius: distance from the axis in mm.
        index: row of the tables of ``N_ANGLES`` angles per slice.
        blood: texture of blood around 1.
        muscle: texture of muscle around 1.
        swell: smooth noise around 0 that makes outlines less regular.
        spacing: in-plane spacing in mm.
    """

    window: tuple[slice, slice, slice]
    u: Array
    v: Array
    z: Array
    radius: Array
    index: Array
    blood: Array
    muscle: Array
    swell: Array
    spacing: float

    def around(self, k: int, u: float, v: float, reach: float) -> tuple[slice, slice]:
        """Return the (x, y) part of slice ``k`` that holds all voxels within ``reach`` mm of (u, v)."""
        return part_around(self.u[k], self.v[k], self.spacing, (u, v), reach)

    def parts(self, reach: Array) -> Iterator["HeartBox"]:
        """Give every slice's part within ``reach`` (slices,) mm of the axis; ``window`` is then that of this box."""
        for k, far in enumerate(reach):
            yield self.part((slice(k, k + 1), *self.around(k, 0.0, 0.0, float(far))))

    def part(self, window: tuple[slice, slice, slice]) -> "HeartBox":
        """Return a part, whose ``window`` is then that of this box."""
        u, v, radius, index = self.u[window], self.v[window], self.radius[window], self.index[window]
        texture = (self.blood[window], self.muscle[window], self.swell[window])
        return HeartBox(window, u, v, self.z[window[0]], radius, index, *texture, self.spacing)


def heart_box(scene: Scene, anatomy: Anatomy, rng: np.random.Generator) -> HeartBox:
    """Return where the heart is in ``scene``; its textures come from ``rng``."""
    middle = scene.heights - np.float32(45)
    shift_u, shift_v = np.float32(anatomy.slant[0]) * middle, np.float32(anatomy.slant[1]) * middle
    near = np.zeros(scene.u.shape[1:], bool)
    for k in range(len(middle)):  # one by one: a slice fits into the processor's cache
        u, v = scene.u[k] - shift_u[k], scene.v[k] - shift_v[k]
        near |= (u > BOX_MM[0]) & (u < BOX_MM[1]) & (np.abs(v) < BOX_MM[2])
    x, y = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    window = (slice(None), slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1))
    u, v = scene.u[window] - shift_u, scene.v[window] - shift_v
    index = np.stack([_angle_index(*still) + k * N_ANGLES for k, still in enumerate(zip(u, v, strict=True))])
    fine, coarse = (smooth_noise(rng, u.shape, cell, scene.spacing) for cell in (6.0, 18.0))
    blood, muscle = 1 + 0.05 * coarse + 0.03 * fine, 1 + 0.06 * coarse + 0.07 * fine
    return HeartBox(window, u, v, scene.z, np.sqrt(u * u + v * v), index, blood, muscle, coarse, scene.spacing)


def _angle_index(u: Array, v: Array) -> Array:
    """Return the numbers of the tabulated angles that are closest to places in a slice."""
    turn = np.rint(np.arctan2(v, u) * np.float32(N_ANGLES / (2 * np.pi))).astype(np.int32)
    turn[turn < 0] += N_ANGLES
    index: Array = turn.astype(np.intp)
    return index


def base_planes(box: HeartBox, phase: Phase) -> tuple[Array, Array]:
    """Return the heights of the (mitral, tricuspid) planes at every voxel; each is tilted about its own valve."""
    tilt = phase.anatomy.tilt
    slope = np.float32(tilt[0]) * box.u + np.float32(tilt[1]) * box.v
    angle = phase.anatomy.rv_angle
    at_valve = phase.rv_reach * (tilt[0] * np.cos(angle) + tilt[1] * np.sin(angle))
    return np.float32(phase.base) + slope, np.float32(phase.rv_base - at_valve) + slope


def label_heart(box: HeartBox, phase: Phase) -> Array:
    """Return labels at voxel centres, (slices, x, y): 1 LV cavity with its papillary muscles, 2 wall, 3 RV cavity."""
    layers = phase.layers(box.z)
    tables = [getattr(layers, name).astype(np.float32) for name in ("endo", "epi", "rv")]
    labels = np.zeros(box.radius.shape, np.uint8)
    for part in box.parts(np.max(tables, axis=(0, 2))):
        endo, epi, rv = (table.take(part.index) for table in tables)
        in_lv, in_rv = (part.z[:, None, None] <= plane for plane in base_planes(part, phase))
        in_wall = part.radius < epi
        lv = np.uint8(MYOCARDIUM) * (in_wall & in_lv) - np.uint8(MYOCARDIUM - LV) * ((part.radius < endo) & in_lv)
        labels[part.window] = lv + np.uint8(RV) * ((part.radius < rv) & in_rv & ~in_wall)
    return labels
