"""End-diastole and end-systole of a cine without a table: the frames with the largest and the smallest blood pool.

The rule, stated in docs/dicom.md: in the middle slices, within ``RADIUS`` of the left ventricle's axis, a threshold
between muscle and blood tells the pixels that are blood. Their area, smoothed over the cardiac cycle, is largest at
end-diastole and smallest at end-systole.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from med_duallora.cohorts.heart_place import find_heart
from med_duallora.nifti import Array

RADIUS = 40.0  # mm around the left ventricle's axis: all of its blood, with the muscle around it
MIDDLE = 0.5  # share of the slices that counts, around the middle one: neither valve plane nor apex
SMOOTHING = 0.03  # of a cardiac cycle, standard deviation
N_BINS = 128


@dataclass(frozen=True)
class Phases:
    """Which frames of a cine are end-diastole and end-systole.

    Args:
        ed: index of the frame with the largest blood pool, from 0.
        es: index of the frame with the smallest one.
        blood: (T,) area of blood by frame after smoothing, mm2, summed over the slices that count.
        confidence: of the heart's place, 0 to 1.
    """

    ed: int
    es: int
    blood: Array
    confidence: float


def find_phases(cine: Array, spacing: tuple[float, float, float]) -> Phases:
    """Find end-diastole and end-systole; equal frames where nothing differs between them.

    Args:
        cine: (X, Y, Z, T) intensities with bright blood, T at least 2, frames in the order of the cardiac cycle.
        spacing: voxel size in mm.
    """
    place = find_heart(cine, spacing)
    x, y = np.indices(cine.shape[:2])
    near = np.hypot((x - place.centre[0]) * spacing[0], (y - place.centre[1]) * spacing[1]) <= RADIUS
    n = cine.shape[2]
    half = max(1, round(n * MIDDLE)) / 2
    middle = range(int(np.floor(n / 2 - half)), min(n, int(np.ceil(n / 2 + half))))
    pixels = [[_n_blood(cine[:, :, k, frame][near]) for k in middle] for frame in range(cine.shape[3])]
    area = np.sum(pixels, axis=1) * spacing[0] * spacing[1]
    blood = ndimage.gaussian_filter1d(area, SMOOTHING * len(area), mode="wrap")
    return Phases(int(blood.argmax()), int(blood.argmin()), blood, place.confidence)


def _n_blood(values: Array) -> float:
    """Return how many pixels of one frame of one slice are brighter than halfway from muscle to blood.

    Each frame has its own threshold: blood is brighter when it has just come in, and with it the same heart would
    look larger in the frames of early filling.
    """
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    if not high > low:
        return 0.0
    return float(np.count_nonzero(values > _threshold(np.clip(values, low, high))))


def _threshold(values: Array) -> float:
    """Return the middle between the means below and above Otsu's threshold."""
    counts, edges = np.histogram(values, N_BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = len(values) - below
    sums = np.cumsum(counts * middles)
    low, high = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    best = int(np.argmax(below * above * (high - low) ** 2))
    return float(low[best] + high[best]) / 2
