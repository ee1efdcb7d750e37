"""What is measured of one prepared subject, so that odd ones can be found among the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from med_duallora.cohorts.nifti import Array, read_nifti
from med_duallora.cohorts.prepared import PREPARED_SPACING, PreparedSubject, label_path, load_volume
from med_duallora.cohorts.volume import LV
from med_duallora.errors import SubjectRefused

ML_PER_VOXEL = float(np.prod(PREPARED_SPACING)) / 1000
MOTION_SCALE = 5  # mm, over which noise is averaged

MEASURES = {
    "brightness": "mean grey value of ED and ES (0 to 255)",
    "contrast": "standard deviation of the grey values",
    "motion": "mean absolute difference between ED and ES",
    "n_slices": "slices of 10 mm",
    "spacing_x": "raw voxel size in plane, mm",
    "spacing_z": "raw distance of slices, mm",
    "lv_ed_ml": "left ventricle at ED by its label map, mL",
    "lv_ejection": "ejection fraction by the label maps, %",
    "motion_mm": "spread of what moves around its middle, mm (without label maps)",
}
"""Every measure and what it is, in the order of tables and pictures."""


@dataclass(frozen=True)
class SubjectMeasures:
    """One prepared subject in numbers.

    Args:
        subject: its row of the cohort's table.
        values: by the names of ``MEASURES``; a measure that it cannot have is absent.
        problems: why it cannot be used although its files are whole.
        doubts: what somebody should look at.
    """

    subject: PreparedSubject
    values: dict[str, float]
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def measure(subject: PreparedSubject) -> SubjectMeasures:
    """Open a subject's volumes and measure them.

    Raises:
        CohortError: a volume is missing, damaged or not as ``prepare`` writes it; names the file.
    """
    volume = load_volume(subject)
    if any(frame.min() == frame.max() for frame in volume):
        return SubjectMeasures(subject, {}, ("a volume has one grey value only",))
    if np.array_equal(volume[0], volume[1]):
        return SubjectMeasures(subject, {}, ("ED and ES are the same image, which shows no motion",))
    grey = volume.astype(np.float32)
    values = {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "motion": float(np.abs(grey[0] - grey[1]).mean()),
        "n_slices": float(volume.shape[3]),
    }
    if subject.spacing is not None:
        values |= {"spacing_x": subject.spacing[0], "spacing_z": subject.spacing[2]}
    label_maps = LabelMaps.beside(subject, volume.shape[1:])
    values |= label_maps.values() or {"motion_mm": _motion_mm(grey)}
    return SubjectMeasures(subject, values, label_maps.problems(), label_maps.doubts)


@dataclass(frozen=True)
class LabelMaps:
    """The left ventricle in the label maps beside a subject's images.

    Args:
        ed_ml: its volume at ED, None where there is no usable label map.
        es_ml: likewise at ES.
        doubts: about the label maps; training does not read them, so they are not a reason to stop.
    """

    ed_ml: float | None
    es_ml: float | None
    doubts: tuple[str, ...] = ()

    @classmethod
    def beside(cls, subject: PreparedSubject, shape: tuple[int, ...]) -> "LabelMaps":
        """Read the label maps (X, Y, Z) of a subject."""
        doubts: list[str] = []
        maps: list[Array | None] = []
        for image in (subject.ed_path, subject.es_path):
            labels, doubt = _read_labels(label_path(image), shape)
            maps.append(labels)
            doubts += [doubt] if doubt else []
        if maps[0] is not None and _is_cut(maps[0]):
            doubts.append("the left ventricle reaches the edge of the picture")
        ed, es = (None if labels is None else float((labels == LV).sum()) * ML_PER_VOXEL for labels in maps)
        return cls(ed, es, tuple(dict.fromkeys(doubts)))

    def values(self) -> dict[str, float]:
        """Return size and ejection fraction, as far as they are known."""
        if not self.ed_ml:
            return {}
        known = {"lv_ed_ml": self.ed_ml}
        return known if self.es_ml is None else known | {"lv_ejection": 100 * (1 - self.es_ml / self.ed_ml)}

    def problems(self) -> tuple[str, ...]:
        """Return why the frames cannot be what they are called; ``prepare`` refuses the same."""
        if self.ed_ml == 0 or self.es_ml == 0:
            return ("a label map shows no left ventricle",)
        if self.ed_ml is not None and self.es_ml is not None and self.es_ml >= self.ed_ml:
            return ("the left ventricle is not smaller at ES than at ED: they may be exchanged",)
        return ()


def _read_labels(path: Path, shape: tuple[int, ...]) -> tuple[Array | None, str]:
    if not path.is_file():
        return None, ""
    try:
        labels = read_nifti(path).data
    except SubjectRefused:
        return None, "a label map is damaged (training does not read it)"
    if labels.shape != shape:
        return None, "a label map has another shape than its image (training does not read it)"
    return labels, ""


def _is_cut(labels: Array) -> bool:
    """Return whether the left ventricle touches the edge of the picture, in plane."""
    plane = (labels == LV).any(axis=2)
    return bool(plane[[0, -1]].any() or plane[:, [0, -1]].any())


def _motion_mm(grey: Array) -> float:
    """Return the root mean square distance in mm of what moves from its middle, for (2, X, Y, Z) on 1 mm pixels."""
    change = ndimage.uniform_filter(np.abs(grey[0] - grey[1]).mean(axis=2), MOTION_SCALE)
    weight = np.clip(change - 2 * np.median(change), 0, None)
    if not weight.any():
        return 0.0
    place = np.indices(weight.shape, dtype=np.float32)
    middle = (weight * place).sum(axis=(1, 2), keepdims=True) / weight.sum()
    return float(np.sqrt((weight * ((place - middle) ** 2).sum(axis=0)).sum() / weight.sum()))


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
