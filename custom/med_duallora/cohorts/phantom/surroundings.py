"""Paint a body: everything in the slice stack but the heart."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from med_duallora.cohorts.phantom.appearance import Appearance
from med_duallora.cohorts.phantom.body import Body
from med_duallora.cohorts.phantom.texture import Array, blend, darken, smooth_noise, soft


@dataclass(frozen=True)
class Scene:
    """Voxel positions: ``u`` and ``v`` (slices, x, y) and ``z`` (slices,) in mm, and the in-plane spacing."""

    u: Array
    v: Array
    z: Array
    spacing: float

    @property
    def heights(self) -> Array:
        """``z`` as (slices, 1, 1)."""
        return self.z[:, None, None]

    def part(self, window: tuple[slice, ...]) -> "Scene":
        """Return a part, (slices, x, y) or only the first of these."""
        return Scene(self.u[window], self.v[window], self.z[window[0]], self.spacing)

    def around(self, u: float, v: float, reach: float) -> tuple[slice, slice, slice]:
        """Return the part of a scene of one slice that holds all voxels within ``reach`` mm of (u, v)."""
        return (slice(None), *part_around(self.u[0], self.v[0], self.spacing, (u, v), reach))


@dataclass(frozen=True)
class Brush:
    """What structures are painted with: tissue signals, an edge width in mm, fine and coarse texture, chest waves."""

    look: Appearance
    edge: float
    grain: Array
    coarse: Array
    waves: Array

    def part(self, window: tuple[slice, ...]) -> "Brush":
        """Return the brush for a part of its slice."""
        return replace(self, grain=self.grain[window], coarse=self.coarse[window])


class Ring(NamedTuple):
    """Voxels by their angle around the chest in radians and their depth in its ellipse in mm, each (voxels,)."""

    angle: Array
    inside: Array


def paint_body(scene: Scene, body: Body, look: Appearance, rng: np.random.Generator) -> Array:
    """Return the body's signal relative to blood, (slices, x, y), before the heart is put in."""
    grain, coarse = (smooth_noise(rng, scene.u.shape, cell, scene.spacing) for cell in (8.0, 26.0))
    brush = Brush(look, 1.3 * scene.spacing, grain, coarse, _waves(body.chest_waves))
    signal = np.empty(scene.u.shape, np.float32)
    for k in range(len(scene.z)):  # one by one: a slice fits into the processor's cache
        window = (slice(k, k + 1),)
        signal[window] = _paint_slice(scene.part(window), body, brush.part(window))
    return signal


def _paint_slice(scene: Scene, body: Body, brush: Brush) -> Array:
    look = brush.look
    signal = np.float32(look.lung) * (1 + 0.3 * brush.coarse + 0.25 * brush.grain)
    vessels = body.vessels * np.array([1, 1, 1, 1, look.blood_in_lung])
    _paint_balls(signal, scene, vessels, 1.5 * scene.spacing)
    _paint_back(signal, scene, body, brush)
    _paint_fat_pad(signal, scene, body, brush)
    _paint_abdomen(signal, scene, body, brush)
    _paint_chest(signal, scene, body, brush)
    painted: Array = signal.clip(np.float32(0), None, out=signal)
    return painted


def _ellipse(
    scene: Scene, centre: tuple[Array | float, Array | float], radii: tuple[float, float], angle: float
) -> Array:
    """Return the signed distance in mm along the ray from the centre; positive inside."""
    return _ellipse_at(*_turned(scene, centre, angle), radii)


def _ellipse_at(x: Array, y: Array, radii: tuple[float, float]) -> Array:
    x, y = x * x, y * y
    relative = np.sqrt(x * np.float32(1 / radii[0] ** 2) + y * np.float32(1 / radii[1] ** 2)) + np.float32(1e-6)
    distance: Array = np.sqrt(x + y) * (1 / relative - 1)
    return distance


def _turned(scene: Scene, centre: tuple[Array | float, Array | float], angle: float) -> tuple[Array, Array]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    du, dv = scene.u - np.asarray(centre[0], np.float32), scene.v - np.asarray(centre[1], np.float32)
    return cosine * du + sine * dv, cosine * dv - sine * du


def part_around(u: Array, v: Array, spacing: float, centre: tuple[float, float], reach: float) -> tuple[slice, slice]:
    """Return the part of a slice that holds all voxels within ``reach`` mm of ``centre``.

    Args:
        u: (x, y) positions in mm of the voxels of a grid, which may be turned in the plane.
        v: likewise.
        spacing: of the grid in mm.
        centre: (u, v) in mm.
        reach: in mm.
    """
    step_u, step_v = float(u[1, 0] - u[0, 0]) / spacing**2, float(v[1, 0] - v[0, 0]) / spacing**2
    du, dv = centre[0] - float(u[0, 0]), centre[1] - float(v[0, 0])
    x, y = round(du * step_u + dv * step_v), round(dv * step_u - du * step_v)
    n = round(reach / spacing) + 1
    return slice(max(x - n, 0), max(x + n, 0)), slice(max(y - n, 0), max(y + n, 0))


