"""End-diastole and end-systole of a cine without a table, by the size of the blood pool.

The rule, stated in docs/dicom.md: in the middle slices, within ``RADIUS`` of the left ventricle's axis, a threshold
between muscle and blood tells the pixels that are blood, and their area is smoothed over the cardiac cycle. A full
ventricle keeps its size for a while, and so does an emptied one. End-diastole is the end of filling: the last frame,
before the area falls, at which it is almost the largest. End-systole is the end of ejection: the first frame after
that at which it is almost the smallest. ``ALMOST`` says how much.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from med_duallora.cohorts.heart_place import find_heart
from med_duallora.cohorts.nifti import Array
from med_duallora.errors import SubjectRefused

RADIUS = 40.0  # mm around the left ventricle's axis: its blood at end-diastole
MIDDLE = 0.5  # share of the slices that counts, around the middle one: neither valve plane nor apex
SMOOTHING = 0.03  # of a cardiac cycle, standard deviation
ALMOST = 0.06  # of the way from the largest area to the smallest
N_BINS = 128


@dataclass(frozen=True)
class Phases:
    """Which frames of a cine are end-diastole and end-systole.

    Args:
        ed: index of the frame, from 0.
        es: index of the frame, from 0.
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
    ed, es = _ends(blood)
    return Phases(ed, es, blood)


def frames_of(cine: Array, spacing: tuple[float, float, float], todo: str) -> tuple[int, int]:
    """Return the frames that are end-diastole and end-systole, see ``find_phases``.

    Args:
        cine: see there.
        spacing: likewise.
        todo: what the user can do where the rule finds none; completes a sentence.

    Raises:
        SubjectRefused: ``unlabelled``: nothing differs between the frames.
    """
    phases = find_phases(cine, spacing)
    if phases.ed == phases.es:
        raise SubjectRefused("unlabelled", f"no frame shows more blood than another; {todo}")
    return phases.ed, phases.es


def _ends(blood: Array) -> tuple[int, int]:
    """Return the end of filling and the end of ejection from the area by frame."""
    n, largest, smallest = len(blood), int(blood.argmax()), int(blood.argmin())
    little = ALMOST * float(blood.max() - blood.min())
    falling = [(largest + step) % n for step in range((smallest - largest) % n + 1)]
    full = [step for step, frame in enumerate(falling) if blood[frame] >= blood.max() - little]
    ejected = next(frame for frame in falling[full[-1] :] if blood[frame] <= blood.min() + little)
    return falling[full[-1]], ejected


def _blood(frames: Array) -> Array:
    """Return (T,) the number of pixels of one slice that are blood, from intensities (pixels, T)."""
    values = frames.astype(np.float64)
    low, high = (float(value) for value in np.percentile(values, (2, 98)))
    if not high > low:
        return np.zeros(values.shape[1])
    # One threshold for all frames: of a small pool alone, muscle and lung would pass for the two kinds of pixels.
    muscle, blood = _two_means(np.clip(values, low, high))
    return np.asarray((values > (muscle + blood) / 2).sum(axis=0), dtype=np.float64)


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
