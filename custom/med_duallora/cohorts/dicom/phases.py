"""End-diastole and end-systole of a cine without a table, by the size of the blood pool.

The rule, stated in docs/dicom.md: in the middle slices, within ``RADIUS`` of the left ventricle's axis, a threshold
between muscle and blood tells the pixels that are blood. Their area, smoothed over the cardiac cycle, is smallest at
end-systole. At rest a full ventricle keeps its size for a while; end-diastole is the end of that time: the last
frame, before the area falls, at which it is within ``FULL`` of its largest.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from med_duallora.cohorts.heart_place import find_heart
from med_duallora.nifti import Array

RADIUS = 35.0  # mm around the left ventricle's axis: its blood at end-diastole
MIDDLE = 0.5  # share of the slices that counts, around the middle one: neither valve plane nor apex
SMOOTHING = 0.03  # of a cardiac cycle, standard deviation
FULL = 0.05  # of the way from the largest area to the smallest
N_BINS = 128
MIN_CORE = 20  # pixels that are blood in all frames, below which a slice does not tell how bright blood is


@dataclass(frozen=True)
class Phases:
    """Which frames of a cine are end-diastole and end-systole.

    Args:
        ed: index of the frame, from 0.
        es: index of the frame with the smallest blood pool.
        blood: (T,) area of blood by frame after smoothing, mm2, summed over the slices that count.
    """

    ed: int
    es: int
    blood: Array


def find_phases(cine: Array, spacing: tuple[float, float, float]) -> Phases:
    """Find end-diastole and end-systole; equal frames where nothing differs between them.

    Args:
        cine: (X, Y, Z, T) intensities with bright blood, T at least 2, frames in the order of the cardiac cycle.
        spacing: voxel size in mm.
    """
    centre = find_heart(cine, spacing).centre
    x, y = np.indices(cine.shape[:2])
    near = np.hypot((x - centre[0]) * spacing[0], (y - centre[1]) * spacing[1]) <= RADIUS
    n = cine.shape[2]
    half = max(1, round(n * MIDDLE)) / 2
    middle = range(int(np.floor(n / 2 - half)), min(n, int(np.ceil(n / 2 + half))))
    area = np.sum([_blood(cine[:, :, k][near]) for k in middle], axis=0) * spacing[0] * spacing[1]
    blood = ndimage.gaussian_filter1d(area, SMOOTHING * len(area), mode="wrap")
    return Phases(_end_of_diastole(blood), int(blood.argmin()), blood)


def _end_of_diastole(blood: Array) -> int:
    n, first, last = len(blood), int(blood.argmax()), int(blood.argmin())
    enough = blood.max() - FULL * (blood.max() - blood.min())
    way = [(first + step) % n for step in range((last - first) % n)]
    return next((frame for frame in reversed(way) if blood[frame] >= enough), first)


def _blood(frames: Array) -> Array:
    """Return (T,) the number of pixels of one slice that are blood, from intensities (pixels, T).

    What is blood in all frames tells how bright blood is in each: it is brighter when it has just come in, and
    with one threshold the same heart would look larger in the frames of early filling.
    """
    values = frames.astype(np.float64)
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    if not high > low:
        return np.zeros(values.shape[1])
    muscle, blood = _two_means(np.clip(values, low, high))
    core = values[values.min(axis=1) > (muscle + blood) / 2]
    brightness = blood * np.median(core, axis=0) / np.median(core) if len(core) >= MIN_CORE else blood
    return np.asarray((values > (muscle + brightness) / 2).sum(axis=0), dtype=np.float64)


def _two_means(values: Array) -> tuple[float, float]:
    """Return the means of the values below and above Otsu's threshold."""
    counts, edges = np.histogram(values, N_BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = values.size - below
    sums = np.cumsum(counts * middles)
    low, high = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    best = int(np.argmax(below * above * (high - low) ** 2))
    return float(low[best]), float(high[best])
