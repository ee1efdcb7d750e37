from pathlib import Path

import pytest

from med_duallora.cohorts import table
from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import write_csv


def row(**changes: str) -> dict[str, str]:
    values = {"subject": "s1", "ed": "s1/ed.nii.gz", "es": "s1/es.nii.gz"}
    return values | {"pathology": "NOR", "vendor": "GE Healthcare", "centre": "Oslo"} | changes


def test_the_required_columns_suffice(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [row()])
    (subject,), refused = table.read(tmp_path / "t.csv")
    assert not refused
    assert (subject.subject, subject.pathology, subject.vendor, subject.centre) == ("s1", "NOR", "ge", "Oslo")
    # Paths are relative to the table, so that a cohort can be moved.
    assert (subject.ed, subject.es) == (ImageSource(tmp_path / "s1/ed.nii.gz"), ImageSource(tmp_path / "s1/es.nii.gz"))
    assert (subject.ed_segmentation, subject.official_split) == (None, None)


def test_optional_columns(tmp_path: Path) -> None:
    more = {"ed_frame": "0", "es_frame": "7", "ed_segmentation": "gt.nii", "es_segmentation": "", "split": "val"}
    write_csv(tmp_path / "t.csv", [row(ed="c.nii", es="c.nii", segmentation_labels="lv-myo-rv", **more)])
    (subject,), _ = table.read(tmp_path / "t.csv")
    assert (subject.ed, subject.es) == (ImageSource(tmp_path / "c.nii", 0), ImageSource(tmp_path / "c.nii", 7))
    assert (subject.ed_segmentation, subject.es_segmentation) == (ImageSource(tmp_path / "gt.nii", 0), None)
    assert (subject.label_numbers, subject.official_split) == ((0, 3, 2, 1), "val")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject": "a/b"}, "bad-metadata"),
        ({"ed": ""}, "missing-file"),
        ({"es": "s1/ed.nii.gz"}, "unlabelled"),  # the same image twice
        ({"pathology": "sick"}, "unknown-pathology"),
        ({"vendor": "Hitachi"}, "unknown-vendor"),
        ({"ed_frame": "1.5"}, "bad-metadata"),
        ({"split": "training"}, "bad-metadata"),
        ({"segmentation_labels": "3-2-1"}, "bad-metadata"),
    ],
)
def test_unusable_rows_are_refused(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    blank = dict.fromkeys(("ed_frame", "split", "segmentation_labels"), "")
    write_csv(tmp_path / "t.csv", [row(subject="s0") | blank, row() | blank | changes])
    subjects, refused = table.read(tmp_path / "t.csv")
    assert [subject.subject for subject in subjects] == ["s0"]
    assert [(item.dataset, item.reason) for item in refused] == [("table", reason)]
    assert refused[0].source == f"{tmp_path / 't.csv'}, row 3"


@pytest.mark.parametrize(
    ("column", "named"),
    [("centre", "column 'centre'"), ("ed_segmentatoin", "unknown column 'ed_segmentatoin'")],
)
def test_missing_and_misspelt_columns_are_refused(tmp_path: Path, column: str, named: str) -> None:
    values = row()
    if column in values:
        del values[column]
    else:
        values[column] = ""
    write_csv(tmp_path / "t.csv", [values])
    with pytest.raises(CohortError, match=named):
        table.read(tmp_path / "t.csv")
