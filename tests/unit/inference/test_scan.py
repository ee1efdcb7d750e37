"""One scan in every form that it comes in: the voxels that ``prepare`` makes of it; what cannot be one is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_tables import PrepareOptions
from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.cohorts.table import read
from med_duallora.errors import ScanError
from med_duallora.inference.scan import ScanSource
from tests.unit.cohorts.dicomfiles import ED, ES, SPACING, write_study


@pytest.fixture(scope="module")
def as_prepared(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCohort:
    """The same images, prepared into a cohort: once as two files, once as frames of the cine."""
    table = scans / "subjects.csv"
    table.write_text(
        "subject,ed,es,pathology,vendor,centre,ed_frame,es_frame\n"
        f"pair,ed.nii.gz,es.nii.gz,DCM,ge,c,,\ncine,cine.nii.gz,cine.nii.gz,DCM,ge,c,{ED},{ES}\n"
    )
    folders = {}
    subjects, refused = read(table)
    for subject in subjects:  # one by one: the two are one scan, which no cohort may hold twice
        out = tmp_path_factory.mktemp("prepared")
        prepare_cohorts(out, [subject], refused, PrepareOptions(n_processes=1))
        folders[subject.subject] = PreparedCohort.read(out / "ge").subjects[0]
    return PreparedCohort(scans, (folders["pair"], folders["cine"]))


def test_a_raw_pair_is_prepared_as_a_cohort_is(scans: Path, as_prepared: PreparedCohort) -> None:
    expected = as_prepared.subjects[0]
    scan = ScanSource(scans / "ed.nii.gz", scans / "es.nii.gz").read()
    np.testing.assert_array_equal(scan.volume, load_volume(expected))
    assert (scan.name, scan.n_slices) == ("ed", expected.n_slices)
    assert scan.spacing == pytest.approx(expected.spacing)
    assert (scan.crop_centre, scan.crop_confidence) == (expected.crop_centre, expected.crop_confidence)
    assert scan.remarks == expected.remarks
    assert scan.crop_window is not None
    assert len(scan.crop_window) == 4


def test_the_frames_of_a_cine_are_found(scans: Path, as_prepared: PreparedCohort) -> None:
    scan = ScanSource(scans / "cine.nii.gz").read()
    np.testing.assert_array_equal(scan.volume, load_volume(as_prepared.subjects[1]))
    assert f"ed_frame {ED}, es_frame {ES} of 10" in scan.remarks[0]


def test_a_dicom_study_is_its_cine(tmp_path: Path) -> None:
    frames = write_study(tmp_path / "study")
    scan = ScanSource(tmp_path / "study").read()
    write_nifti(tmp_path / "cine.nii.gz", frames, np.diag([*SPACING, 1]))
    expected = ScanSource(tmp_path / "cine.nii.gz").read()
    assert scan.volume.shape == expected.volume.shape
    assert scan.spacing == pytest.approx(SPACING)
    # the study lies oblique in the body, where the preparation's grid begins elsewhere
    assert np.corrcoef(scan.volume.ravel(), expected.volume.ravel())[0, 1] > 0.9
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_is_prepared_already_is_taken_as_it_is(as_prepared: PreparedCohort) -> None:
    subject = as_prepared.subjects[0]
    folder = subject.ed_path.parent
    for source in (
        ScanSource(folder),
        ScanSource(subject.ed_path, subject.es_path),
        ScanSource(folder, subject=subject),
    ):
        scan = source.read()
        np.testing.assert_array_equal(scan.volume, load_volume(subject))
        assert scan.spacing == pytest.approx(subject.spacing)
        assert scan.crop_centre == subject.crop_centre
        assert scan.crop_window == ScanSource(folder).read().crop_window


def test_nothing_of_a_scan_stays_behind(scans: Path, tmp_path: Path) -> None:
    ScanSource(scans / "cine.nii.gz").read(tmp_path)
    with pytest.raises(ScanError):
        ScanSource(scans / "empty.nii.gz", scans / "es.nii.gz").read(tmp_path)
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "one frame": (("ed.nii.gz", None), "is one frame, but ED and ES are needed; give ED and ES as two files"),
    "long axis": (("long_axis.nii.gz", "long_axis.nii.gz"), "are the same image"),
    "long axis cine": (("lax.nii.gz", None), "1 slices of 8 mm make 1 of 10 mm; a heart needs 3 or more"),
    "empty": (("empty.nii.gz", "es.nii.gz"), "ED has no contrast: it is 0 almost everywhere"),
    "nothing moves": (("still.nii.gz", None), "no frame shows more blood than another; give ED and ES as two files"),
    "damaged": (("damaged.nii.gz", "es.nii.gz"), "damaged.nii.gz"),
    "not there": (("nowhere.nii.gz", "es.nii.gz"), "nowhere.nii.gz does not exist"),
    "not an image": (("subjects.csv", "es.nii.gz"), "subjects.csv"),
    "a cine with a pair's file": (("cine.nii.gz", "es.nii.gz"), "expected X x Y x Z"),
    "a folder of files": ((".", None), "holds NIfTI files (cine.nii.gz, damaged.nii.gz, ed.nii.gz)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_scan_is_said_in_one_sentence(name: str, scans: Path, as_prepared: PreparedCohort) -> None:
    del as_prepared  # its table lies among the scans
    (path, es), sentence = REFUSED[name]
    if not (scans / "lax.nii.gz").exists():
        frames = np.random.default_rng(0).integers(0, 900, (60, 60, 1, 5)).astype(np.int16)
        frames[20:40, 20:40, :, 2] = 900
        write_nifti(scans / "lax.nii.gz", frames, np.diag([*SPACING, 1.0]))
    with pytest.raises(ScanError) as caught:
        ScanSource(scans / path, scans / es if es else None).read()
    text = str(caught.value)
    assert sentence in text
    assert str(scans) in text
    assert "\n" not in text
    assert "/scan_sax" not in text, "no temporary file is named"
    assert caught.value.exit_code == 2


def test_a_cohort_is_not_one_scan(as_prepared: PreparedCohort, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="is a prepared cohort, not one scan; give it with --data"):
        ScanSource(as_prepared.subjects[0].ed_path.parents[1]).read()
    with pytest.raises(ScanError, match="holds no DICOM image"):
        ScanSource(tmp_path).read()


def test_two_studies_are_not_one_scan(tmp_path: Path) -> None:
    write_study(tmp_path / "both" / "one")
    write_study(tmp_path / "both" / "two", seed=1)
    with pytest.raises(ScanError, match="holds 2 DICOM studies; give the folder of one study at a time"):
        ScanSource(tmp_path / "both").read()


def test_the_digest_is_of_the_content_alone(scans: Path, tmp_path: Path) -> None:
    cine, ed, es = (shutil.copy(scans / f"{name}.nii.gz", tmp_path) for name in ("cine", "ed", "es"))
    assert ScanSource(Path(cine)).sha256() == ScanSource(scans / "cine.nii.gz").sha256()
    pairs = {ScanSource(Path(a), Path(b) if b else None).sha256() for a, b in ((ed, es), (es, ed), (ed, None))}
    assert len(pairs) == 3
