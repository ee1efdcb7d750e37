"""Paint the heart of one phase into a body."""

from dataclasses import dataclass, replace

import numpy as np

from med_duallora.cohorts.phantom.appearance import Appearance
from med_duallora.cohorts.phantom.geometry import N_ANGLES, Phase, angles
from med_duallora.cohorts.phantom.heart import HeartBox, base_planes
from med_duallora.cohorts.phantom.texture import Array, blend, darken, soft

# two samples across a slice's thickness, with the variance of a uniform profile
SUB_SLICES = (-0.289, 0.289)
PAPILLARY_ANGLES = (-0.75, 1.45)


@dataclass(frozen=True)
class Pen:
    """What the heart is painted with: where, which phase, tissue signals and an edge width in mm."""

    box: HeartBox
    phase: Phase
    look: Appearance
    edge: float


def paint_heart(body: Array, box: HeartBox, phase: Phase, look: Appearance, thickness: float) -> Array:
    """Return the signal with the heart put into ``body`` (slices, x, y); a slice of ``thickness`` mm is averaged."""
    signal: Array = body.copy()
    local = body[box.window]
    total = np.zeros_like(local)
    for share in SUB_SLICES:
        shifted = replace(box, z=box.z + np.float32(share * thickness))
        total += _paint_at(local.copy(), Pen(shifted, phase, look, 1.2 * box.spacing))
    signal[box.window] = total / np.float32(len(SUB_SLICES))
    return signal


def _paint_at(signal: Array, pen: Pen) -> Array:
    box, edge, muscle = pen.box, pen.edge, pen.look.myocardium * pen.box.muscle
    endo, epi, rv, outer, sac, crescent = (table.ravel()[box.index] for table in _tables(pen.phase, box.z))
    mitral, tricuspid = base_planes(box, pen.phase)
    _paint_sac(signal, pen, outer, sac)
    _paint_vessels(signal, pen)
    in_rv = soft(tricuspid - box.z[:, None, None], 3.0) * np.minimum(crescent / 2, np.float32(1))
    blend(signal, muscle, soft(outer - box.radius, edge) * in_rv)
    blend(signal, box.blood, soft(rv - box.radius, edge) * in_rv)
    in_lv = soft(mitral - box.z[:, None, None], 3.0)
    blend(signal, muscle, soft(epi - box.radius, edge) * in_lv)
    cavity = signal.copy()
    blend(cavity, box.blood, soft(endo - box.radius, edge))
    _paint_papillary(cavity, pen, muscle)
    blend(signal, cavity, in_lv * (endo > 0))
    return signal


def _tables(phase: Phase, z: Array) -> tuple[Array, ...]:
    """Return six radii in mm, each (slices, angles), as seen in the image.

    They are endocardium and RV cavity with their trabeculae, epicardium, everything, the pericardium, and the depth
    of the RV cavity.
    """
    layers, theta = phase.layers(z), angles()[None]
    at_base = phase.layers(np.minimum(z, min(phase.base, phase.rv_base) - 1.0))
    above = np.maximum(z - phase.base, 0)[:, None]
    fade = np.sqrt(np.clip(1 - (above / 55) ** 2, 0, 1)) * (above > 0)
    outer = np.maximum(layers.outer, at_base.outer * fade)
    grooves = np.exp(-(((theta - 3.9) / 0.7) ** 2)) + np.exp(-(((theta - 1.75) / 0.6) ** 2))
    fat = phase.anatomy.epicardial_fat * (0.5 + 0.7 * grooves) * (outer > 0)
    rough, depth = _roughness(phase, z, theta), layers.rv - layers.epi
    seen = (layers.endo * (1 - rough), layers.epi, layers.epi + depth * (1 - 0.8 * rough), outer, outer + fat, depth)
    return tuple(table.astype(np.float32) for table in seen)


