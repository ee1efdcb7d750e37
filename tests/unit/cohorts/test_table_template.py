from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.cohorts import table
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.table_template import EXAMPLES, write_template
from med_duallora.errors import InputError
from tests.unit.cohorts.raw import heart, oblique_affine


def test_the_template_is_a_table_that_can_be_read(tmp_path: Path) -> None:
    write_template(tmp_path / "mine.csv")
    subjects, refused = table.read(tmp_path / "mine.csv")
    assert refused == []
    assert [(item.subject, item.pathology, item.vendor) for item in subjects] == [
        ("subject-001", "NOR", "siemens"),
        ("subject-002", "DCM", "philips"),
    ]
    assert subjects[1].es.frame == 11


def test_every_column_is_in_it_and_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--table-template", str(tmp_path / "mine.csv")]) == 0
    header = (tmp_path / "mine.csv").read_text().splitlines()[0].split(",")
    assert header == [*table.COLUMNS, *table.OPTIONAL_COLUMNS]
    said = capsys.readouterr().out
    assert all(f"  {column} " in said for column in header)


def test_the_first_example_prepares_where_its_files_are(tmp_path: Path) -> None:
    write_template(tmp_path / "mine.csv")
    lines = (tmp_path / "mine.csv").read_text().splitlines()
    (tmp_path / "mine.csv").write_text(
        "\n".join([*lines[:2], ""])
        .replace(EXAMPLES[0]["ed_segmentation"], "")
        .replace(EXAMPLES[0]["es_segmentation"], "")
    )
    (tmp_path / "scans").mkdir()
    for seed, name in enumerate(("ed", "es")):
        write_nifti(tmp_path / "scans" / f"subject-001_{name}.nii.gz", heart() + seed, oblique_affine())
    assert main(["prepare", "--table", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "out")]) == 0


def test_nobodys_table_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("work of a week")
    with pytest.raises(InputError, match="exists already and is not overwritten"):
        write_template(tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "work of a week"


def test_without_a_place_to_write_to_nothing_is_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--acdc", "somewhere"]) == 2
    assert "--out is missing" in capsys.readouterr().err
