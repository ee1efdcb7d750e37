"""Paint the heart of one phase into a body."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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


class Tables(NamedTuple):
    """Radii in mm as seen in the image, each (slices, angles).

    Args:
        compact: where trabeculae end.
        endo: endocardium.
        epi: epicardium.
        rv: RV cavity.
        outer: everything.
        sac: the pericardium.
        depth: of the RV cavity, no radius.
    """

    compact: Array
    endo: Array
    epi: Array
    rv: Array
    outer: Array
    sac: Array
    depth: Array


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
    box, tables = pen.box, _tables(pen.phase, pen.box.z)
    for k in np.flatnonzero(tables.outer.max(axis=1) > 0).tolist():
        _paint_sac(signal[k], pen, k, tables)
    _paint_great_vessels(signal, pen)
    muscles = tuple(_papillary_muscles(pen.phase, box.z))
    reach = np.max([tables.compact, tables.endo, tables.epi, tables.rv, tables.outer], axis=(0, 2)) + pen.edge
    for k, part in enumerate(box.parts(reach)):
        _paint_ventricles(
            signal[part.window], replace(pen, box=part), tables, [(u[k], v[k], r[k]) for u, v, r in muscles]
        )
    return signal


def _paint_ventricles(signal: Array, pen: Pen, tables: Tables, muscles: Sequence[tuple[float, float, float]]) -> None:
    """Paint both ventricles of a part of the box, with papillary muscles (u, v, radius) in mm."""
    box, edge, muscle = pen.box, pen.edge, pen.look.myocardium * pen.box.muscle
    compact, endo, epi, rv, outer, _, depth = (table.take(box.index) for table in tables)
    mitral, tricuspid = base_planes(box, pen.phase)
    in_rv = soft(tricuspid - box.z[:, None, None], 3.0) * np.minimum(depth / 2, np.float32(1))
    blend(signal, muscle, soft(outer - box.radius, edge) * in_rv)
    blend(signal, _rv_blood(pen), soft(rv - box.radius, edge) * in_rv)
    in_lv = soft(mitral - box.z[:, None, None], 3.0)
    blend(signal, muscle, soft(epi - box.radius, edge) * in_lv)
    cavity = signal.copy()
    blend(cavity, 0.5 * (box.blood + muscle), soft(endo - box.radius, edge))
    blend(cavity, box.blood, soft(compact - box.radius, edge))
    for u, v, radius in muscles:
        if radius > 0.5:
            du, dv = box.u - np.float32(u), box.v - np.float32(v)
            blend(cavity, muscle, soft(np.float32(radius) - np.sqrt(du * du + dv * dv), edge))
    blend(signal, cavity, in_lv * (endo > 0))


def _rv_blood(pen: Pen) -> Array:
    """Blood of the RV, with muscle bundles towards the apex."""
    phase, box = pen.phase, pen.box
    level = np.clip((box.z - phase.rv_bottom) / (phase.rv_base - phase.rv_bottom), 0, 1)[:, None, None]
    bundles = np.clip(-9 * (box.muscle - 1) - 0.4, 0, 1) * (0.7 - 0.65 * level)
    mixed: Array = box.blood + bundles * (pen.look.myocardium - box.blood)
    return mixed


def _tables(phase: Phase, z: Array) -> Tables:
    layers, theta = phase.layers(z), angles()[None]
    at_base = phase.layers(np.minimum(z, min(phase.base, phase.rv_base) - 1.0))
    above = np.maximum(z - phase.base, 0)[:, None]
    fade = np.sqrt(np.clip(1 - (above / 18) ** 2, 0, 1)) * (above > 0)
    outer = np.maximum(layers.outer, 0.95 * at_base.outer * fade)
    rough, depth = _roughness(phase, z, theta), layers.rv - layers.epi
    trabeculae, rv = layers.endo * (1 - rough), layers.epi + depth * (1 - 0.5 * rough)
    seen = (trabeculae, layers.endo, layers.epi, rv, outer, outer + _fat(phase, z, theta) * (outer > 0), depth)
    return Tables(*(table.astype(np.float32) for table in seen))


def _fat(phase: Phase, z: Array, theta: Array) -> Array:
    """Return the thickness of epicardial fat in mm: in the grooves beside the RV and at the base, little elsewhere."""
    level = np.clip((z - phase.apex) / (phase.base - phase.apex), 0, 1.2)[:, None]
    waves = phase.anatomy.waves
    grooves = np.exp(-(((theta - 4.05) / 0.45) ** 2)) + np.exp(-(((theta - 1.7) / 0.4) ** 2))
    on_rv = 0.5 * np.exp(-(((theta - phase.anatomy.rv_angle - 0.3) / 0.7) ** 2))
    uneven = 0.25 * (np.sin(4 * theta + 3 * waves[0] + 0.05 * z[:, None]) + np.sin(7 * theta + 3 * waves[1]))
    thickness: Array = phase.anatomy.epicardial_fat * (grooves + on_rv + uneven + 0.5 * level**3 - 0.15)
    return np.maximum(thickness, 0)


def _roughness(phase: Phase, z: Array, theta: Array) -> Array:
    """Return how much of the radius trabeculae take, (slices, angles); more towards the apex and at ES."""
    level = np.clip((z[:, None] - phase.apex) / (phase.base - phase.apex), 0, 1)
    waves = phase.anatomy.waves
    folds = np.zeros((len(z), theta.shape[1]))
    for k, (lobes, drift) in enumerate(((5, 0.07), (9, -0.16), (14, 0.13), (19, -0.22), (27, 0.3), (36, -0.2))):
        folds += np.sin(lobes * theta + drift * z[:, None] + 3 * waves[k] + k)
    strength = phase.anatomy.trabeculation * (0.04 + 0.09 * (1 - level) ** 1.2)
    contracted: Array = strength * (1 + 0.8 * np.clip(phase.contraction, 0, 1)) * np.maximum(folds, 0)
    return np.minimum(contracted, 0.6)


def _paint_sac(signal: Array, pen: Pen, k: int, tables: Tables) -> None:
    """Epicardial fat inside a thin dark pericardium, in slice ``k``."""
    outer, sac = (table.take(pen.box.index[k]) for table in (tables.outer, tables.sac))
    radius, nowhere = pen.box.radius[k], np.float32(99)
    darken(signal, np.where(outer > 1, radius - sac - np.float32(1.0), nowhere), 0.55, 1.2)
    present = np.clip((sac - outer) / 1.5, 0, 1)
    blend(signal, 0.8 * pen.look.fat * pen.box.muscle[k], soft(sac - radius, pen.edge) * present)
    if pen.look.ink:
        darken(signal, np.where(outer > 1, radius - outer, nowhere), pen.look.ink, 1.0)


def _paint_great_vessels(signal: Array, pen: Pen) -> None:
    """Atria, aortic root and pulmonary trunk above the valve planes: fat around them all, then thin-walled blood."""
    box, fat = pen.box, 0.7 * pen.look.fat * pen.box.muscle
    shapes = []
    for u, v, height, across, along, tall in _chambers(pen.phase):
        squeeze = np.sqrt(np.clip(1 - ((box.z - height) / tall) ** 2, 0, 1)).astype(np.float32)
        for k in np.flatnonzero(squeeze):
            du, dv = (box.u[k] - np.float32(u)) / np.float32(across), (box.v[k] - np.float32(v)) / np.float32(along)
            distance = np.float32(min(across, along)) * (squeeze[k] - np.sqrt(du * du + dv * dv))
            distance += 2.5 * box.swell[k]
            blend(signal[k], fat[k], soft(distance + np.float32(3.0), 2 * pen.edge))
            shapes.append((k, distance))
    for k, distance in shapes:
        blend(signal[k], 0.95 * box.blood[k], soft(distance, pen.edge))
        darken(signal[k], distance + np.float32(0.3), 0.65, 0.9)


def _chambers(phase: Phase) -> tuple[tuple[float, float, float, float, float, float], ...]:
    """Return ellipsoids (u, v, z, three semi-axes) in mm: left and right atrium, pulmonary trunk, aortic root."""
    scale = (phase.anatomy.lv_edv / 130) ** (1 / 3)
    right = phase.rv_reach / 0.8
    filling = 1 + 0.1 * min(max(phase.contraction, 0), 1)
    waves = phase.anatomy.waves
    base, rv_base = phase.base - 4, phase.rv_base - 4
    return (
        (12 * scale, 13 * scale, base + 24, 28 * scale * filling, 22 * filling, 27.0),
        (-0.62 * right, 22 * scale, rv_base + 24, 0.42 * right * filling, 22 * filling, 28.0),
        (-26 * scale + 2 * waves[0], -27 * scale, rv_base + 24, 17.0 + waves[1], 13.0, 38.0),
        (-8 * scale + 2 * waves[2], -8 * scale, base + 32, 14.5 + waves[3], 14.0, 40.0),
    )


def _papillary_muscles(phase: Phase, z: Array) -> Iterator[tuple[Array, Array, Array]]:
    """Give (u, v, radius) of both papillary muscles in mm, each (slices,)."""
    draws = phase.anatomy.papillary
    level = (z - phase.apex) / (phase.base - phase.apex)
    endo = phase.endo(level[:, None])
    for side, angle in enumerate(PAPILLARY_ANGLES):
        theta = angle + 0.15 * draws[side]
        radius = endo[:, int(theta / (2 * np.pi) * N_ANGLES) % N_ANGLES]
        present = np.sqrt(np.clip(1 - ((level - 0.42) / 0.28) ** 2, 0, 1))
        size = (4.4 + 0.5 * draws[2 + side]) * present * np.clip(radius / 20, 0.3, 1)
        reach = radius * (0.66 + 0.05 * draws[4 + side])
        yield reach * np.cos(theta), reach * np.sin(theta), size
