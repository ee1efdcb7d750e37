"""Small raster tools: smooth noise, soft edges and blending."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def soft(distance: Array, width: float) -> Array:
    """Return coverage 0..1 from a signed distance in mm (positive inside) and an edge ``width`` in mm."""
    scaled: Array = distance * np.float32(1 / width)
    scaled += np.float32(0.5)
    np.minimum(scaled, np.float32(1), out=scaled)
    np.maximum(scaled, np.float32(0), out=scaled)
    return scaled


def blend(signal: Array, value: Array | float, coverage: Array) -> None:
    """Put ``value`` over ``signal`` in place where ``coverage`` is 1, mixing in between."""
    difference = np.asarray(value, np.float32) - signal
    difference *= coverage
    signal += difference


def darken(signal: Array, distance: Array, depth: float, width: float) -> None:
    """Draw a dark line in place where ``distance`` (mm) is 0; ``width`` mm from it the effect is a third."""
    near = distance * np.float32(1 / width)
    near *= near
    line = np.float32(1) / (1 + near * (1 + 0.5 * near))
    line *= np.float32(-depth)
    line += np.float32(1)
    signal *= line


def _stretched(nodes: Array, n_points: int, axis: int) -> Array:
    """Interpolate ``nodes`` along ``axis`` to ``n_points`` with cosine ramps (no BLAS: it would start threads)."""
    n_cells = nodes.shape[axis]
    position = np.linspace(0, n_cells - 1, n_points)
    left = np.minimum(position.astype(int), n_cells - 2)
    share = ((1 - np.cos(np.pi * (position - left))) / 2).astype(np.float32)
    share = share[:, None] if axis == 1 else share
    low = np.take(nodes, left, axis)
    stretched: Array = low + share * (np.take(nodes, left + 1, axis) - low)
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
    return _stretched(_stretched(nodes, shape[1], 1), shape[2], 2)
