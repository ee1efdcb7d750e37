"""Read a folder of studies as ``prepare --dicom`` does, and keep what came of it; changes that several tests make."""

from pathlib import Path

from pydicom.dataset import Dataset

from med_duallora.cohorts.dicom.reader import DicomSubjects, dicom_subjects
from med_duallora.cohorts.nifti import NiftiImage, read_nifti
from tests.unit.cohorts.dicomfiles import ED, Change

ROW = "subject,pathology,centre\np1,HCM,c1\n"


class Outcome:
    """What came of reading a folder of studies."""

    def __init__(self, found: DicomSubjects) -> None:
        self.subjects, self.refused, self.notes = found.subjects, found.refused, found.notes
        self.images: list[NiftiImage] = [read_nifti(item.ed.path) for item in self.subjects]
        self.stored = [item.ed.path.read_bytes() for item in self.subjects]


def read(root: Path, table: str | None = ROW) -> Outcome:
    path = root.parent / "table.csv"
    if table is not None:
        path.write_text(table)
    out = root.parent / "out"
    with dicom_subjects(root, None if table is None else path, out) as found:
        outcome = Outcome(found)
    assert not out.exists()
    return outcome


def without(wanted_slice: int, *frames: int) -> Change:
    return lambda dataset, k, t: None if (k == wanted_slice and (not frames or t in frames)) else dataset


def only_ed(dataset: Dataset, k: int, t: int) -> Dataset | None:
    return dataset if t == ED else None
