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


def with_label_maps(cohort: Path, copy: Path) -> Path:
    """Copy a prepared cohort of bright discs and call what is bright the left ventricle, and its left half the wall."""
    shutil.copytree(cohort, copy)
    for subject in PreparedCohort.read(copy).subjects:
        for path in (subject.ed_path, subject.es_path):
            image = read_nifti(path)
            labels = np.where(image.data > image.data.max() * 0.6, 3, 0).astype(np.uint8)
            labels[: len(labels) // 2][labels[: len(labels) // 2] == 3] = 2
            write_nifti(label_path(path), labels, image.affine)
    return copy
