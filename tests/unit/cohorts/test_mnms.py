import shutil
from pathlib import Path

import pytest

from med_duallora.cohorts import mnms
from med_duallora.cohorts.prepare_one import Prepared, prepare_one
from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import MNMS_TABLE, mnms_row, unpack, write_csv, write_mnms


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
        ({"ED": "4", "ES": "4"}, "unlabelled"),  # one frame is not a pair
        ({"ED": "-1"}, "bad-metadata"),
        ({"ES": "x"}, "bad-metadata"),
        ({"Pathology": ""}, "unknown-pathology"),
        ({"Pathology": "TBD"}, "unknown-pathology"),
        ({"VendorName": "", "Vendor": ""}, "unknown-vendor"),
        ({"Vendor": "E"}, "unknown-vendor"),
        ({"VendorName": "Hitachi", "Vendor": ""}, "unknown-vendor"),
        ({"VendorName": "n/a", "Vendor": "NA"}, "unknown-vendor"),
        ({"ED": "NA", "ES": "nan"}, "unlabelled"),
        ({"Pathology": "NA"}, "unknown-pathology"),
        ({"External code": "NA"}, "bad-metadata"),
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


def test_plain_nifti_is_read_like_compressed(tmp_path: Path) -> None:
    write_mnms(tmp_path, [mnms_row("A0S9V9")])
    unpack(tmp_path)
    ((subject,), refused) = mnms.read(tmp_path)
    assert not refused
    assert {source.path.name for _, source in subject.sources()} == {"A0S9V9_sa.nii", "A0S9V9_sa_gt.nii"}
    assert subject.cine == ImageSource(tmp_path / "OpenDataset/Training/Labeled/A0S9V9/A0S9V9_sa.nii")


@pytest.mark.parametrize(
    "changes",
    [
        {"Centre": "NA", "Vendor": "n/a"},
        {"VendorName": "", "Centre": "-"},
        {"VendorName": "Philips Medical Systems", "Centre": "", "ED": "2.0", "ES": "0.0"},
        {"VendorName": "PHILIPS", "Centre": "None", "Pathology": "hypertrophic cardiomyopathy"},
    ],
)
def test_empty_and_reworded_cells_are_understood(tmp_path: Path, changes: dict[str, str]) -> None:
    write_mnms(tmp_path, [mnms_row("A0S9V9", **changes)])
    ((subject,), refused) = mnms.read(tmp_path)
    assert not refused
    assert (subject.vendor, subject.centre, subject.pathology) == ("philips", "mnms", "HCM")
    assert (subject.ed.frame, subject.es.frame) == (2, 0)


def test_a_centre_is_a_whole_number_also_where_a_data_frame_wrote_it(tmp_path: Path) -> None:
    write_mnms(tmp_path, [mnms_row("A0S9V9", Centre="2.0")])
    assert mnms.read(tmp_path)[0][0].centre == "mnms-2"


def test_a_table_of_a_spreadsheet_is_read_and_a_bad_row_costs_no_other(tmp_path: Path) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9"), mnms_row("B0S9V9")])
    rows = ["external_code;vendorname;ED;ES;PATHOLOGY", "A0S9V9;Philips;2;0", "B0S9V9;Philips;2;0;HCM"]
    (base / MNMS_TABLE).write_text("\r\n".join(rows), encoding="utf-16")
    ((subject,), (refusal,)) = mnms.read(tmp_path)
    assert subject.subject == "B0S9V9"
    assert (refusal.subject, refusal.reason, refusal.source.split(", ")[-1]) == ("A0S9V9", "bad-metadata", "row 2")


@pytest.mark.parametrize("part", ["Training/Labeled/A0S9V9", "Validation", ""])
def test_separate_ed_and_es_files_are_read(tmp_path: Path, part: str) -> None:
    rows = [mnms_row("A0S9V9", ED="NA", ES="NA")]
    base = tmp_path / "OpenDataset"
    write_csv(base / MNMS_TABLE, rows)
    (base / part).mkdir(parents=True, exist_ok=True)
    for name in ("ED.nii.gz", "ED_gt.nii.gz", "ES.nii.gz", "ES_gt.nii"):
        (base / part / f"A0S9V9_sa_{name}").touch()
    ((subject,), refused) = mnms.read(tmp_path)
    assert not refused
    assert [(role, source.path.name, source.frame) for role, source in subject.sources()] == [
        ("ed", "A0S9V9_sa_ED.nii.gz", None),
        ("es", "A0S9V9_sa_ES.nii.gz", None),
        ("ed_gt", "A0S9V9_sa_ED_gt.nii.gz", None),
        ("es_gt", "A0S9V9_sa_ES_gt.nii", None),
    ]
    assert subject.official_split == {"T": "train", "V": "val", "": None}[part[:1]]
    assert subject.cine is None


def test_beside_a_cine_separate_files_do_not_count(tmp_path: Path) -> None:
    base = write_mnms(tmp_path, [mnms_row("A0S9V9")])
    (base / "Training/Labeled/A0S9V9/A0S9V9_sa_ED.nii.gz").touch()
    ((subject,), _) = mnms.read(tmp_path)
    assert subject.ed.path.name == "A0S9V9_sa.nii.gz"


def test_a_subject_without_an_image_is_refused(tmp_path: Path) -> None:
    (write_mnms(tmp_path, [mnms_row("A0S9V9")]) / "Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz").unlink()
    _, (refusal,) = mnms.read(tmp_path)
    assert (refusal.reason, "A0S9V9_sa.nii.gz" in refusal.detail) == ("missing-file", True)


def test_the_real_subjects_are_prepared_with_the_official_table(shared: Path, tmp_path: Path) -> None:
    files = sorted((shared / "real_cmr/mnms_raw").glob("*.nii.gz"))
    if not files:
        pytest.skip("the raw M&Ms subjects are not among the reference data")
    base = tmp_path / "raw" / "OpenDataset"
    siemens = {"VendorName": "Siemens", "Vendor": "A", "Centre": "1"}
    rows = [mnms_row("B5F8L9", **siemens), mnms_row("G1K1V3"), mnms_row("H1N8S6", **siemens)]
    write_csv(base / MNMS_TABLE, rows)
    for file in files:
        (base / file.name).symlink_to(file)
    subjects, refused = mnms.read(base)
    assert not refused
    for subject in subjects:
        prepared = prepare_one(subject, tmp_path / subject.subject, rotated_origin_shift=False)
        assert isinstance(prepared, Prepared)
        assert prepared.crop_centre == "segmentation"
