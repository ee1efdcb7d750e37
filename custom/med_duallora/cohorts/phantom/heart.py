"""Where the heart lies in a slice stack, and the labels of its structures."""

from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.phantom.anatomy import Anatomy
from med_duallora.cohorts.phantom.geometry import N_ANGLES, Phase
from med_duallora.cohorts.phantom.surroundings import Scene
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


def heart_box(scene: Scene, anatomy: Anatomy, rng: np.random.Generator) -> HeartBox:
    """Return where the heart is in ``scene``; its textures come from ``rng``."""
    middle = scene.heights - np.float32(45)
    u, v = scene.u - np.float32(anatomy.slant[0]) * middle, scene.v - np.float32(anatomy.slant[1]) * middle
    near = ((u > BOX_MM[0]) & (u < BOX_MM[1]) & (np.abs(v) < BOX_MM[2])).any(axis=0)
    x, y = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    window = (slice(None), slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1))
    u, v = u[window], v[window]
    turn = np.arctan2(v, u) * np.float32(N_ANGLES / (2 * np.pi))
    index = np.rint(turn).astype(np.int32) % N_ANGLES + N_ANGLES * np.arange(len(u), dtype=np.int32)[:, None, None]
    fine, coarse = (smooth_noise(rng, u.shape, cell, scene.spacing) for cell in (6.0, 18.0))
    blood, muscle = 1 + 0.05 * coarse + 0.03 * fine, 1 + 0.06 * coarse + 0.07 * fine
    return HeartBox(window, u, v, scene.z, np.sqrt(u * u + v * v), index, blood, muscle, coarse, scene.spacing)


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
    endo, epi, rv = (getattr(layers, name).astype(np.float32).ravel()[box.index] for name in ("endo", "epi", "rv"))
    in_lv, in_rv = (box.z[:, None, None] <= plane for plane in base_planes(box, phase))
    labels = np.zeros(box.radius.shape, np.uint8)
    labels[(box.radius < rv) & in_rv] = RV
    labels[box.radius < epi] = 0
    labels[(box.radius < epi) & in_lv] = MYOCARDIUM
    labels[(box.radius < endo) & in_lv] = LV
    return labels
