"""The table for a folder of studies, before anybody wrote one."""

from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.cohorts.dicom.reader import COLUMNS, OPTIONAL_COLUMNS
from med_duallora.cohorts.dicom.studies import find_studies
from med_duallora.cohorts.dicom.template import subject_cells
from tests.unit.cohorts.dicom.reading import read
from tests.unit.cohorts.dicomfiles import SECRETS, write_study


def only_first(dataset: object, k: int, t: int) -> object | None:
    return dataset if (k, t) == (0, 0) else None


def test_a_filled_in_template_is_a_table_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "dicom/p1")
    path = tmp_path / "mine.csv"
    assert main(["prepare", "--dicom", str(tmp_path / "dicom"), "--table-template", str(path)]) == 0
    header, row = path.read_text().splitlines()
    assert header.split(",") == [*COLUMNS, *OPTIONAL_COLUMNS]
    assert row.rstrip(",") == "p1"
    said = capsys.readouterr().out
    assert all(f"  {column} " in said for column in header.split(","))
    assert f"--dicom {tmp_path / 'dicom'} --dicom-table {path}" in said
    outcome = read(tmp_path / "dicom", f"{header}\n{row.replace('p1,', 'p1,HCM', 1)}\n")
    assert [(item.subject, item.pathology) for item in outcome.subjects] == [("p1", "HCM")]


def test_a_folder_that_tells_the_patient_gets_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "dicom/p1", only_first)
    write_study(tmp_path / f"dicom/{SECRETS['PatientID']}", only_first, seed=1)
    path = tmp_path / "mine.csv"
    assert main(["prepare", "--dicom", str(tmp_path / "dicom"), "--table-template", str(path)]) == 0
    written = path.read_text() + capsys.readouterr().out
    assert SECRETS["PatientID"] not in written
    assert "Studies without a row: 1" in written


def test_studies_are_called_by_their_folder(tmp_path: Path) -> None:
    for seed, place in enumerate(("a/p1", "a/p2/series1", "b/p1")):
        write_study(tmp_path / "dicom" / place, only_first, seed=seed)
    assert subject_cells(find_studies(tmp_path / "dicom").studies) == ["a/p1", "p2", "b/p1"]
    assert subject_cells(find_studies(tmp_path / "dicom/b/p1").studies) == ["p1"]


def test_nobodys_table_is_overwritten_and_a_folder_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(tmp_path / "dicom/p1", only_first)
    path = tmp_path / "mine.csv"
    path.write_text("work of a week")
    assert main(["prepare", "--dicom", str(tmp_path / "dicom"), "--table-template", str(path)]) == 2
    assert path.read_text() == "work of a week"
    assert main(["prepare", "--dicom", str(tmp_path / "none"), "--table-template", str(tmp_path / "new.csv")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()
