import csv
import re
from pathlib import Path

import pytest

from med_duallora.cohorts.classes import lacking_class
from med_duallora.cohorts.prepared import PreparedCohort
from tests.conftest import write_tiny_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_tiny_cohort(tmp_path / "ge", "ge", 0)


def relabelled(folder: Path, splits: set[str], label: str) -> PreparedCohort:
    table = folder / "cohort.csv"
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        if row["split"] in splits:
            row["label"] = label
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return PreparedCohort.read(folder)


def test_both_classes_lack_nothing(cohort: Path) -> None:
    assert lacking_class(PreparedCohort.read(cohort)) == ""


def test_no_seed_makes_a_class_that_is_not_there(cohort: Path) -> None:
    found = lacking_class(relabelled(cohort, {"train", "val", "test"}, "1"))
    assert found.startswith("its train split has 0 normal (NOR) and 6 diseased subjects, and the whole cohort has no ")
    assert "prepare it again with normal (NOR) subjects" in found and "seed" not in found


def test_subjects_that_lie_in_other_splits_can_be_moved(cohort: Path) -> None:
    found = lacking_class(relabelled(cohort, {"train"}, "0"))
    assert found.startswith(
        "its train split has 6 normal (NOR) and 0 diseased subjects; the diseased ones lie elsewhere"
    )
    assert "(train 0, val 1, test 1)" in found and "column split of cohort.csv" in found


def test_no_subject_is_named(cohort: Path) -> None:
    assert not re.search(r"\bge\d", lacking_class(relabelled(cohort, {"test"}, "0"), "test"))
