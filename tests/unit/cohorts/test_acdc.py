import codecs
from pathlib import Path

import pytest

from med_duallora.cohorts import acdc
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import unpack, write_acdc


def test_patients_of_both_parts_are_described(tmp_path: Path) -> None:
    write_acdc(tmp_path, {"patient001": "DCM", "patient061": "NOR"})
    write_acdc(tmp_path, {"patient101": "RV"}, part="testing")
    subjects, refused = acdc.read(tmp_path)
    assert not refused
    assert [(s.subject, s.pathology, s.label, s.official_split) for s in subjects] == [
        ("patient001", "DCM", 1, "train"),
        ("patient061", "NOR", 0, "train"),
        ("patient101", "RV", 1, "test"),
    ]
    first = subjects[0]
    assert (first.vendor, first.centre, first.label_numbers) == ("siemens", "acdc", (0, 1, 2, 3))
    assert [source.path.name for _, source in first.sources()] == [
        "patient001_frame01.nii.gz",
        "patient001_frame09.nii.gz",
        "patient001_frame01_gt.nii.gz",
        "patient001_frame09_gt.nii.gz",
    ]
    assert acdc.read(tmp_path / "database") == (subjects, refused)


def test_segmentations_are_optional(tmp_path: Path) -> None:
    write_acdc(tmp_path, {"patient001": "DCM"}, segmented=False)
    (subject,), _ = acdc.read(tmp_path)
    assert [role for role, _ in subject.sources()] == ["ed", "es"]


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (None, "missing-file"),
        ("", "bad-metadata"),
        ("ED: 1\nGroup: NOR\n", "bad-metadata"),  # ES is missing
        ("ED: first\nES: 9\nGroup: NOR\n", "bad-metadata"),
        ("ED: 0\nES: 0\nGroup: NOR\n", "unlabelled"),
        ("ED: 1\nES: 9\n", "unknown-pathology"),  # the test set once came without groups
        ("ED: 1\nES: 9\nGroup: XYZ\n", "unknown-pathology"),
    ],
)
def test_unusable_patients_are_refused(tmp_path: Path, info: str | None, reason: str) -> None:
    path = write_acdc(tmp_path, {"patient001": "NOR", "patient002": "NOR"}) / "patient001" / "Info.cfg"
    path.unlink() if info is None else path.write_text(info)
    subjects, refused = acdc.read(tmp_path)
    assert [subject.subject for subject in subjects] == ["patient002"]
    assert [(item.subject, item.dataset, item.reason) for item in refused] == [("patient001", "acdc", reason)]


@pytest.mark.parametrize("made", ["", "database", "database/training", "training"])
def test_a_folder_without_patients_is_no_cohort(tmp_path: Path, made: str) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(CohortError, match="holds no ACDC cohort"):
        acdc.read(tmp_path)


def test_plain_nifti_is_read_like_compressed(tmp_path: Path) -> None:
    write_acdc(tmp_path, {"patient001": "DCM"})
    unpack(tmp_path)
    ((subject,), refused) = acdc.read(tmp_path)
    assert not refused
    assert [source.path.name for _, source in subject.sources()] == [
        "patient001_frame01.nii",
        "patient001_frame09.nii",
        "patient001_frame01_gt.nii",
        "patient001_frame09_gt.nii",
    ]


@pytest.mark.parametrize("width", [1, 3, 4])
def test_frames_may_have_other_leading_zeros(tmp_path: Path, width: int) -> None:
    folder = write_acdc(tmp_path, {"patient001": "DCM"}) / "patient001"
    for path in list(folder.glob("*frame0*")):
        path.rename(path.with_name(path.name.replace("frame0", "frame" + "0" * (width - 1))))
    ((subject,), refused) = acdc.read(tmp_path)
    assert not refused
    assert len({source.path for _, source in subject.sources()}) == 4


def test_two_files_of_one_frame_are_ambiguous(tmp_path: Path) -> None:
    folder = write_acdc(tmp_path, {"patient001": "DCM"}) / "patient001"
    (folder / "patient001_frame1.nii.gz").write_bytes((folder / "patient001_frame09.nii.gz").read_bytes())
    _, (refusal,) = acdc.read(tmp_path)
    assert (refusal.reason, refusal.subject) == ("ambiguous-file", "patient001")


def test_a_patient_without_an_image_is_refused(tmp_path: Path) -> None:
    (write_acdc(tmp_path, {"patient001": "DCM"}) / "patient001/patient001_frame09.nii.gz").unlink()
    subjects, (refusal,) = acdc.read(tmp_path)
    assert not subjects
    assert refusal.reason == "missing-file"
    assert "patient001_frame09.nii.gz" in refusal.detail


@pytest.mark.parametrize("name", ["patient001_4d.nii.gz", "patient001_4d.nii"])
def test_the_cine_is_noted_where_there_is_one(tmp_path: Path, name: str) -> None:
    folder = write_acdc(tmp_path, {"patient001": "DCM", "patient002": "NOR"}) / "patient001"
    (folder / name).touch()
    (first, second), _ = acdc.read(tmp_path)
    assert first.cine is not None
    assert (first.cine.path, first.cine.frame, second.cine) == (folder / name, None, None)
    assert "cine" not in dict(first.sources())


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + b"ED: 1\nES: 9\nGroup: DCM\n",
        b"ED: 1\r\nES: 9\r\nGroup: DCM\r\n",
        "ED: 1\nES: 9\nGroup: DCM\n".encode("utf-16"),
        "Hospital: Besançon\nED: 1\nES: 9\nGroup: DCM\n".encode("cp1252"),
        b"ed: 1\nes: 9\nGROUP: dcm\n",
        b"ED = 1\nES=9\nGroup = DCM\n",
        b"ED : 1.0\nES : 9.0\nGroup : 'Dilated Cardiomyopathy'\n",
    ],
)
def test_info_is_read_as_any_editor_saves_it(tmp_path: Path, content: bytes) -> None:
    (write_acdc(tmp_path, {"patient001": "NOR"}) / "patient001" / "Info.cfg").write_bytes(content)
    ((subject,), refused) = acdc.read(tmp_path)
    assert not refused
    assert subject.pathology == "DCM"
    assert [source.path.name[10:] for _, source in subject.sources()][:2] == ["_frame01.nii.gz", "_frame09.nii.gz"]


def test_an_info_that_is_no_text_refuses_its_patient_alone(tmp_path: Path) -> None:
    folder = write_acdc(tmp_path, {"patient001": "NOR", "patient002": "NOR"})
    (folder / "patient001" / "Info.cfg").write_bytes(b"ED: 1\0\x81")
    ((subject,), (refusal,)) = acdc.read(tmp_path)
    assert (subject.subject, refusal.reason) == ("patient002", "bad-metadata")


def test_all_real_patients_are_described(shared: Path) -> None:
    database = shared / "real_cmr/acdc_raw/database"
    if not database.is_dir():
        pytest.skip("the raw ACDC training set is not among the reference data")
    subjects, refused = acdc.read(database)
    assert (len(subjects), refused) == (100, [])
    assert [sum(subject.pathology == name for subject in subjects) for name in ("NOR", "DCM", "RV")] == [20, 20, 20]
    assert all(len(dict(subject.sources())) == 4 for subject in subjects)
