"""Paint the heart of one phase into a body."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from med_duallora.cohorts.phantom.appearance import Appearance
from med_duallora.cohorts.phantom.geometry import N_ANGLES, Phase, angles
from med_duallora.cohorts.phantom.heart import HeartBox, base_planes
from med_duallora.cohorts.phantom.surroundings import part_over
from med_duallora.cohorts.phantom.texture import Array, blend, darken, soft

# two samples across a slice's thickness, with the variance of a uniform profile
SUB_SLICES = (-0.289, 0.289)
PAPILLARY_ANGLES = (-0.75, 1.45)
FAR = np.float32(-1e6)  # a radius in mm so far away that a line along it leaves no trace


@dataclass(frozen=True)
class Pen:
    """What the heart is painted with: where, which phase, tissue signals and an edge width in mm."""

    box: HeartBox
    phase: Phase
    look: Appearance
    edge: float


class Tables(NamedTuple):
    """What is looked up by slice and angle, each (slices, angles): radii in mm as seen in the image, and shares.

    Args:
        compact: where trabeculae end.
        endo: endocardium.
        epi: epicardium.
        rv: RV cavity.
        outer: everything.
        sac: the pericardium.
        has_lv: 1 where there is an endocardium.
        has_rv: 0 to 1, how much of an RV cavity there is.
        has_fat: 0 to 1, how much fat there is within the sac.
        outer_line: ``outer`` where a dark line is drawn along it, else far away.
        sac_line: the same of ``sac``.
    """

    compact: Array
    endo: Array
    epi: Array
    rv: Array
    outer: Array
    sac: Array
    has_lv: Array
    has_rv: Array
    has_fat: Array
    outer_line: Array
    sac_line: Array


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
    for k in np.flatnonzero(tables.has_rv.max(axis=1) > 0).tolist():
        part = box.part((slice(k, k + 1), *_rv_window(pen, k, tables)))
        _paint_rv(signal[part.window], replace(pen, box=part), tables)
    muscles = tuple(_papillary_muscles(pen.phase, box.z))
    reach = np.max([tables.compact, tables.endo, tables.epi], axis=(0, 2)) + pen.edge
    for k, part in enumerate(box.parts(reach)):
        _paint_lv(signal[part.window], replace(pen, box=part), tables, [(u[k], v[k], r[k]) for u, v, r in muscles])
    return signal


def _rv_window(pen: Pen, k: int, tables: Tables) -> tuple[slice, slice]:
    """Return the part of slice ``k`` that holds all angles at which there is an RV, from the axis outwards."""
    seen = np.flatnonzero(tables.has_rv[k] > 0)
    far = np.maximum(tables.rv[k], tables.outer[k])[seen] + pen.edge + 1
    corners = np.stack([far * np.cos(angles()[seen]), far * np.sin(angles()[seen])], axis=1)
    return part_over(pen.box.u[k], pen.box.v[k], pen.box.spacing, np.concatenate([corners, np.zeros((1, 2))]))


def _paint_rv(signal: Array, pen: Pen, tables: Tables) -> None:
    """Paint the right ventricle in a part of the box."""
    box = pen.box
    _, tricuspid = base_planes(box, pen.phase)
    below = soft(tricuspid - box.z[:, None, None], 3.0)
    if not below.any():
        return
    below *= tables.has_rv.take(box.index)
    blend(signal, pen.look.myocardium * box.muscle, soft(tables.outer.take(box.index) - box.radius, pen.edge) * below)
    blend(signal, _rv_blood(pen), soft(tables.rv.take(box.index) - box.radius, pen.edge) * below)


def _paint_lv(signal: Array, pen: Pen, tables: Tables, muscles: Sequence[tuple[float, float, float]]) -> None:
    """Paint the left ventricle in a part of the box, with papillary muscles (u, v, radius) in mm."""
    box, edge, muscle = pen.box, pen.edge, pen.look.myocardium * pen.box.muscle
    mitral, _ = base_planes(box, pen.phase)
    in_lv = soft(mitral - box.z[:, None, None], 3.0)
    if not in_lv.any():
        return
    blend(signal, muscle, soft(tables.epi.take(box.index) - box.radius, edge) * in_lv)
    cavity = signal.copy()
    blend(cavity, 0.5 * (box.blood + muscle), soft(tables.endo.take(box.index) - box.radius, edge))
    blend(cavity, box.blood, soft(tables.compact.take(box.index) - box.radius, edge))
    for u, v, radius in muscles:
        if radius > 0.5:
            window = (slice(None), *box.around(0, u, v, radius + edge))
            du, dv = box.u[window] - np.float32(u), box.v[window] - np.float32(v)
            blend(cavity[window], muscle[window], soft(np.float32(radius) - np.sqrt(du * du + dv * dv), edge))
    blend(signal, cavity, in_lv * tables.has_lv.take(box.index))


def _rv_blood(pen: Pen) -> Array:
    """Blood of the RV, with muscle bundles towards the apex."""
    phase, box = pen.phase, pen.box
    level = np.clip((box.z - phase.rv_bottom) / (phase.rv_base - phase.rv_bottom), 0, 1)[:, None, None]
    bundles = np.clip(-9 * (box.muscle - 1) - 0.4, 0, 1) * (0.7 - 0.65 * level)
    mixed: Array = box.blood + bundles * (pen.look.myocardium - box.blood)
    return mixed


def _tables(phase: Phase, z: Array) -> Tables:
    layers, theta = phase.layers(z), angles()[None]
    rough, depth = _roughness(phase, z, theta), layers.rv - layers.epi
    trabeculae, rv = layers.endo * (1 - rough), layers.epi + depth * (1 - 0.5 * rough)
    outer: Array = layers.outer
    _close_above(outer, phase, z)
    sac = outer + _fat(phase, z, theta) * (outer > 0)
    radii = (trabeculae, layers.endo, layers.epi, rv, outer, sac)
    compact, endo, epi, seen_rv, outer, sac = (radius.astype(np.float32) for radius in radii)
    has_rv, has_fat = depth.astype(np.float32) / 2, (sac - outer) / 1.5
    drawn = outer > 1
    return Tables(
        compact,
        endo,
        epi,
        seen_rv,
        outer,
        sac,
        has_lv=(endo > 0).astype(np.float32),
        has_rv=np.minimum(has_rv, np.float32(1)),
        has_fat=np.clip(has_fat, 0, 1),
        outer_line=np.where(drawn, outer, FAR),
        sac_line=np.where(drawn, sac, FAR),
    )


def _close_above(outer: Array, phase: Phase, z: Array) -> None:
    """Let the outline of the base fade out above the mitral plane, in place."""
    above = z > phase.base
    if above.any():
        at_base = phase.layers(np.array([min(phase.base, phase.rv_base) - 1.0], z.dtype)).outer
        height = (z[above] - phase.base)[:, None]
        fade = np.sqrt(np.clip(1 - (height / 18) ** 2, 0, 1))
        outer[above] = np.maximum(outer[above], 0.95 * at_base * fade)


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
    box, index, radius = pen.box, pen.box.index[k], pen.box.radius[k]
    line = radius - tables.sac_line.take(index)
    line -= np.float32(1.0)
    darken(signal, line, 0.55, 1.2)
    window = box.around(k, 0.0, 0.0, float(tables.sac[k].max()) + pen.edge)
    inside, index = tables.sac.take(index[window]) - radius[window], index[window]
    fat = 0.8 * pen.look.fat * box.muscle[k][window]
    blend(signal[window], fat, soft(inside, pen.edge) * tables.has_fat.take(index))
    if pen.look.ink:
        darken(signal, radius - tables.outer_line.take(box.index[k]), pen.look.ink, 1.0)


def _paint_great_vessels(signal: Array, pen: Pen) -> None:
    """Atria, aortic root and pulmonary trunk above the valve planes: fat around them all, then thin-walled blood."""
    box, shapes = pen.box, []
    for u, v, height, across, along, tall in _chambers(pen.phase):
        squeeze = np.sqrt(np.clip(1 - ((box.z - height) / tall) ** 2, 0, 1)).astype(np.float32)
        for k in np.flatnonzero(squeeze).tolist():
            distance = _depth_in_chamber(box, k, (u, v, across, along), squeeze[k])
            reach = float(squeeze[k]) + (3.0 + 2 * pen.edge + 2.5 * float(box.swell[k].max())) / min(across, along)
            window = (k, *box.around(k, u, v, reach * max(across, along)))
            fat, inside = 0.7 * pen.look.fat * box.muscle[window], distance[window[1:]]
            blend(signal[window], fat, soft(inside + np.float32(3.0), 2 * pen.edge))
            shapes.append((window, distance))
    for window, distance in shapes:
        blend(signal[window], 0.95 * box.blood[window], soft(distance[window[1:]], pen.edge))
        darken(signal[window[0]], distance + np.float32(0.3), 0.65, 0.9)


def _depth_in_chamber(box: HeartBox, k: int, ellipse: tuple[float, float, float, float], squeeze: np.float32) -> Array:
    """Return how deep in mm voxels of slice ``k`` lie in an uneven ellipse (u, v, two radii) shrunk to ``squeeze``."""
    u, v, across, along = ellipse
    du, dv = box.u[k] - np.float32(u), box.v[k] - np.float32(v)
    du /= np.float32(across)
    dv /= np.float32(along)
    du *= du
    dv *= dv
    du += dv
    depth: Array = (squeeze - np.sqrt(du, out=du)) * np.float32(min(across, along))
    depth += 2.5 * box.swell[k]
    return depth


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
