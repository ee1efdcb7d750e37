from pathlib import Path

import pytest

from med_duallora.cohorts.phantom import is_synthetic


def test_a_phantom_cohort_is_synthetic_at_every_depth(cohort: Path) -> None:
    assert is_synthetic(cohort)
    assert is_synthetic(cohort / "acdc")
    assert is_synthetic(next(cohort.rglob("*_sa.nii.gz")))


@pytest.mark.parametrize(
    ("text", "expected", "reason"),
    [
        ('{"synthetic": true}', True, "prepared from phantoms"),
        ('{"synthetic": false}', False, "prepared from scans"),
        ('{"synthetic": "yes"}', False, "not what prepare writes"),
        ("[1]", False, "no summary"),
        ("{", False, "damaged"),
    ],
)
def test_a_prepared_cohort_says_so_itself(tmp_path: Path, text: str, expected: bool, reason: str) -> None:
    (tmp_path / "preparation.json").write_text(text)
    assert is_synthetic(tmp_path / "subject") is expected, reason


def test_other_folders_are_not(tmp_path: Path) -> None:
    assert not is_synthetic(tmp_path)