def part_over(u: Array, v: Array, spacing: float, points: Array) -> tuple[slice, slice]:
    """Return the part of a slice that holds ``points``, (n, 2) in mm, with a voxel around it; see ``part_around``."""
    step_u, step_v = float(u[1, 0] - u[0, 0]) / spacing**2, float(v[1, 0] - v[0, 0]) / spacing**2
    du, dv = points[:, 0] - float(u[0, 0]), points[:, 1] - float(v[0, 0])
    x, y = du * step_u + dv * step_v, dv * step_u - du * step_v
    (left, right), (top, bottom) = ((max(int(at.min()) - 1, 0), max(int(at.max()) + 3, 0)) for at in (x, y))
    return slice(left, right), slice(top, bottom)


def parts_around(u: Array, v: Array, spacing: float, centres: Array, reach: Array) -> Iterator[tuple[slice, slice]]:
    """Give for every centre, (n, 2) in mm, what ``part_around`` returns for it; ``reach`` is (n,)."""
    step_u, step_v = float(u[1, 0] - u[0, 0]) / spacing**2, float(v[1, 0] - v[0, 0]) / spacing**2
    du, dv = centres[:, 0] - float(u[0, 0]), centres[:, 1] - float(v[0, 0])
    corner = np.rint([du * step_u + dv * step_v, dv * step_u - du * step_v])
    n = np.rint(reach / spacing) + 1
    low, high = np.maximum(corner - n, 0).astype(int).tolist(), np.maximum(corner + n, 0).astype(int).tolist()
    for left, right, top, bottom in zip(low[0], high[0], low[1], high[1], strict=True):
        yield slice(left, right), slice(top, bottom)


def _paint_balls(signal: Array, scene: Scene, balls: Array, edge: float) -> None:
    """Paint balls (n, 5: u, v, z, radius, signal), each only where it is; a slice sees them through a soft profile."""
    seen = balls[np.abs(scene.z - balls[:, 2]) < balls[:, 3] + 4]
    flats = np.sqrt(np.maximum(1 - ((scene.z - seen[:, 2]) / (seen[:, 3] + 4)) ** 2, 0)) * seen[:, 3]
    windows = parts_around(scene.u[0], scene.v[0], scene.spacing, seen[:, :2], seen[:, 3] + edge)
    for (u, v, _, _, bright), flat, window in zip(seen.tolist(), flats.tolist(), windows, strict=True):
        away, across = scene.u[0][window] - np.float32(u), scene.v[0][window] - np.float32(v)
        away *= away
        across *= across
        away += across
        np.sqrt(away, out=away)
        blend(signal[0][window], bright, soft(np.subtract(np.float32(flat), away, out=away), edge))


