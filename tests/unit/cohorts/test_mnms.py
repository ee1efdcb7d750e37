import shutil
from pathlib import Path

import pytest

from med_duallora.cohorts import mnms
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import MNMS_TABLE, mnms_row, write_csv, write_mnms


def test_subjects_of_all_parts_are_described(tmp_path: Path) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9")])
    rows = [mnms_row("A0S9V9")]
    for part, code in (("Validation", "B1V2T3"), ("Testing", "C4T5S6"), ("Training/Unlabeled", "D7U8N9")):
        rows.append(mnms_row(code, VendorName="Canon", Vendor="D"))
        shutil.copytree(base / "Training/Labeled/A0S9V9", base / part / code)
        for file in (base / part / code).iterdir():
            file.rename(file.with_name(file.name.replace("A0S9V9", code)))
    write_csv(base / MNMS_TABLE, rows)
    subjects, refused = mnms.read(tmp_path)
    assert not refused
    assert [(s.subject, s.vendor, s.official_split) for s in subjects] == [
        ("A0S9V9", "philips", "train"),
        ("B1V2T3", "canon", "val"),
        ("C4T5S6", "canon", "test"),
        ("D7U8N9", "canon", "train"),
    ]
    first = subjects[0]
    assert (first.pathology, first.centre, first.label_numbers) == ("HCM", "mnms-2", (0, 3, 2, 1))
    assert [(role, source.path.name, source.frame) for role, source in first.sources()] == [
        ("ed", "A0S9V9_sa.nii.gz", 2),
        ("es", "A0S9V9_sa.nii.gz", 0),
        ("ed_gt", "A0S9V9_sa_gt.nii.gz", 2),
        ("es_gt", "A0S9V9_sa_gt.nii.gz", 0),
    ]
    # Segmentation files of the unlabelled part are there, but mean nothing.
    assert [role for role, _ in subjects[3].sources()] == ["ed", "es"]
    assert mnms.read(base) == (subjects, refused)


def test_the_index_and_optional_columns_may_be_missing(tmp_path: Path) -> None:
    keep = ("External code", "Vendor", "ED", "ES", "Pathology")
    write_mnms(tmp_path, [{name: mnms_row("A0S9V9")[name] for name in keep}])
    (subject,), _ = mnms.read(tmp_path)
    assert (subject.vendor, subject.centre) == ("philips", "mnms")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ED": "0", "ES": "0"}, "unlabelled"),  # the 25 GE subjects of the challenge
        ({"ED": "", "ES": ""}, "unlabelled"),
        ({"ED": "4", "ES": "4"}, "unlabelled"),  # one frame is no pair
        ({"ED": "-1"}, "bad-metadata"),
        ({"ES": "x"}, "bad-metadata"),
        ({"Pathology": ""}, "unknown-pathology"),
        ({"Pathology": "TBD"}, "unknown-pathology"),
        ({"VendorName": "", "Vendor": ""}, "unknown-vendor"),
        ({"Vendor": "E"}, "unknown-vendor"),
        ({"VendorName": "Toshiba", "Vendor": ""}, "unknown-vendor"),
        ({"VendorName": "Siemens", "Vendor": "B"}, "unknown-vendor"),  # which of the two?
        ({"External code": "../A"}, "bad-metadata"),
        ({"External code": "Z9Z9Z9"}, "missing-file"),  # in the table, not on disk
    ],
)
def test_unusable_rows_are_refused(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9"), mnms_row("B0S9V9")])
    write_csv(base / MNMS_TABLE, [mnms_row("A0S9V9") | changes, mnms_row("B0S9V9")])
    subjects, refused = mnms.read(tmp_path)
    assert [subject.subject for subject in subjects] == ["B0S9V9"]
    assert (refused[0].dataset, refused[0].reason) == ("mnms", reason)
    assert "row 2" in refused[0].source


def test_a_folder_without_a_row_is_refused(tmp_path: Path) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9"), mnms_row("B0S9V9")])
    write_csv(base / MNMS_TABLE, [mnms_row("A0S9V9")])
    _, refused = mnms.read(tmp_path)
    assert [(item.subject, item.reason) for item in refused] == [("B0S9V9", "no-metadata")]


def test_a_subject_in_two_parts_is_refused(tmp_path: Path) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9")])
    shutil.copytree(base / "Training/Labeled/A0S9V9", base / "Testing/A0S9V9")
    subjects, refused = mnms.read(tmp_path)
    assert not subjects
    assert [(item.subject, item.reason) for item in refused] == [("A0S9V9", "duplicate-subject")]


def test_with_two_releases_of_the_table_the_one_with_diagnoses_counts(tmp_path: Path) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9")])
    write_csv(base / "201014_M&Ms_Dataset_Information_-_opendataset.csv", [{"External code": "A0S9V9"}])
    assert len(mnms.read(tmp_path)[0]) == 1


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (None, "holds no M&Ms cohort"),
        ({"External code": "A", "Vendor": "B", "ED": "1", "ES": "2"}, "column 'Pathology'"),  # the first release
        ({"External code": "A", "Pathology": "NOR", "ED": "1", "ES": "2"}, "column 'VendorName'"),
    ],
)
def test_unusable_cohorts_are_refused(tmp_path: Path, row: dict[str, str] | None, named: str) -> None:
    if row is not None:
        write_csv(tmp_path / "OpenDataset" / MNMS_TABLE, [row])
    with pytest.raises(CohortError, match=named):
        mnms.read(tmp_path)
