from pathlib import Path

import pytest

from med_duallora.cohorts import mnms2
from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import unpack, write_csv, write_mnms2


def row(code: str, disease: str = "NOR", vendor: str = "SIEMENS") -> dict[str, str]:
    return {"SUBJECT_CODE": code, "DISEASE": disease, "VENDOR": vendor, "SCANNER": "x", "FIELD": "1.5"}


def test_subjects_are_described_despite_a_million_blank_rows(tmp_path: Path) -> None:
    rows = [
        row("1"),
        row("160", "LV", "Philips Medical Systems"),
        row("161", "TRI", "GE MEDICAL SYSTEMS"),
        row("200"),
        row("201"),
        row("360", "FALL"),
        row("400"),
    ]
    base = write_mnms2(tmp_path, rows)
    with (base / "dataset_information.csv").open("a") as stream:
        stream.write(",,,,\n" * 1_000_000)
    subjects, refused = mnms2.read(tmp_path)
    assert not refused
    assert [(s.subject, s.pathology, s.vendor, s.official_split) for s in subjects] == [
        ("001", "NOR", "siemens", "train"),
        ("160", "LV", "philips", "train"),
        ("161", "TRI", "ge", "val"),
        ("200", "NOR", "siemens", "val"),
        ("201", "NOR", "siemens", "test"),
        ("360", "FALL", "siemens", "test"),
        ("400", "NOR", "siemens", None),  # beyond the challenge
    ]
    assert subjects[0].label_numbers == (0, 3, 2, 1)
    assert [source.path.name for _, source in subjects[0].sources()] == [
        "001_SA_ED.nii.gz",
        "001_SA_ES.nii.gz",
        "001_SA_ED_gt.nii.gz",
        "001_SA_ES_gt.nii.gz",
    ]
    assert mnms2.read(base) == (subjects, refused)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (row("1", disease="?"), "unknown-pathology"),
        (row("1", vendor="Hitachi"), "unknown-vendor"),
        (row("7"), "missing-file"),  # in the table, not on disk
        (row("one"), "bad-metadata"),
        (row("NA"), "bad-metadata"),
        (row("9" * 5000), "bad-metadata"),  # int() refuses to read so many digits
        (row("1", disease="n/a"), "unknown-pathology"),
        (row("1", vendor="nan"), "unknown-vendor"),
    ],
)
def test_unusable_rows_are_refused(tmp_path: Path, changed: dict[str, str], reason: str) -> None:
    base = write_mnms2(tmp_path, [row("1"), row("2")])
    write_csv(base / "dataset_information.csv", [changed, row("2")])
    subjects, refused = mnms2.read(tmp_path)
    assert [subject.subject for subject in subjects] == ["002"]
    assert (refused[0].dataset, refused[0].reason) == ("mnms2", reason)


def test_a_folder_without_a_row_is_refused(tmp_path: Path) -> None:
    base = write_mnms2(tmp_path, [row("1"), row("2")])
    write_csv(base / "dataset_information.csv", [row("2")])
    _, refused = mnms2.read(tmp_path)
    assert [(item.subject, item.reason) for item in refused] == [("001", "no-metadata")]


def test_unusable_cohorts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="holds no M&Ms-2 cohort"):
        mnms2.read(tmp_path)
    write_csv(tmp_path / "dataset_information.csv", [{"SUBJECT_CODE": "1"}])
    with pytest.raises(CohortError, match="column 'DISEASE'"):
        mnms2.read(tmp_path)


def test_plain_nifti_is_read_like_compressed(tmp_path: Path) -> None:
    base = write_mnms2(tmp_path, [row("1.0", vendor="Siemens Healthcare GmbH")])
    unpack(tmp_path)
    (base / "dataset/001/001_SA_CINE.nii").touch()
    ((subject,), refused) = mnms2.read(tmp_path)
    assert not refused
    assert [source.path.name for _, source in subject.sources()] == [
        "001_SA_ED.nii",
        "001_SA_ES.nii",
        "001_SA_ED_gt.nii",
        "001_SA_ES_gt.nii",
    ]
    assert subject.cine == ImageSource(base / "dataset/001/001_SA_CINE.nii")


def test_a_bad_row_costs_no_other(tmp_path: Path) -> None:
    base = write_mnms2(tmp_path, [row("1"), row("2")])
    (base / "dataset_information.csv").write_text("subject code\tdisease\tvendor\n1\tNOR\n2\tNOR\tSIEMENS\n")
    ((subject,), (refusal,)) = mnms2.read(tmp_path)
    assert (subject.subject, refusal.subject, refusal.reason) == ("002", "001", "bad-metadata")


def test_a_subject_without_an_image_is_refused(tmp_path: Path) -> None:
    base = write_mnms2(tmp_path, [row("1")])
    (base / "dataset/001/001_SA_ES.nii.gz").unlink()
    _, (refusal,) = mnms2.read(tmp_path)
    assert (refusal.reason, "001_SA_ES.nii.gz" in refusal.detail) == ("missing-file", True)
