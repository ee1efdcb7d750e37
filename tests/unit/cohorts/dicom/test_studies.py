"""Studies by the folders they lie in, and what a folder's name may tell of a person, in whatever spelling."""

import sys
from pathlib import Path, PurePosixPath

import pytest

from med_duallora.cohorts.dicom.studies import Study, find_studies
from med_duallora.errors import CohortError, InputError
from tests.unit.cohorts.dicom.reading import read, without
from tests.unit.cohorts.dicomfiles import (
    write_study,
)

IDENTIFIERS = {"Müllersten^Ägidia", "QX7719283", "19510203", "20190811", "Strøm Klinik", "Xu^Li"}


def test_two_studies_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/p1")
    write_study(tmp_path / "dicom/p1/more", seed=1)
    outcome = read(tmp_path / "dicom", "subject,pathology\np1/more,HCM\np1,HCM\n")
    assert [item.found_at for item in outcome.subjects] == ["p1/more"]
    assert [item.reason for item in outcome.refused] == ["ambiguous-file"]


def test_a_folder_named_like_the_patient_gives_no_name(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/Zebrowski_Q")
    write_study(tmp_path / "dicom/QX7719283", without(0, 3), seed=1)
    outcome = read(tmp_path / "dicom", "subject,pathology\nZebrowski_Q,HCM\nQX7719283,HCM\n")
    (subject,), (refusal,) = outcome.subjects, outcome.refused
    assert subject.subject.startswith("dicom-")
    assert (refusal.subject, refusal.source) == ("study-1", "study 1 in the order of folders")


def test_a_folder_without_pictures_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/a.txt").write_text("a")
    with pytest.raises(CohortError, match="no DICOM image of a magnetic resonance scanner; 1 files that are not DICOM"):
        read(tmp_path / "dicom")


def test_without_pydicom_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'pip install "med-duallora\[dicom\]"') as error:
        find_studies(tmp_path)
    assert error.value.exit_code == 2


def study(folder: str) -> Study:
    return Study(Path("/data"), PurePosixPath(folder), PurePosixPath(folder), identifiers=set(IDENTIFIERS))


@pytest.mark.parametrize(
    "folder",
    [
        *("Müllersten", "MUELLERSTEN_A", "mullersten-2", "pat_qx7719283", "Aegidia"),
        *("1951-02-03", "03.02.1951", "born_03021951", "02-03-1951", "030251", "p510203", "11.08.19", "20190811_mr"),
    ],
)
def test_a_folder_that_tells_who_or_when_names_nothing(folder: str) -> None:
    assert study(folder).subject is None
    assert study(folder).place == "study 0 in the order of folders"


@pytest.mark.parametrize("folder", ["p1", "case_0412", "2019", "SAX-series", "subject.17", "Luxury"])
def test_other_folders_name_their_subject(folder: str) -> None:
    assert study(folder).subject == folder
