"""Paint a body: everything in the slice stack but the heart."""

from dataclasses import dataclass

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

    def part(self, slices: slice) -> "Scene":
        """Return some of the slices."""
        return Scene(self.u[slices], self.v[slices], self.z[slices], self.spacing)


@dataclass(frozen=True)
class Brush:
    """What every structure is painted with: tissue signals, an edge width in mm, fine and coarse texture."""

    look: Appearance
    edge: float
    grain: Array
    coarse: Array


def paint_body(scene: Scene, body: Body, look: Appearance, rng: np.random.Generator) -> Array:
    """Return the body's signal relative to blood, (slices, x, y), before the heart is put in."""
    grain, coarse = (smooth_noise(rng, scene.u.shape, cell, scene.spacing) for cell in (8.0, 26.0))
    slices = [slice(k, k + 1) for k in range(len(scene.z))]  # one by one: a slice fits into the processor's cache
    painted = [_paint_slice(scene.part(k), body, Brush(look, 1.3 * scene.spacing, grain[k], coarse[k])) for k in slices]
    return np.concatenate(painted)


def _paint_slice(scene: Scene, body: Body, brush: Brush) -> Array:
    look = brush.look
    signal = np.float32(look.lung) * (1 + 0.3 * brush.coarse + 0.25 * brush.grain)
    vessels = body.vessels * np.array([1, 1, 1, 1, look.blood_in_lung])
    _paint_balls(signal, scene, vessels, 1.5 * scene.spacing)
    _paint_back(signal, scene, body, brush)
    _paint_abdomen(signal, scene, body, brush)
    _paint_chest(signal, scene, body, brush)
    painted: Array = np.maximum(signal, np.float32(0), out=signal)
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
    step_u, step_v = u[1, 0] - u[0, 0], v[1, 0] - v[0, 0]
    du, dv = centre[0] - u[0, 0], centre[1] - v[0, 0]
    x = round(float(du * step_u + dv * step_v) / spacing**2)
    y = round(float(dv * step_u - du * step_v) / spacing**2)
    n = round(reach / spacing) + 1
    return slice(max(x - n, 0), max(x + n, 0)), slice(max(y - n, 0), max(y + n, 0))


def _paint_balls(signal: Array, scene: Scene, balls: Array, edge: float) -> None:
    """Paint balls (n, 5: u, v, z, radius, signal), each only where it is; slices see them through a soft profile."""
    seen = np.abs(scene.z - balls[:, 2:3]) < balls[:, 3:4] + 4
    for ball, k in np.argwhere(seen):
        u, v, height, radius, bright = balls[ball]
        flat = max(1 - float((scene.z[k] - height) / (radius + 4)) ** 2, 0.0) ** 0.5
        window = (k, *part_around(scene.u[k], scene.v[k], scene.spacing, (u, v), radius + edge))
        away_u, away_v = scene.u[window] - np.float32(u), scene.v[window] - np.float32(v)
        distance = np.float32(radius * flat) - np.sqrt(away_u * away_u + away_v * away_v)
        blend(signal[window], bright, soft(distance, edge))


def _paint_back(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Spine with its muscles, and the descending aorta."""
    look = brush.look
    towards_apex = 60 - scene.heights
    spine = (body.spine[0] + 0.1 * towards_apex, body.spine[1])
    muscle = _ellipse(scene, spine, (body.spine[2] + 9, body.spine[2] + 16), 0.3)
    bone = _ellipse(scene, spine, (body.spine[2], 1.15 * body.spine[2]), 0.3)
    u, v, radius, elongation = body.aorta
    aorta = _ellipse(scene, (u + 0.28 * towards_apex, v + 0.12 * towards_apex), (radius, radius * elongation), 0.5)
    blend(signal, look.muscle * (1 + 0.2 * brush.grain), soft(muscle, brush.edge))
    blend(signal, look.marrow * (1 + 0.15 * brush.grain), soft(bone, brush.edge))
    blend(signal, look.myocardium, soft(aorta + np.float32(1.6), brush.edge))
    blend(signal, 0.95 + 0.06 * brush.grain, soft(aorta, brush.edge))


def _paint_abdomen(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Fat pad, diaphragm, and below it liver on the septal side, other organs in fat on the lateral side."""
    look, z = brush.look, scene.heights
    curvature, top_u, slope = body.dome
    below = scene.v - np.float32(curvature) * (scene.u - np.float32(top_u)) ** 2
    below -= np.float32(body.diaphragm) + np.float32(slope) * (z - 35) + 2 * brush.coarse
    fat = 0.75 * look.fat * (1 + 0.12 * brush.coarse + 0.12 * brush.grain)
    u, v, long, short = body.fat_pad
    approach = np.clip(0.5 * (45 - z), -40, 30)
    pad = _ellipse(scene, (u + 0.4 * approach, v), (long, short), 0.6)
    blend(signal, fat, soft(pad + 3 * brush.coarse, 2 * brush.edge))
    _paint_balls(fat, scene, body.organs + np.array([0, body.diaphragm, 0, 0, 0]), 2.5 * brush.edge)
    liver = look.liver * (1 + 0.08 * brush.coarse + 0.1 * brush.grain)
    vessels = body.liver_vessels * np.array([1, 1, 1, 1, 1]) + np.array([0, body.diaphragm, 0, 0, 0])
    _paint_balls(liver, scene, vessels, 1.5 * brush.edge)
    blend(fat, liver, soft(body.split + 0.8 * (z - 30) + 6 * brush.coarse - scene.u, 2 * brush.edge))
    fat *= 1 + 0.12 * brush.grain
    blend(signal, look.muscle, soft(below + np.float32(2.0), brush.edge))
    blend(signal, fat, soft(below, 1.5 * brush.edge))


def _paint_chest(signal: Array, scene: Scene, body: Body, brush: Brush) -> None:
    """Ribs and muscle around the thoracic cavity, subcutaneous fat around them, air outside."""
    look = brush.look
    approach = body.chest_approach * np.clip(45 - scene.heights, -20, 80)
    centre = (body.chest_centre[0] + approach, body.chest_centre[1] - 0.25 * approach)
    x, y = _turned(scene, centre, body.chest_angle)
    angle = np.arctan2(y, x)
    inner_waves, fat_waves = _waves(angle, body.chest_waves)
    outside = inner_waves - _ellipse_at(x, y, body.chest_radii)
    ribs = np.sin(9 * angle + 0.04 * scene.heights) + 0.5 * brush.grain
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


def _waves(angle: Array, amplitudes: Array) -> tuple[Array, Array]:
    """Return two sums of harmonics in mm at ``angle``, from amplitudes (2, waves, cosine and sine)."""
    turns = np.linspace(-np.pi, np.pi, 721)
    orders = np.arange(1, amplitudes.shape[1] + 1)[:, None]
    harmonics = np.stack([np.cos(orders * turns), np.sin(orders * turns)], axis=1)
    tables = np.einsum("swk,wkt->st", amplitudes, harmonics).astype(np.float32)
    index = np.rint((angle + np.float32(np.pi)) * np.float32(360 / np.pi)).astype(np.int32)
    return tables[0][index], tables[1][index]
