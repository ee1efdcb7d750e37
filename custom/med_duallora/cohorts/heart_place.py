"""Find the heart in a short-axis stack without a segmentation: what moves, and is round, is the left ventricle.

Between frames the walls of the ventricles move and the rest of the chest hardly does. The edge of the left
ventricle's blood is close to a circle in every slice, so each moving edge votes for the points that lie a
ventricle's radius ahead of it, on its bright side. The votes of a round edge meet at its centre; those of the
right ventricle, the chest wall and breathing spread. Confidence says how far the votes met, and in how many slices.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

Array = np.ndarray[Any, np.dtype[Any]]

GRID = 2.0  # mm, pixels on which the search runs; a finer grid finds nothing more
EDGE_SCALE = 2.0  # mm, standard deviation of the smoothing before frames are compared
RADII = np.arange(10.0, 42.0, 2.0)  # mm, of the left ventricle's blood over slices and the cardiac cycle
VOTE_SCALE = 5.0  # mm, standard deviation of the smoothing within which votes count as meeting
MOTION_SCALE = 25.0  # mm, the same for the motion around a place: ventricles as a whole
HEART_RADIUS = 80.0  # mm around the centre; no heart reaches further
MAX_FRAMES = 8  # of a cine; more add time, not places

# How the confidence is made; chosen together with CONFIDENT on the odd half of ACDC, see docs/preparation.md.
HEART_SLICES = 2 / 3  # of the slices are asked, the best: others lie above or below the ventricles
AGREEMENT_RADIUS = 4.0  # mm, within which a slice's votes speak for the place
CHANCE_AGREEMENT = 0.6  # about what a place has that slices without a heart agree on
PEAK_RADIUS = 12.0  # mm
CONCENTRATED = 0.05  # share of all votes within PEAK_RADIUS of the place from which on they are not scattered

# Below this, the image's centre is the better guess.
CONFIDENT = 0.3


@dataclass(frozen=True)
class HeartPlace:
    """Where the left ventricle is in the plane of the slices.

    Args:
        centre: x and y of its axis, in voxel indices of the raw stack, not rounded.
        extent_mm: radius around the centre that holds nine tenths of the heart's motion.
        confidence: 0 (a guess) to 1: how far the slices agree, less where the votes are scattered.
    """

    centre: tuple[float, float]
    extent_mm: float
    confidence: float


def find_heart(frames: Array, spacing: tuple[float, float, float]) -> HeartPlace:
    """Find the left ventricle from the motion between frames; their order does not matter.

    Args:
        frames: (X, Y, Z, T) intensities with bright blood, T at least 2: ED and ES, or a whole cine.
        spacing: voxel size in mm.

    Returns:
        The place; the image's centre with confidence 0 where nothing moves or voxels are not finite.

    Raises:
        ValueError: ``frames`` is not four-dimensional, has fewer than two frames, or is empty.
    """
    if frames.ndim != 4 or frames.shape[3] < 2 or 0 in frames.shape:
        raise ValueError(f"frames have shape {frames.shape}; expected X x Y x Z x at least 2 frames")
    n_x, n_y = frames.shape[:2]
    nowhere = HeartPlace(((n_x - 1) / 2, (n_y - 1) / 2), 0.0, 0.0)
    smooth = _on_grid(frames, spacing)
    if not np.isfinite(smooth).all() or min(smooth.shape[:2]) < 2:
        return nowhere
    motion = _motion(smooth)
    by_slice = _votes(smooth, motion)
    votes = _joined(by_slice, motion)
    if not votes.max() > 0:
        return nowhere
    peak = _peak(votes)
    x, y = ((place + 0.5) * n / m - 0.5 for place, n, m in zip(peak, (n_x, n_y), votes.shape, strict=True))
    return HeartPlace((x, y), _extent((motion**2).sum(axis=2), peak), _confidence(by_slice, votes, peak))


def _on_grid(frames: Array, spacing: tuple[float, float, float]) -> Array:
    """Return at most ``MAX_FRAMES`` frames (x, y, Z, T), smoothed, on 2 mm pixels and on one scale of about 0 to 1."""
    n = frames.shape[3]
    chosen = np.linspace(0, n, min(n, MAX_FRAMES), endpoint=False).astype(int)
    kept = frames[..., chosen].astype(np.float32)
    low, high = (float(value) for value in np.percentile(kept, (1, 99)))
    kept = (kept - low) / ((high - low) or 1.0)
    mean = kept.mean(axis=3)
    bright = mean > np.percentile(mean, 60)
    size = [max(2, round(n * s / GRID)) for n, s in zip(kept.shape[:2], spacing, strict=False)]
    factors = (size[0] / kept.shape[0], size[1] / kept.shape[1], 1)
    sigma = (EDGE_SCALE / spacing[0], EDGE_SCALE / spacing[1], 0)
    placed = []
    for frame in np.moveaxis(kept, 3, 0):
        # The typical ratio, not the largest values, makes frames comparable: a flickering arm must not dim a heart.
        gain = float(np.median(frame[bright] / mean[bright])) if bright.any() else 1.0
        even = ndimage.gaussian_filter(np.clip(frame / (gain if gain > 0.1 else 1.0), 0, 1.2), sigma)
        placed.append(ndimage.zoom(even, factors, order=1, grid_mode=True, mode="nearest"))
    return np.stack(placed, axis=3)


def _motion(smooth: Array) -> Array:
    """Return (x, y, Z) how much each pixel changes over the frames, beyond what most of its slice does.

    It is a square root: in a failing heart the right ventricle, the atria and vessels change several times as much
    as the left ventricle, which must still be heard.
    """
    change = smooth.std(axis=3)
    beyond = np.clip(change - 2 * np.median(change, axis=(0, 1), keepdims=True), 0, None)
    return np.asarray(np.sqrt(np.minimum(beyond, np.percentile(beyond, 99.5))))


def _votes(smooth: Array, motion: Array) -> Array:
    """Return (x, y, Z) the votes of the moving edges of each slice, as far as they come from all around.

    Votes from one direction and its opposite only, as a straight edge casts them, cancel: each vote is also a
    vector at twice its angle, and the length of their sum is taken off.
    """
    along_x, along_y = np.gradient(smooth, GRID, GRID, axis=(0, 1))
    angle = np.arctan2(along_y, along_x)
    # A square root again: edges of fat and vessels are steeper than the ventricle's.
    weight = np.sqrt(np.hypot(along_x, along_y)) * motion[..., np.newaxis]
    votes = np.zeros_like(motion)
    for k in range(motion.shape[2]):
        cast = _cast(weight[:, :, k], angle[:, :, k])
        total, *vector = (ndimage.gaussian_filter(part, VOTE_SCALE / GRID) for part in cast)
        votes[:, :, k] = np.maximum(total - np.hypot(*vector), 0)
    return votes


def _cast(weight: Array, angle: Array) -> Array:
    """Return (3, x, y): of one slice's edges (x, y, T), the sum of votes and of their vectors at twice the angle."""
    n_x, n_y = weight.shape[:2]
    at = np.nonzero(weight)
    steps = np.cos(angle[at]) / GRID, np.sin(angle[at]) / GRID
    parts = np.stack([np.ones(len(at[0])), np.cos(2 * angle[at]), np.sin(2 * angle[at])]) * weight[at]
    sums = np.zeros((3, n_x * n_y))
    for radius in RADII:
        to_x, to_y = (np.rint(at[i] + radius * steps[i]).astype(np.intp) for i in (0, 1))
        inside = (to_x >= 0) & (to_x < n_x) & (to_y >= 0) & (to_y < n_y)
        target = to_x[inside] * n_y + to_y[inside]
        for index, part in enumerate(parts[:, inside] / np.sqrt(radius)):
            sums[index] += np.bincount(target, part, minlength=n_x * n_y)
    return sums.reshape(3, n_x, n_y)


