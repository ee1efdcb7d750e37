"""Studies in, 4-D files and raw subjects out; whatever does not fit is refused with its reason."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, generate_uid

from med_duallora.cohorts.dicom.reader import dicom_subjects, subjects_found
from med_duallora.cohorts.nifti import NiftiImage, read_nifti
from med_duallora.cohorts.subject import RawSubject, Refusal
from med_duallora.errors import CohortError, InputError
from tests.unit.cohorts.dicomfiles import (
    ED,
    ENHANCED_MR,
    ES,
    SECRETS,
    SHAPE,
    SPACING,
    Change,
    directions,
    picture,
    position,
    save,
    write_study,
)

ROW = "subject,pathology,centre\np1,HCM,c1\n"


class Outcome:
    """What came of reading a folder of studies."""

    def __init__(self, subjects: list[RawSubject], refused: list[Refusal]) -> None:
        self.subjects, self.refused = subjects, refused
        self.images: list[NiftiImage] = [read_nifti(item.ed.path) for item in subjects]
        self.stored = [item.ed.path.read_bytes() for item in subjects]


def read(root: Path, table: str | None = ROW) -> Outcome:
    path = root.parent / "table.csv"
    if table is not None:
        path.write_text(table)
    out = root.parent / "out"
    with dicom_subjects(root, None if table is None else path, out) as (subjects, refused):
        outcome = Outcome(subjects, refused)
    assert not out.exists()
    return outcome


def of_slice(wanted: int, change: Change) -> Change:
    return lambda dataset, k, t: change(dataset, k, t) if k == wanted else dataset


def turned(degrees: float) -> Change:
    """Turn a slice about its x axis, through its middle."""

    def change(dataset: Dataset, k: int, t: int) -> Dataset:
        x, y, normal = directions()
        angle = np.deg2rad(degrees)
        turned_y = np.cos(angle) * y + np.sin(angle) * normal
        half = (SHAPE[1] - 1) / 2 * SPACING[1]
        dataset.ImageOrientationPatient = [float(f"{value:.6f}") for value in (*x, *turned_y)]
        dataset.ImagePositionPatient = [float(f"{value:.5f}") for value in position(k) + half * (y - turned_y)]
        return dataset

    return change


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


def test_other_series_are_left_aside(tmp_path: Path) -> None:
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
    outcome = read(tmp_path / "dicom")
    assert outcome.refused == []
    np.testing.assert_array_equal(outcome.images[0].data, voxels)


def without(wanted_slice: int, *frames: int) -> Change:
    return lambda dataset, k, t: None if (k == wanted_slice and (not frames or t in frames)) else dataset


def two_slices(dataset: Dataset, k: int, t: int) -> Dataset | None:
    return dataset if k < 2 else None


def five_frames(dataset: Dataset, k: int, t: int) -> Dataset | None:
    return dataset if t < 5 else None


def only_ed(dataset: Dataset, k: int, t: int) -> Dataset | None:
    return dataset if t == ED else None


def other_matrix(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.Rows -= 1
    dataset.PixelData = dataset.PixelData[: -2 * dataset.Columns]
    return dataset


def other_pixels(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.PixelSpacing = [1.5, 1.5]
    return dataset


def shifted(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.ImagePositionPatient = [a + 6 * b for a, b in zip(position(k), directions()[0], strict=True)]
    return dataset


def no_times(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.TriggerTime, dataset.InstanceNumber = 0, 1
    return dataset


def twice_at_one_time(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.TriggerTime = float(20 + 70 * max(t, 1))
    return dataset


def enhanced(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.SOPClassUID = ENHANCED_MR
    return dataset


def unknown_maker(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.Manufacturer = "Zebrowski & Sons"
    return dataset


def cut_off(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.PixelData = dataset.PixelData[:100]
    return dataset


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (without(1, 4), "incomplete-cine", "slice 2 of 5 has 9 frames, most others have 10"),
        (without(4, *range(5)), "incomplete-cine", "slice 5 of 5 has 5 frames"),
        (without(2), "bad-geometry", "slices 2 and 3 of 4 are 16.00 mm apart, others 8.00 mm"),
        (
            of_slice(3, turned(4.0)),
            "bad-geometry",
            "slice 4 of 5 is not parallel to the others, but turned by 4.0 degrees",
        ),
        (of_slice(4, other_matrix), "bad-geometry", "slice 5 of 5 has 48 x 43 pixels"),
        (of_slice(4, other_pixels), "bad-geometry", "slice 5 of 5 has pixels of"),
        (of_slice(2, shifted), "bad-geometry", "slice 3 of 5 is shifted by 6.0 mm within its plane"),
        (no_times, "incomplete-cine", "nothing tells the frames of a slice apart"),
        (twice_at_one_time, "incomplete-cine", "10 pictures at 9 trigger times"),
        (enhanced, "unsupported-dicom", "Enhanced (multi-frame) form"),
        (unknown_maker, "unknown-vendor", "fill in the column vendor"),
        (of_slice(2, cut_off), "unreadable-file", "slice 3, frame 1 is truncated or damaged"),
        (two_slices, "no-cine", "most parallel slices with so many pictures: 2"),
        (five_frames, "no-cine", "no 3 parallel slices with 8 or more frames"),
    ],
)
def test_what_does_not_fit_is_refused_and_others_go_on(tmp_path: Path, change: Change, reason: str, words: str) -> None:
    write_study(tmp_path / "dicom/p1", change)
    write_study(tmp_path / "dicom/p2", seed=1)
    outcome = read(tmp_path / "dicom", ROW + "p2,NOR,c1\n")
    (refusal,) = outcome.refused
    assert (refusal.subject, refusal.dataset, refusal.source, refusal.reason) == ("p1", "dicom", "p1", reason)
    assert words in refusal.detail
    assert not any(secret.split("^")[0] in refusal.detail for secret in SECRETS.values())
    assert [item.subject for item in outcome.subjects] == ["p2"]


def test_copies_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dicom/p1"
    write_study(folder)
    shutil.copy(folder / "IM0003", folder / "copy")
    (refusal,) = read(tmp_path / "dicom").refused
    assert refusal.reason == "incomplete-cine"
    assert "has a picture twice, in two files" in refusal.detail


def test_a_stack_that_was_acquired_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dicom/p1"
    voxels = write_study(folder)
    study = generate_uid(entropy_srcs=["study 0"])
    for k, t in np.ndindex(SHAPE[2:]):
        again = picture(voxels[:, :, k, t], k, t, study, "1.2.9", TriggerTime=25.0 + 71 * t)
        save(again, folder / f"again{k}-{t}")
    (refusal,) = read(tmp_path / "dicom").refused
    assert refusal.reason == "incomplete-cine"
    assert "slice 1 of 5 is there 2 times" in refusal.detail


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


def test_studies_are_found_by_folder(tmp_path: Path) -> None:
    for seed, place in enumerate(("a/p1", "a/p2/series1", "b/p1")):
        write_study(tmp_path / "dicom" / place, seed=seed)
    assert subjects_found(tmp_path / "dicom") == ["a/p1", "p2", "b/p1"]
    assert subjects_found(tmp_path / "dicom/b/p1") == ["p1"]


def test_a_folder_without_pictures_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/a.txt").write_text("a")
    with pytest.raises(CohortError, match="no DICOM image of a magnetic resonance scanner; 1 files that are not DICOM"):
        read(tmp_path / "dicom")


def test_without_pydicom_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'pip install "med-duallora\[dicom\]"') as error:
        subjects_found(tmp_path)
    assert error.value.exit_code == 2


def test_the_real_study(shared: Path, tmp_path: Path) -> None:
    folder = shared / "real_cmr/dicom"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    (tmp_path / "table.csv").write_text("subject,pathology,name\nSCD0000301,heart failure with infarct,s1\n")
    with dicom_subjects(folder, tmp_path / "table.csv", tmp_path / "out") as (subjects, refused):
        (subject,) = subjects
        image = read_nifti(subject.ed.path)
    assert refused == []
    assert image.data.shape == (256, 256, 10, 20)
    assert image.spacing == pytest.approx((1.2891, 1.2891, 8.0), abs=1e-3)
    assert (subject.subject, subject.vendor) == ("s1", "ge")
    for found, by_readers in ((subject.ed.frame, 19), (subject.es.frame, 6)):
        assert found is not None
        assert min((found - by_readers) % 20, (by_readers - found) % 20) <= 1
