"""What the table says of a study, and the real study as a whole."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from med_duallora.cohorts.dicom.reader import dicom_subjects
from med_duallora.cohorts.nifti import read_nifti
from tests.unit.cohorts.dicom.reading import ROW, read
from tests.unit.cohorts.dicomfiles import (
    write_study,
)


def test_frames_and_vendor_of_the_table_count(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/a/p1")
    table = "subject;label;vendor;ed_frame;es_frame;split;name\na/p1;0;Siemens;1;5;val;mine\n"
    (subject,) = read(tmp_path / "dicom", table).subjects
    assert (subject.ed.frame, subject.es.frame, subject.frames) == (1, 5, "given")
    assert (subject.subject, subject.pathology, subject.vendor, subject.official_split) == (
        "mine",
        "NOR",
        "siemens",
        "val",
    )


def test_without_a_table_the_need_of_one_is_said(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/p1")
    (refusal,) = read(tmp_path / "dicom", None).refused
    assert (refusal.subject, refusal.reason) == ("p1", "no-metadata")
    assert "a table is needed that says the diagnosis: --dicom-table" in refusal.detail


@pytest.mark.parametrize(
    ("rows", "reason", "words"),
    [
        ("p1,HCM,\np1,NOR,\n", "bad-metadata", "2 rows of the table mean this study"),
        ("p1,,\n", "unknown-pathology", "neither pathology nor label"),
        ("p2,HCM,\n", "no-metadata", "has no row for it"),
        ("p1,HCM,3\n", "bad-metadata", "give both or neither"),
    ],
)
def test_a_row_must_fit(tmp_path: Path, rows: str, reason: str, words: str) -> None:
    write_study(tmp_path / "dicom/p1")
    refused = read(tmp_path / "dicom", "subject,pathology,ed_frame\n" + rows).refused
    assert any(item.reason == reason and words in item.detail for item in refused)


def test_a_row_without_a_study_is_refused(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/p1")
    outcome = read(tmp_path / "dicom", ROW + "p7,NOR,c\n")
    (refusal,) = outcome.refused
    assert (refusal.subject, refusal.reason) == ("p7", "missing-file")
    assert len(outcome.subjects) == 1


@pytest.fixture
def real_study(shared: Path) -> Path:
    folder = shared / "real_cmr/dicom"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


def test_the_real_study(real_study: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("subject,pathology,name\nSCD0000301,heart failure with infarct,s1\n")
    with dicom_subjects(real_study, tmp_path / "table.csv", tmp_path / "out") as found:
        (subject,) = found.subjects
        image = read_nifti(subject.ed.path)
    assert (found.refused, found.notes) == ([], [])
    assert image.data.shape == (256, 256, 10, 20)
    assert image.spacing == pytest.approx((1.2891, 1.2891, 8.0), abs=1e-3)
    assert (subject.subject, subject.vendor) == ("s1", "ge")
    for frame, by_readers in ((subject.ed.frame, 19), (subject.es.frame, 6)):
        assert frame is not None
        assert min((frame - by_readers) % 20, (by_readers - frame) % 20) <= 1
    chosen = f"ed_frame {subject.ed.frame}, es_frame {subject.es.frame} of 20, counted from 0"
    assert subject.remarks == (f"ED and ES were chosen by the size of the blood pool: {chosen}",)


def test_the_real_study_is_what_itk_reads(real_study: Path, tmp_path: Path) -> None:
    """Each frame in space and in every voxel: ITK's series reader on the files of one trigger time per slice."""
    itk = pytest.importorskip("SimpleITK")
    (tmp_path / "table.csv").write_text("subject,pathology\nSCD0000301,HCM\n")
    with dicom_subjects(real_study, tmp_path / "table.csv", tmp_path / "out") as found:
        image = read_nifti(found.subjects[0].ed.path)
    slices: dict[tuple[float, ...], list[tuple[float, str]]] = {}
    for path in sorted(real_study.rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        place = tuple(map(float, header.ImagePositionPatient))
        slices.setdefault(place, []).append((float(header.TriggerTime), str(path)))
    for frame in (0, 6, 19):
        reader = itk.ImageSeriesReader()
        names = [sorted(of_slice)[frame][1] for of_slice in slices.values()]
        normal = np.cross(*np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float))
        places = [float(normal @ place) for place in slices]
        reader.SetFileNames([names[k] for k in np.argsort(places)])
        expected = reader.Execute()
        np.testing.assert_array_equal(image.data[..., frame], itk.GetArrayFromImage(expected).transpose(2, 1, 0))
        lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
        for index in ((0, 0, 0), (255, 0, 0), (0, 255, 9)):
            point = expected.TransformIndexToPhysicalPoint(index)
            np.testing.assert_allclose((lps @ [*index, 1])[:3], point, atol=0.01)
