"""From files to one volume in space, whatever way the headers and pixels are written."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless

from tests.unit.cohorts.dicom.reading import only_ed, read
from tests.unit.cohorts.dicomfiles import (
    ED,
    ES,
    SHAPE,
    SPACING,
    Change,
    position,
    write_study,
)


@pytest.mark.parametrize("series_per_slice", [False, True])
def test_a_study_becomes_a_volume_in_space(tmp_path: Path, series_per_slice: bool) -> None:
    voxels = write_study(tmp_path / "dicom/p1", series_per_slice=series_per_slice)
    (tmp_path / "dicom/p1/notes.txt").write_text("not DICOM")
    outcome = read(tmp_path / "dicom")
    assert outcome.refused == []
    (image,), (subject,) = outcome.images, outcome.subjects
    np.testing.assert_array_equal(image.data, voxels)
    assert image.data.dtype == np.int16
    assert image.spacing == pytest.approx(SPACING, abs=1e-4)
    corner = np.array([-1, -1, 1]) * position(0)
    np.testing.assert_allclose(image.affine[:3, 3], corner, atol=1e-3)
    last = image.affine @ [0, 0, SHAPE[2] - 1, 1]
    np.testing.assert_allclose(last[:3], np.array([-1, -1, 1]) * position(SHAPE[2] - 1), atol=1e-3)
    assert (subject.subject, subject.vendor, subject.pathology, subject.centre) == ("p1", "ge", "HCM", "c1")
    assert (subject.frames, subject.cine is not None) == ("automatic", True)
    assert (subject.ed.frame, subject.es.frame) == (ED, ES)


def test_itk_reads_the_same_volume(tmp_path: Path) -> None:
    itk = pytest.importorskip("SimpleITK")
    write_study(tmp_path / "dicom/p1")
    write_study(tmp_path / "ed", only_ed)
    reader = itk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "ed")))
    expected = reader.Execute()
    (image,) = read(tmp_path / "dicom").images
    np.testing.assert_array_equal(image.data[..., ED], itk.GetArrayFromImage(expected).transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ image.affine
    for index in ((0, 0, 0), (SHAPE[0] - 1, 0, 0), (0, SHAPE[1] - 1, 0), (3, 5, SHAPE[2] - 1)):
        np.testing.assert_allclose((lps @ [*index, 1])[:3], expected.TransformIndexToPhysicalPoint(index), atol=0.01)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    write_study(tmp_path / "dicom/p1")
    assert read(tmp_path / "dicom").stored == read(tmp_path / "dicom").stored


def drop_trigger(dataset: Dataset, k: int, t: int) -> Dataset:
    del dataset.TriggerTime
    return dataset


def one_trigger(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.TriggerTime, dataset.TemporalPositionIdentifier = 0.0, t + 1
    dataset.InstanceNumber = 1
    return dataset


def backwards_numbers(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.InstanceNumber = 1000 - dataset.InstanceNumber
    return dataset


def inverted(dataset: Dataset, k: int, t: int) -> Dataset:
    stored = np.frombuffer(dataset.PixelData, np.uint16)
    dataset.PhotometricInterpretation, dataset.PixelData = "MONOCHROME1", (4095 - stored).astype(np.uint16).tobytes()
    return dataset


def signed(dataset: Dataset, k: int, t: int) -> Dataset:
    stored = np.frombuffer(dataset.PixelData, np.uint16).astype(np.int16) - 500
    dataset.PixelRepresentation, dataset.RescaleIntercept, dataset.RescaleSlope = 1, 500, 1
    dataset.BitsStored, dataset.HighBit, dataset.PixelData = 16, 15, stored.tobytes()
    return dataset


@pytest.mark.parametrize("change", [drop_trigger, one_trigger, backwards_numbers, inverted, signed])
def test_other_ways_to_say_the_same(tmp_path: Path, change: Change) -> None:
    voxels = write_study(tmp_path / "dicom/p1", change)
    outcome = read(tmp_path / "dicom")
    assert outcome.refused == []
    np.testing.assert_array_equal(outcome.images[0].data, voxels)


def test_each_slice_is_rescaled_by_its_own_numbers(tmp_path: Path) -> None:
    def change(dataset: Dataset, k: int, t: int) -> Dataset:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, -3
        return dataset

    voxels = write_study(tmp_path / "dicom/p1", change)
    (image,) = read(tmp_path / "dicom").images
    np.testing.assert_allclose(image.data, voxels * (0.5 + np.arange(SHAPE[2])[:, None]) - 3, rtol=1e-6)


def test_a_compressed_form_names_the_package_that_decodes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path / "dicom/p1")
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda _: SimpleNamespace(is_available=False))
    for path in (tmp_path / "dicom/p1").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
        dataset.save_as(path)
    (refusal,) = read(tmp_path / "dicom").refused
    assert refusal.reason == "unsupported-dicom"
    assert "JPEG 2000" in refusal.detail
    assert "pip install pylibjpeg pylibjpeg-openjpeg" in refusal.detail