def _joined(by_slice: Array, motion: Array) -> Array:
    """Return (x, y) the votes of all slices, nearly alike in what each can say, and favoured where much moves."""
    strength = by_slice.max(axis=(0, 1))
    moving = strength > 0
    if not moving.any():
        return np.zeros(by_slice.shape[:2])
    votes = (by_slice[:, :, moving] / strength[moving] ** 0.75).sum(axis=2)
    return np.asarray(votes * np.sqrt(ndimage.gaussian_filter(motion.sum(axis=2), MOTION_SCALE / GRID)))


def _peak(votes: Array) -> tuple[int, int]:
    x, y = np.unravel_index(int(votes.argmax()), votes.shape)
    return int(x), int(y)


def _distance(shape: tuple[int, ...], centre: tuple[int, int]) -> Array:
    """Return (x, y) each pixel's distance from ``centre`` in mm."""
    x, y = np.indices(shape)
    return np.asarray(np.hypot(x - centre[0], y - centre[1]) * GRID)


def _extent(change: Array, centre: tuple[int, int]) -> float:
    """Return the radius in mm that holds 90 % of the change near ``centre`` beyond the usual farther away."""
    distance = _distance(change.shape, centre)
    near = distance <= HEART_RADIUS
    usual = float(change[~near].mean()) if not near.all() else 0.0
    order = np.argsort(distance[near])
    held = np.cumsum(np.maximum(change[near][order] - usual, 0))
    return float(distance[near][order][np.searchsorted(held, 0.9 * held[-1])])


def _confidence(by_slice: Array, votes: Array, centre: tuple[int, int]) -> float:
    """Return how near the place comes to slices' own best ones, in votes, less where votes are scattered."""
    distance = _distance(votes.shape, centre)
    best = by_slice.max(axis=(0, 1))
    here = by_slice[distance <= AGREEMENT_RADIUS].max(axis=0)
    of_best = np.sort(np.divide(here, best, out=np.zeros_like(best), where=best > 0))
    agreement = float(of_best[-int(np.ceil(HEART_SLICES * len(of_best))) :].mean())
    concentration = float(votes[distance <= PEAK_RADIUS].sum() / votes.sum())
    beyond_chance = max(0.0, agreement - CHANCE_AGREEMENT) / (1 - CHANCE_AGREEMENT)
    return beyond_chance * min(1.0, concentration / CONCENTRATED)
