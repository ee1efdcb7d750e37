"""Small raster tools: smooth noise, soft edges and blending."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def soft(distance: Array, width: float) -> Array:
    """Return coverage 0..1 from a signed distance in mm (positive inside) and an edge ``width`` in mm."""
    scaled: Array = distance * np.float32(1 / width)
    scaled += np.float32(0.5)
    # one pass; minimum and maximum with a number take three times as long each
    return scaled.clip(np.float32(0), np.float32(1), out=scaled)


def blend(signal: Array, value: Array | float, coverage: Array) -> None:
    """Put ``value`` over ``signal`` in place where ``coverage`` is 1, mixing in between."""
    difference = np.asarray(value, np.float32) - signal
    difference *= coverage
    signal += difference


def darken(signal: Array, distance: Array, depth: float, width: float) -> None:
    """Draw a dark line in place where ``distance`` (mm) is 0; ``width`` mm from it the effect is a third."""
    near = distance * np.float32(1 / width)
    near *= near
    line = np.float32(0.5) * near
    line += np.float32(1)
    line *= near
    line += np.float32(1)
    np.divide(np.float32(1), line, out=line)
    line *= np.float32(-depth)
    line += np.float32(1)
    signal *= line


def _ramp(n_cells: int, n_points: int) -> tuple[Array, Array]:
    """Return, for points spread evenly over nodes, the node on their left and their share of the way to the next."""
    position = np.linspace(0, n_cells - 1, n_points)
    left = np.minimum(position.astype(int), n_cells - 2)
    return left, ((1 - np.cos(np.pi * (position - left))) / 2).astype(np.float32)


def _stretched(nodes: Array, ramp: tuple[Array, Array], axis: int) -> Array:
    """Interpolate ``nodes``, (x, y), along ``axis`` with cosine ramps (no BLAS: it would start threads)."""
    left, share = ramp
    low, stretched = np.take(nodes, left, axis), np.take(nodes, left + 1, axis)
    stretched -= low
    stretched *= share[:, None] if axis == 0 else share
    stretched += low
    return stretched


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], cell_mm: float, spacing: float) -> Array:
    """Return smooth noise of unit sd at its nodes, (slices, x, y); slices are independent of each other.

    Args:
        rng: where it is drawn from.
        shape: (slices, x, y).
        cell_mm: distance of its nodes in mm.
        spacing: voxel spacing in mm.
    """
    cells = [max(2, int(np.ceil(n * spacing / cell_mm)) + 1) for n in shape[1:]]
    nodes = rng.standard_normal((shape[0], *cells), dtype=np.float32)
    noise = np.empty(shape, np.float32)
    across, down = (_ramp(n_cells, n_points) for n_cells, n_points in zip(cells, shape[1:], strict=True))
    for still, seen in zip(nodes, noise, strict=True):
        seen[:] = _stretched(_stretched(still, across, 0), down, 1)
    return noise
