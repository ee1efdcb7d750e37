from pathlib import Path

import pytest

from med_duallora.cohorts import acdc
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import write_acdc


def test_patients_of_both_parts_are_described(tmp_path: Path) -> None:
    write_acdc(tmp_path, {"patient001": "DCM", "patient061": "NOR"})
    write_acdc(tmp_path, {"patient101": "RV"}, part="testing")
    subjects, refused = acdc.read(tmp_path)
    assert not refused
    assert [(s.subject, s.pathology, s.label, s.official_split) for s in subjects] == [
        ("patient001", "DCM", 1, "train"),
        ("patient061", "NOR", 0, "train"),
        ("patient101", "RV", 1, "test"),
    ]
    first = subjects[0]
    assert (first.vendor, first.centre, first.label_numbers) == ("siemens", "acdc", (0, 1, 2, 3))
    assert [source.path.name for _, source in first.sources()] == [
        "patient001_frame01.nii.gz",
        "patient001_frame09.nii.gz",
        "patient001_frame01_gt.nii.gz",
        "patient001_frame09_gt.nii.gz",
    ]
    assert acdc.read(tmp_path / "database") == (subjects, refused)


def test_segmentations_are_optional(tmp_path: Path) -> None:
    write_acdc(tmp_path, {"patient001": "DCM"}, segmented=False)
    (subject,), _ = acdc.read(tmp_path)
    assert [role for role, _ in subject.sources()] == ["ed", "es"]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (None, "missing-file"),
        ("", "bad-metadata"),
        ("ED: 1\nGroup: NOR\n", "bad-metadata"),  # ES is missing
        ("ED: first\nES: 9\nGroup: NOR\n", "bad-metadata"),
        ("ED: 0\nES: 0\nGroup: NOR\n", "unlabelled"),
        ("ED: 1\nES: 9\n", "unknown-pathology"),  # the test set once came without groups
        ("ED: 1\nES: 9\nGroup: XYZ\n", "unknown-pathology"),
    ],
)
def test_unusable_patients_are_refused(tmp_path: Path, info: str | None, reason: str) -> None:
    path = write_acdc(tmp_path, {"patient001": "NOR", "patient002": "NOR"}) / "patient001" / "Info.cfg"
    path.unlink() if info is None else path.write_text(info)
    subjects, refused = acdc.read(tmp_path)
    assert [subject.subject for subject in subjects] == ["patient002"]
    assert [(item.subject, item.dataset, item.reason) for item in refused] == [("patient001", "acdc", reason)]


@pytest.mark.parametrize("made", ["", "database", "database/training", "training"])
def test_a_folder_without_patients_is_no_cohort(tmp_path: Path, made: str) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(CohortError, match="holds no ACDC cohort"):
        acdc.read(tmp_path)
