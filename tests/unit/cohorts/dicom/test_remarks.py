"""What of a study is not in the volume, and which frames were chosen, is said and counted."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.unit.cohorts.dicom.reading import read
from tests.unit.cohorts.dicomfiles import (
    ED,
    ES,
    SHAPE,
    Change,
    directions,
    picture,
    save,
    write_study,
)


def test_other_series_are_left_aside_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "dicom/p1"
    voxels = write_study(folder)
    study = generate_uid(entropy_srcs=["study 0"])
    x, y, normal = directions()
    for k in range(3):  # localiser: single pictures across the stack
        crossing = {"ImageOrientationPatient": [*np.round(x, 6), *np.round(normal, 6)]}
        save(picture(voxels[:, :, 0, 0], k, 0, study, "1.2.3.1", **crossing), folder / f"loc{k}")
    for t in range(SHAPE[3]):  # one long axis
        axes = {"ImageOrientationPatient": [*np.round(y, 6), *np.round(normal, 6)]}
        save(picture(voxels[:, :, 0, t], 0, t, study, "1.2.3.2", **axes), folder / f"long{t}")
    for k in range(3):  # flow: phase pictures, and late enhancement: one picture per slice
        for t in range(SHAPE[3]):
            flow = picture(voxels[:, :, k, t], k, t, study, "1.2.3.3", ImageType=["ORIGINAL", "PRIMARY", "P"])
            save(flow, folder / f"flow{k}-{t}")
        late = picture(voxels[:, :, k, 0], k, 0, study, "1.2.3.4", SequenceVariant="MP", InversionTime=300)
        save(late, folder / f"late{k}")
    (folder / "notes.txt").write_text("not DICOM")
    outcome = read(tmp_path / "dicom")
    assert outcome.refused == []
    np.testing.assert_array_equal(outcome.images[0].data, voxels)
    aside = "2 x 3 picture(s) at 3 place(s), 10 picture(s) at 1 place(s)"
    assert outcome.subjects[0].remarks[1:] == (
        f"series of the DICOM study that are not its short-axis cine were left aside: {aside}",
    )
    assert outcome.notes == ["--dicom left aside 30 pictures of flow (phase), 1 files that are not DICOM"]


def exported_again(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["again", f"{k} {t}"])
    dataset.SeriesInstanceUID = "1.2.99"
    return dataset


@pytest.mark.parametrize("again", [None, exported_again], ids=["the same files", "with new identifiers"])
def test_copies_are_taken_once(tmp_path: Path, again: Change | None) -> None:
    voxels = write_study(tmp_path / "dicom/p1/first")
    write_study(tmp_path / "dicom/p1/second", again)
    outcome = read(tmp_path / "dicom")
    assert outcome.refused == []
    np.testing.assert_array_equal(outcome.images[0].data, voxels)
    twice = "pictures of the DICOM study are there twice and were taken once: 50"
    assert outcome.subjects[0].remarks[1:] == (twice,)


def test_one_copied_file_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "dicom/p1"
    voxels = write_study(folder)
    shutil.copy(folder / "IM0003", folder / "copy")
    (image,) = read(tmp_path / "dicom").images
    np.testing.assert_array_equal(image.data, voxels)


def test_two_pictures_under_one_identifier_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dicom/p1"
    write_study(folder)
    dataset = pydicom.dcmread(folder / "IM0003")
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(folder / "copy")
    (refusal,) = read(tmp_path / "dicom").refused
    assert refusal.reason == "incomplete-cine"
    assert "has a picture twice, in two files that differ" in refusal.detail


def test_the_chosen_frames_are_said_and_given_ones_are_not(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/p1")
    (subject,) = read(tmp_path / "dicom").subjects
    chosen = f"ed_frame {ED}, es_frame {ES} of {SHAPE[3]}, counted from 0"
    assert subject.remarks == (f"ED and ES were chosen by the size of the blood pool: {chosen}",)
    (subject,) = read(tmp_path / "dicom", "subject,pathology,ed_frame,es_frame\np1,HCM,2,7\n").subjects
    assert subject.remarks == ()
