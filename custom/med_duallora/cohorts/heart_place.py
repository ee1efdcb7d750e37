"""Find the heart in a short-axis stack without a segmentation: what beats, and is round, is the left ventricle.

Between frames the walls of the ventricles move and the rest of the chest hardly does. The edge of the left
ventricle's blood is close to a circle in every slice, so each moving edge votes for the points that lie a
ventricle's radius ahead of it, on its bright side. All votes of a round moving edge meet at its centre; those of
the right ventricle, the chest wall and breathing spread.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]

EDGE_SCALE = 2.0  # mm, standard deviation of the smoothing before frames are compared
RADII = np.arange(10.0, 36.0, 2.0)  # mm, of the left ventricle's blood over slices and the cardiac cycle
VOTE_SCALE = 5.0  # mm, within which votes count as meeting
HEART_RADIUS = 80.0  # mm around the centre; no heart reaches further
MAX_FRAMES = 8  # of a cine; more add time, not places


@dataclass(frozen=True)
class HeartPlace:
    """Where the left ventricle is in the plane of the slices.

    Args:
        centre: x and y of its axis, in voxel indices of the raw stack, not rounded.
        extent_mm: radius around the centre that holds nine tenths of the heart's motion.
        confidence: 0 (a guess) to 1.
    """

    centre: tuple[float, float]
    extent_mm: float
    confidence: float


def find_heart(frames: Array, spacing: tuple[float, float, float]) -> HeartPlace:
    """Find the left ventricle from the motion between frames; their order does not matter.

    Args:
        frames: (X, Y, Z, T) finite intensities, T at least 2: ED and ES, or a whole cine.
        spacing: voxel size in mm.

    Returns:
        The place, with confidence 0 and the image's centre where nothing moves.

    Raises:
        ValueError: ``frames`` is not four-dimensional or has fewer than two frames.
    """
    if frames.ndim != 4 or frames.shape[3] < 2:
        raise ValueError(f"frames have shape {frames.shape}; expected X x Y x Z x at least 2 frames")
    smooth = _smoothed(frames, spacing)
    motion = _motion(smooth)
    votes = ndimage.gaussian_filter(_votes(smooth, motion, spacing), _in_voxels(VOTE_SCALE, spacing)[:2])
    if not votes.max() > 0:
        middle = ((frames.shape[0] - 1) / 2, (frames.shape[1] - 1) / 2)
        return HeartPlace(middle, 0.0, 0.0)
    x, y = np.unravel_index(int(votes.argmax()), votes.shape)
    centre = (float(x), float(y))
    extent, confidence = _extent_and_share(motion.sum(axis=2), centre, spacing)
    return HeartPlace(centre, extent, confidence)


def _in_voxels(scale: float, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
    return scale / spacing[0], scale / spacing[1], 0.0


def _smoothed(frames: Array, spacing: tuple[float, float, float]) -> Array:
    """Return at most ``MAX_FRAMES`` frames (X, Y, Z, T), smoothed in plane, each on its own scale of about 0 to 1."""
    chosen = np.unique(np.linspace(0, frames.shape[3], MAX_FRAMES, endpoint=False).astype(int))
    if frames.shape[3] <= MAX_FRAMES:
        chosen = np.arange(frames.shape[3])
    return np.stack([_scaled(frames[..., frame], spacing) for frame in chosen], axis=3)


def _scaled(frame: Array, spacing: tuple[float, float, float]) -> Array:
    low, high = np.percentile(frame, (1, 99))
    span = float(high - low) or 1.0
    clipped = np.clip((frame.astype(np.float64) - low) / span, 0, 1.2)
    return np.asarray(ndimage.gaussian_filter(clipped, _in_voxels(EDGE_SCALE, spacing)))


def _motion(smooth: Array) -> Array:
    """Return (X, Y, Z) how much each voxel changes over the frames, beyond what most of its slice does."""
    change = smooth.std(axis=3)
    beyond = np.clip(change - 2 * np.median(change, axis=(0, 1), keepdims=True), 0, None)
    return np.asarray(np.minimum(beyond, np.percentile(beyond, 99.5)))


def _votes(smooth: Array, motion: Array, spacing: tuple[float, float, float]) -> Array:
    """Return (X, Y) the votes of all moving edges of all slices and frames."""
    n_x, n_y = motion.shape[:2]
    votes = np.zeros(n_x * n_y)
    for target, weight in _ballots(smooth, motion, spacing):
        votes += np.bincount(target, weight, minlength=n_x * n_y)
    return votes.reshape(n_x, n_y)


def _ballots(smooth: Array, motion: Array, spacing: tuple[float, float, float]) -> Iterator[tuple[Array, Array]]:
    """Yield voxel numbers and weights of the votes for one radius, over all slices and frames."""
    n_x, n_y = motion.shape[:2]
    along_x, along_y = np.gradient(smooth, spacing[0], spacing[1], axis=(0, 1))
    steepness = np.hypot(along_x, along_y)
    weight = steepness * motion[..., np.newaxis]
    x, y, z, t = np.nonzero(weight)
    at = (x, y, z, t)
    step_x, step_y = along_x[at] / steepness[at] / spacing[0], along_y[at] / steepness[at] / spacing[1]
    for radius in RADII:
        to_x, to_y = np.rint(x + radius * step_x).astype(np.intp), np.rint(y + radius * step_y).astype(np.intp)
        inside = (to_x >= 0) & (to_x < n_x) & (to_y >= 0) & (to_y < n_y)
        yield to_x[inside] * n_y + to_y[inside], weight[at][inside] / np.sqrt(radius)


def _extent_and_share(
    motion: Array, centre: tuple[float, float], spacing: tuple[float, float, float]
) -> tuple[float, float]:
    """Return the radius in mm that holds 90 % of the heart's motion, and the heart's share of all motion."""
    x, y = np.indices(motion.shape)
    distance = np.hypot((x - centre[0]) * spacing[0], (y - centre[1]) * spacing[1])
    near = distance <= HEART_RADIUS
    order = np.argsort(distance[near])
    held = np.cumsum(motion[near][order])
    extent = float(distance[near][order][np.searchsorted(held, 0.9 * held[-1])])
    return extent, float(held[-1] / motion.sum())
