"""What is measured of one prepared subject, so that odd ones can be found among the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.cohorts.prepared import PREPARED_SPACING, PreparedSubject, load_volume
from med_duallora.errors import SubjectRefused
from med_duallora.nifti import Array, read_nifti
from med_duallora.volume import LV

ML_PER_VOXEL = float(np.prod(PREPARED_SPACING)) / 1000
BRIGHT_PERCENTILE = 95

MEASURES = {
    "brightness": "mean grey value of ED and ES (0 to 255)",
    "contrast": "standard deviation of the grey values",
    "motion": "mean absolute difference between ED and ES",
    "n_slices": "slices of 10 mm",
    "spacing_x": "raw voxel size in plane, mm",
    "spacing_z": "raw distance of slices, mm",
    "lv_ed_ml": "left ventricle at ED by its label map, mL",
    "lv_ejection": "ejection fraction by the label maps, %",
}
"""Every measure and what it is, in the order of tables and pictures."""


@dataclass(frozen=True)
class SubjectMeasures:
    """One prepared subject in numbers.

    Args:
        subject: its row of the cohort's table.
        values: by the names of ``MEASURES``; a measure that it cannot have is absent.
    """

    subject: PreparedSubject
    values: dict[str, float]


def measure(subject: PreparedSubject) -> SubjectMeasures:
    """Open a subject's volumes and measure them.

    Raises:
        CohortError: a volume is missing, damaged or not as ``prepare`` writes it; names the file.
    """
    volume = load_volume(subject)
    grey = volume.astype(np.float32)
    values = {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "motion": float(np.abs(grey[0] - grey[1]).mean()),
        "n_slices": float(volume.shape[3]),
    }
    if subject.spacing is not None:
        values |= {"spacing_x": subject.spacing[0], "spacing_z": subject.spacing[2]}
    return SubjectMeasures(subject, values | _heart(subject))


def _heart(subject: PreparedSubject) -> dict[str, float]:
    """Return size and ejection fraction of the left ventricle, where label maps lie beside the images."""
    volumes = [_lv_ml(_label_map(path)) for path in (subject.ed_path, subject.es_path)]
    ed, es = volumes
    if not ed:
        return {}
    return {"lv_ed_ml": ed} | ({} if es is None else {"lv_ejection": 100 * (1 - es / ed)})


def _label_map(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(".nii.gz") + "_gt.nii.gz")


def _lv_ml(path: Path) -> float | None:
    if not path.is_file():
        return None
    try:
        labels = read_nifti(path).data
    except SubjectRefused:  # training does not read label maps: one that is damaged is no reason to stop
        return None
    return float((labels == LV).sum()) * ML_PER_VOXEL


def odd_ones(measured: Sequence[SubjectMeasures], name: str, limit: float, least: float) -> list[str]:
    """Find the subjects whose measure lies far from the cohort's middle.

    Args:
        measured: the cohort.
        name: of the measure.
        limit: how many robust standard deviations (1.4826 times the median absolute deviation) are far.
        least: a robust standard deviation below this counts as this much, as a part of the value: where all are
            alike, the smallest difference would otherwise be odd.

    Returns:
        Their names, in the cohort's order.
    """
    values = {item.subject.subject: item.values[name] for item in measured if name in item.values}
    if len(values) < 5:
        return []
    # Logarithms: half as large is as odd as twice as large.
    numbers: Array = np.log(np.maximum(np.array(list(values.values())), 1e-6))
    middle = float(np.median(numbers))
    deviation = max(1.4826 * float(np.median(np.abs(numbers - middle))), least)
    far = np.abs(numbers - middle) > limit * deviation
    return [subject for subject, odd in zip(values, far, strict=True) if odd]