def _paint_back(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Spine with its muscles, and the descending aorta."""
    look = brush.look
    towards_apex, size = 60 - scene.z[0], body.spine[2]
    u, v = body.spine[0] + 0.1 * towards_apex, body.spine[1]
    window = scene.around(u, v, size + 16 + brush.edge)
    part, seen, grain = scene.part(window), signal[window], brush.grain[window]
    muscle, bone = (_ellipse(part, (u, v), radii, 0.3) for radii in ((size + 9, size + 16), (size, 1.15 * size)))
    blend(seen, look.muscle * (1 + 0.2 * grain), soft(muscle, brush.edge))
    blend(seen, look.marrow * (1 + 0.15 * grain), soft(bone, brush.edge))

    u, v, radius, elongation = body.aorta
    u, v = u + 0.28 * towards_apex, v + 0.12 * towards_apex
    window = scene.around(u, v, radius * max(elongation, 1) + 1.6 + brush.edge)
    part, seen, grain = scene.part(window), signal[window], brush.grain[window]
    aorta = _ellipse(part, (u, v), (radius, radius * elongation), 0.5)
    blend(seen, look.myocardium, soft(aorta + np.float32(1.6), brush.edge))
    blend(seen, 0.95 + 0.06 * grain, soft(aorta, brush.edge))


def _fat(brush: Brush) -> Array:
    return 0.75 * brush.look.fat * (1 + 0.12 * brush.coarse + 0.12 * brush.grain)


def _paint_fat_pad(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Fat between heart, diaphragm and chest wall."""
    u, v, long, short = body.fat_pad
    u += 0.4 * np.clip(0.5 * (45 - scene.z[0]), -40, 30)
    uneven = 3 * brush.coarse
    window = scene.around(u, v, max(long, short) + float(uneven.max()) + 2 * brush.edge)
    pad = _ellipse(scene.part(window), (u, v), (long, short), 0.6)
    blend(signal[window], _fat(brush.part(window)), soft(pad + uneven[window], 2 * brush.edge))


def _paint_abdomen(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Diaphragm, and below it liver on the septal side, other organs in fat on the lateral side."""
    curvature, top_u, slope = body.dome
    below = scene.v - np.float32(curvature) * (scene.u - np.float32(top_u)) ** 2
    below -= np.float32(body.diaphragm) + np.float32(slope) * (scene.heights - 35) + 2 * brush.coarse
    window = _box_of(below > -2.0 - brush.edge)
    _paint_below(signal[window], below[window], scene.part(window), body, brush.part(window))


def _paint_below(signal: Array, below: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Paint a part of a slice that holds all that is ``below`` the diaphragm (mm)."""
    look, fat = brush.look, _fat(brush)
    _paint_balls(fat, scene, body.organs + np.array([0, body.diaphragm, 0, 0, 0]), 2.5 * brush.edge)
    liver = look.liver * (1 + 0.08 * brush.coarse + 0.1 * brush.grain)
    vessels = body.liver_vessels * np.array([1, 1, 1, 1, 1]) + np.array([0, body.diaphragm, 0, 0, 0])
    _paint_balls(liver, scene, vessels, 1.5 * brush.edge)
    blend(fat, liver, soft(body.split + 0.8 * (scene.heights - 30) + 6 * brush.coarse - scene.u, 2 * brush.edge))
    fat *= 1 + 0.12 * brush.grain
    blend(signal, look.muscle, soft(below + np.float32(2.0), brush.edge))
    blend(signal, fat, soft(below, 1.5 * brush.edge))


def _box_of(mask: Array) -> tuple[slice, slice, slice]:
    """Return the smallest part of a slice, (1, x, y), that holds all of ``mask``."""
    x, y = np.flatnonzero(mask[0].any(axis=1)), np.flatnonzero(mask[0].any(axis=0))
    x, y = (found if len(found) else np.array([0, -1]) for found in (x, y))
    return slice(None), slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1)


def _paint_chest(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Ribs and muscle around the thoracic cavity, subcutaneous fat around them, air outside."""
    approach = body.chest_approach * np.clip(45 - scene.heights, -20, 80)
    centre = (body.chest_centre[0] + approach, body.chest_centre[1] - 0.25 * approach)
    x, y = _turned(scene, centre, body.chest_angle)
    inside = _ellipse_at(x, y, body.chest_radii)
    air, lung = _certain(inside, body, brush)
    signal[air] = 0
    rest = np.flatnonzero(~air if brush.look.ink else ~(air | lung))  # a dark line fades out over all of the lung
    painted, angle = signal.take(rest), np.arctan2(y.take(rest), x.take(rest))
    ribs = np.sin(9 * angle + 0.04 * scene.heights[0, 0])
    at_rest = replace(brush, grain=brush.grain.take(rest), coarse=brush.coarse.take(rest))
    _paint_wall(painted, ribs, Ring(angle, inside.take(rest)), body, at_rest)
    signal.reshape(-1)[rest] = painted


def _certain(inside: Array, body: Body, brush: Brush) -> tuple[Array, Array]:
    """Return where only air, and where no chest wall, can be; ``inside`` is the depth in the chest's ellipse in mm."""
    waves, low, high = brush.waves, float(brush.coarse.min()), float(brush.coarse.max())
    wall = 1.3 * body.wall + 1.5 * high + max(body.fat * (1 + 0.08 * high) + float(waves[1].max()), 3)
    reach = max(2.5, -1.5 * low - 0.7 * body.wall)
    return inside < float(waves[0].min()) - wall - brush.edge, inside > float(waves[0].max()) + reach + brush.edge


def _paint_wall(signal: Array, ribs: Array, ring: Ring, body: Body, brush: Brush) -> None:
    """Paint the chest wall and what is outside of it, all (voxels,); ``ribs`` is 1 in the middle of a rib."""
    look, angle = brush.look, ring.angle
    turn = np.rint((angle + np.float32(np.pi)) * np.float32(360 / np.pi)).astype(np.intp)
    inner_waves, fat_waves = (table.take(turn) for table in brush.waves)
    outside = inner_waves - ring.inside
    ribs = ribs + 0.5 * brush.grain
    muscle = look.muscle * (1 + 0.25 * brush.grain)
    blend(muscle, look.marrow, soft(ribs - np.float32(0.75), 0.5))
    thickness = np.maximum(body.fat * (1 + 0.08 * brush.coarse) + fat_waves, 3)
    blend(signal, 0.5 * look.fat, soft(outside + np.float32(2.5), brush.edge))
    blend(signal, muscle, soft(outside, brush.edge))
    blend(muscle, 0.6 * look.fat, soft(brush.grain * brush.coarse - np.float32(0.5), 0.6))
    beyond = outside - np.float32(body.wall) * (1 + 0.3 * np.sin(3 * angle + 2)) - 1.5 * brush.coarse
    blend(signal, look.fat * (1 + 0.08 * brush.coarse + 0.06 * brush.grain), soft(beyond, brush.edge))
    if look.ink:
        darken(signal, beyond, look.ink, 1.4)
    blend(signal, 0.0, soft(beyond - thickness, brush.edge))


def _waves(amplitudes: Array) -> Array:
    """Return two sums of harmonics in mm at every half degree, from amplitudes (2, waves, cosine and sine)."""
    turns = np.linspace(-np.pi, np.pi, 721)
    orders = np.arange(1, amplitudes.shape[1] + 1)[:, None]
    harmonics = np.stack([np.cos(orders * turns), np.sin(orders * turns)], axis=1)
    tables: Array = np.einsum("swk,wkt->st", amplitudes, harmonics).astype(np.float32)
    return tables
