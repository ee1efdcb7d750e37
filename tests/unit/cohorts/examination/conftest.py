"""Prepared cohorts with one fault each."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import write_tiny_cohort

Rows = list[dict[str, str]]


def edit(folder: Path, change: Callable[[Rows], None]) -> None:
    """Rewrite a cohort's table."""
    with (folder / "cohort.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with (folder / "cohort.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def set_all(**values: str) -> Callable[[Rows], None]:
    return lambda rows: [row.update(values) for row in rows]  # type: ignore[return-value]


def image(folder: Path, subject: str, phase: str) -> Path:
    return folder / subject / f"{subject}_sax_{phase}.nii.gz"


def rewrite_image(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    found = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(found.dataobj)), found.affine), path)


def copy_of(folder: Path, original: str, copy: str) -> None:
    """Give one subject's images to another one."""
    for phase in ("ed", "es"):
        shutil.copy(image(folder, original, phase), image(folder, copy, phase))


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A healthy cohort of 30 subjects: 10 each to train, validate and test, half of them normal."""
    folder = write_tiny_cohort(tmp_path / "prepared" / "ge", "ge", seed=3, n_subjects=30, n_by_split=(10, 10, 10))
    edit(folder, set_all(frames="given", dataset="table"))
    return folder
