"""End-diastole and end-systole of a cine without a table: the frames with the largest and the smallest blood pool.

The rule, stated in docs/dicom.md: around the place of the left ventricle, in the middle slices, a threshold between
muscle and blood (Otsu's, from the pixels of all frames of a slice) says how much of a pixel is blood. The sum per
frame, smoothed over the cardiac cycle, is largest at end-diastole and smallest at end-systole.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from med_duallora.cohorts.heart_place import find_heart
from med_duallora.nifti import Array

RADIUS = 45.0  # mm around the left ventricle's axis: all of it with its wall at end-diastole
MIDDLE = 0.5  # share of the slices that counts, around the middle one: neither valve plane nor apex
N_BINS = 128
SMOOTHING = 0.03  # of a cardiac cycle, standard deviation


@dataclass(frozen=True)
class Phases:
    """Which frames of a cine are end-diastole and end-systole.

    Args:
        ed: index of the frame with the largest blood pool, from 0.
        es: index of the frame with the smallest one.
        blood: (T,) size of the blood pool by frame after smoothing, in mm2 summed over the slices that count.
        confidence: of the heart's place, 0 to 1.
    """

    ed: int
    es: int
    blood: Array
    confidence: float


def find_phases(cine: Array, spacing: tuple[float, float, float]) -> Phases:
    """Find end-diastole and end-systole.

    Args:
        cine: (X, Y, Z, T) intensities with bright blood, T at least 2, frames in the order of the cardiac cycle.
        spacing: voxel size in mm.
    """
    place = find_heart(cine, spacing)
    n = cine.shape[2]
    half = max(1, round(n * MIDDLE)) / 2
    first, last = int(np.floor(n / 2 - half)), int(np.ceil(n / 2 + half))
    parts = [_blood(cine[:, :, k], place.centre, spacing) for k in range(first, min(last, n))]
    size = np.sum(parts, axis=0) * spacing[0] * spacing[1]
    blood = ndimage.gaussian_filter1d(size, SMOOTHING * len(size), mode="wrap")
    return Phases(int(blood.argmax()), int(blood.argmin()), blood, place.confidence)


def _blood(plane: Array, centre: tuple[float, float], spacing: tuple[float, float, float]) -> Array:
    """Return (T,) the number of pixels' worth of blood around ``centre`` in the frames (X, Y, T) of one slice."""
    x, y = np.indices(plane.shape[:2])
    distance = np.hypot((x - centre[0]) * spacing[0], (y - centre[1]) * spacing[1])
    near = plane[distance <= RADIUS].astype(np.float64)
    weight = np.exp(-0.5 * (distance[distance <= RADIUS] / (RADIUS / 2)) ** 2)
    low, high = (float(value) for value in np.percentile(near, (2, 98)))
    if not high > low:
        return np.zeros(plane.shape[2])
    muscle, blood = _two_means(np.clip(near, low, high))
    share = np.clip((near - muscle) / (blood - muscle), 0, 1)
    return np.asarray((share * weight[:, np.newaxis]).sum(axis=0))


def _two_means(values: Array) -> tuple[float, float]:
    """Return the means of the values below and above Otsu's threshold."""
    counts, edges = np.histogram(values, N_BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    sums = np.cumsum(counts * middles)
    above = below[-1] + counts[-1] - below
    low, high = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    best = int(np.argmax(below * above * (high - low) ** 2))
    return float(low[best]), float(high[best])
