"""What a folder's name may tell of a person, in whatever spelling."""

from pathlib import Path, PurePosixPath

import pytest

from med_duallora.cohorts.dicom.studies import Study

IDENTIFIERS = {"Müllersten^Ägidia", "QX7719283", "19510203", "20190811", "Strøm Klinik", "Xu^Li"}


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