def _roughness(phase: Phase, z: Array, theta: Array) -> Array:
    """Return how much of the radius trabeculae take, (slices, angles); more towards the apex and at ES."""
    level = np.clip((z[:, None] - phase.apex) / (phase.base - phase.apex), 0, 1)
    waves = phase.anatomy.waves
    folds = np.zeros((len(z), theta.shape[1]))
    for k, (lobes, drift) in enumerate(((7, 0.11), (11, -0.16), (16, 0.23), (23, -0.3))):
        folds += np.sin(lobes * theta + drift * z[:, None] + 3 * waves[k] + k)
    strength = phase.anatomy.trabeculation * (0.03 + 0.07 * (1 - level) ** 1.2)
    contracted: Array = strength * (1 + 0.8 * np.clip(phase.contraction, 0, 1)) * np.maximum(folds, 0)
    return contracted


def _paint_sac(signal: Array, pen: Pen, outer: Array, sac: Array) -> None:
    """Epicardial fat inside a thin dark pericardium."""
    present, radius = (sac > 1).astype(np.float32), pen.box.radius
    line = np.where(sac > 1, radius - sac - np.float32(0.8), np.float32(99))
    darken(signal, line, 0.6, 1.1)
    blend(signal, 0.75 * pen.look.fat * pen.box.muscle, soft(sac - radius, pen.edge) * present)
    if pen.look.ink:
        darken(signal, np.where(sac > 1, radius - outer, np.float32(99)), pen.look.ink, 1.0)


def _paint_vessels(signal: Array, pen: Pen) -> None:
    """Atria, aortic root and pulmonary trunk above the valve planes."""
    phase, box = pen.phase, pen.box
    scale = (phase.anatomy.lv_edv / 130) ** (1 / 3)
    base, rv_base = phase.base - 3, phase.rv_base - 3
    filling = 1 + 0.1 * min(max(phase.contraction, 0), 1)
    chambers = (
        (12 * scale, 12 * scale, base + 24, 25 * scale * filling, 21 * filling, 26.0),
        (-38 * scale, 24 * scale, rv_base + 22, 24 * filling, 21 * filling, 25.0),
        (-30 * scale, -26 * scale, base + 22, 15.0, 14.0, 34.0),
        (-10 * scale, -8 * scale, base + 30, 14.0, 14.0, 36.0),
    )
    for u, v, height, across, along, tall in chambers:
        squeeze = np.sqrt(np.clip(1 - ((box.z - height) / tall) ** 2, 0, 1)).astype(np.float32)
        for k in np.flatnonzero(squeeze):
            du, dv = (box.u[k] - np.float32(u)) / np.float32(across), (box.v[k] - np.float32(v)) / np.float32(along)
            distance = np.float32(min(across, along)) * (squeeze[k] - np.sqrt(du * du + dv * dv))
            blend(signal[k], pen.look.myocardium, soft(distance + np.float32(1.5), pen.edge))
            blend(signal[k], 0.95 * box.blood[k], soft(distance, pen.edge))


def _paint_papillary(signal: Array, pen: Pen, muscle: Array) -> None:
    phase, box, draws = pen.phase, pen.box, pen.phase.anatomy.papillary
    level = (box.z - phase.apex) / (phase.base - phase.apex)
    endo = phase.endo(level[:, None])
    for side, angle in enumerate(PAPILLARY_ANGLES):
        theta = angle + 0.15 * draws[side]
        radius = endo[:, int(theta / (2 * np.pi) * N_ANGLES) % N_ANGLES]
        present = np.sqrt(np.clip(1 - ((level - 0.42) / 0.28) ** 2, 0, 1))
        size = (4.4 + 0.5 * draws[2 + side]) * present * np.clip(radius / 20, 0.3, 1)
        reach = radius * (0.66 + 0.05 * draws[4 + side])
        for k in np.flatnonzero(size > 0.5):
            du, dv = box.u[k] - np.float32(reach[k] * np.cos(theta)), box.v[k] - np.float32(reach[k] * np.sin(theta))
            blend(signal[k], muscle[k], soft(np.float32(size[k]) - np.sqrt(du * du + dv * dv), pen.edge))
