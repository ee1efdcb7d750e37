"""What `med-duallora phantom` knows of its subjects: tables of true values, label maps beside prepared volumes."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from med_duallora.cohorts.nifti import read_nifti, write_nifti
from med_duallora.cohorts.phantom.truth import TARGETS
from med_duallora.cohorts.prepared import PreparedCohort, label_path


def truth_table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    """Write a table with a row of name and values per subject, and return its path."""
    header = ["subject", *TARGETS]
    path.write_text("\n".join([",".join(header), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def truth_of(cohort: Path, path: Path, first: float = 10.0) -> Path:
    """Write a table of true values for the subjects of a prepared cohort, and return its path."""
    rows = ["subject,pathology," + ",".join(TARGETS)]
    for i, subject in enumerate(PreparedCohort.read(cohort).subjects):
        values = [first + i + 3 * (i + j) % 7 for j in range(len(TARGETS))]
        rows.append(",".join(map(str, [subject.subject, subject.pathology, *values])))
    path.write_text("\n".join(rows) + "\n")
    return path


def with_label_maps(cohort: Path, copy: Path) -> Path:
    """Copy a prepared cohort of bright discs; their right half is called LV, their left half wall and RV."""
    shutil.copytree(cohort, copy)
    for subject in PreparedCohort.read(copy).subjects:
        for path in (subject.ed_path, subject.es_path):
            image = read_nifti(path)
            labels = np.where(image.data > image.data.max() * 0.6, 3, 0).astype(np.uint8)
            labels[: len(labels) // 2][labels[: len(labels) // 2] == 3] = 2
            upper = labels[: len(labels) // 2, : labels.shape[1] // 2]
            upper[upper == 2] = 1
            write_nifti(label_path(path), labels, image.affine)
    return copy
