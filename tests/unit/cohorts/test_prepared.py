from pathlib import Path

import numpy as np
import pytest

from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepared import COLUMNS, REQUIRED_COLUMNS, PreparedCohort, PreparedSubject, load_volume
from med_duallora.errors import CohortError
from tests.unit.cohorts.raw import write_csv

AFFINE = np.diag([-1.0, -1.0, 10.0, 1.0])
SHAPE = (24, 20, 3)


def volume(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def row(subject: str = "s1", **changes: str) -> dict[str, str]:
    values = {"subject": subject, "pathology": "DCM", "label": "1", "vendor": "ge", "centre": "c", "split": "train"}
    values |= {"n_slices": "3", "spacing_x": "1.4", "spacing_y": "1.4", "spacing_z": "8"}
    return values | {"source_sha256": "0a" * 32, "crop_centre": "image"} | changes


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three subjects, one per split."""
    for seed, name in enumerate(("s1", "s2", "s3")):
        write_nifti(tmp_path / name / f"{name}_sax_ed.nii.gz", volume(2 * seed), AFFINE)
        write_nifti(tmp_path / name / f"{name}_sax_es.nii.gz", volume(2 * seed + 1), AFFINE)
    rows = [row("s1"), row("s2", split="val", pathology="NOR", label="0"), row("s3", split="test")]
    write_csv(tmp_path / "cohort.csv", rows)
    return tmp_path


def test_a_cohort_is_read(cohort: Path) -> None:
    read = PreparedCohort.read(cohort)
    assert tuple(row()) == REQUIRED_COLUMNS
    assert read.subjects[1] == PreparedSubject(
        subject="s2",
        pathology="NOR",
        label=0,
        vendor="ge",
        centre="c",
        split="val",
        ed_path=cohort / "s2" / "s2_sax_ed.nii.gz",
        es_path=cohort / "s2" / "s2_sax_es.nii.gz",
        source_sha256="0a" * 32,
        n_slices=3,
        crop_centre="image",
        spacing=(1.4, 1.4, 8.0),
    )
    assert [[subject.subject for subject in read.split(name)] for name in ("train", "val", "test")] == [
        ["s1"],
        ["s2"],
        ["s3"],
    ]
    with pytest.raises(CohortError, match="no split 'dev'"):
        read.split("dev")


def test_columns_of_later_versions_are_read_where_there_are_any(cohort: Path) -> None:
    later = {"dataset": "acdc", "ed_voxels_sha256": "1b" * 32, "es_voxels_sha256": "2c" * 32, "frames": "given"}
    later |= {"crop_confidence": "0.75", "remarks": "voxel size from pixdim: 1.4 mm; a second one"}
    assert tuple(row(**later)) == COLUMNS
    write_csv(cohort / "cohort.csv", [row(**later), row("s2", **dict.fromkeys(later, ""))])
    new, empty = PreparedCohort.read(cohort).subjects
    assert (new.dataset, new.ed_voxels_sha256, new.es_voxels_sha256) == ("acdc", "1b" * 32, "2c" * 32)
    assert (new.frames, new.crop_confidence) == ("given", 0.75)
    assert new.remarks == ("voxel size from pixdim: 1.4 mm", "a second one")
    assert (empty.dataset, empty.ed_voxels_sha256, empty.crop_confidence, empty.remarks) == ("", "", None, ())


def test_volumes_are_loaded_as_prepared(cohort: Path) -> None:
    loaded = load_volume(PreparedCohort.read(cohort).subjects[1])
    assert (loaded.shape, loaded.dtype) == ((2, *SHAPE), np.uint8)
    assert np.array_equal(loaded, np.stack([volume(2), volume(3)]))


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([row("s1"), row("s1")], "row 3: subject s1 appears twice"),
        ([row("s1", split="training")], "row 2: split is 'training'"),
        ([row("s1", label="2")], "row 2: label is '2'"),
        ([row("s1", label="")], "row 2: label is ''"),
        ([row("s1", n_slices="0")], "row 2: n_slices is '0'"),
        ([row("s1", source_sha256="0a")], "row 2: source_sha256"),
        ([row("s1", ed_voxels_sha256="xy")], "row 2: ed_voxels_sha256"),
        ([row("s1", crop_confidence="1.2")], "row 2: crop_confidence is '1.2'"),
        ([row("s1", crop_confidence="high")], "row 2: crop_confidence is 'high'"),
        ([row("s1", crop_confidence="nan")], "row 2: crop_confidence is 'nan'"),
        ([row("s1", vendor="")], "row 2: vendor is empty"),
        ([row("s1", pathology="")], "row 2: pathology is empty"),
        ([row("s2"), row("../s1")], "row 3: subject '../s1'"),
        ([row("s2"), row("s9")], "row 3: .*s9_sax_ed.nii.gz does not exist"),
        ([{name: value for name, value in row().items() if name != "crop_centre"}], "lacks the column 'crop_centre'"),
    ],
)
def test_bad_tables_are_refused_by_row(cohort: Path, rows: list[dict[str, str]], named: str) -> None:
    write_csv(cohort / "cohort.csv", rows)
    with pytest.raises(CohortError, match=named) as error:
        PreparedCohort.read(cohort)
    assert str(cohort / "cohort.csv") in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_that_a_spreadsheet_saved_is_read(cohort: Path, separator: str, encoding: str) -> None:
    before = PreparedCohort.read(cohort).subjects
    text = (cohort / "cohort.csv").read_text().replace(",", separator).replace("\n", "\r\n")
    (cohort / "cohort.csv").write_bytes(text.replace("crop_centre", "Crop Centre").encode(encoding))
    assert PreparedCohort.read(cohort).subjects == before


def test_leading_zeros_that_a_spreadsheet_dropped_are_named(cohort: Path) -> None:
    (cohort / "007").mkdir()
    write_csv(cohort / "cohort.csv", [row("7")])
    with pytest.raises(CohortError, match="there is 007: did a spreadsheet drop its leading zeros"):
        PreparedCohort.read(cohort)


def test_no_row_of_a_prepared_cohort_may_be_bad(cohort: Path) -> None:
    with (cohort / "cohort.csv").open("a") as stream:
        stream.write("s4,DCM\n")
    with pytest.raises(CohortError, match="row 5: 2 values"):
        PreparedCohort.read(cohort)


def test_an_empty_or_missing_cohort_is_refused(cohort: Path) -> None:
    (cohort / "cohort.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(CohortError, match="holds no subject"):
        PreparedCohort.read(cohort)
    with pytest.raises(CohortError, match="med-duallora prepare"):
        PreparedCohort.read(cohort / "absent")


@pytest.mark.parametrize(
    ("data", "affine", "named"),
    [
        (None, AFFINE, "does not exist"),  # deleted since the table was read
        (volume(1, (24, 20)), AFFINE, "shape"),  # a single slice
        (volume(1, (*SHAPE, 2)), AFFINE, "X x Y x Z"),  # a cine
        (volume(1, (24, 21, 3)), AFFINE, "has shape"),  # ED and ES differ
        (np.full(SHAPE, np.nan, np.float32), AFFINE, "NaN"),
        (volume(1).astype(np.float32), AFFINE, "uint8"),  # not scaled as prepared
        (volume(1), np.diag([-1.4, -1.4, 10.0, 1.0]), "voxels of"),  # not resampled
    ],
)
def test_volumes_of_another_kind_are_refused(
    cohort: Path, data: np.ndarray | None, affine: np.ndarray, named: str
) -> None:
    subject = PreparedCohort.read(cohort).subjects[0]
    subject.es_path.unlink()
    if data is not None:
        write_nifti(subject.es_path, data, affine)
    with pytest.raises(CohortError, match=named) as error:
        load_volume(subject)
    assert str(subject.es_path) in str(error.value)


def test_the_number_of_slices_must_be_the_tables(cohort: Path) -> None:
    write_csv(cohort / "cohort.csv", [row(n_slices="4")])
    with pytest.raises(CohortError, match="has 3 slices"):
        load_volume(PreparedCohort.read(cohort).subjects[0])


def test_a_damaged_volume_is_refused(cohort: Path) -> None:
    subject = PreparedCohort.read(cohort).subjects[0]
    subject.ed_path.write_bytes(subject.ed_path.read_bytes()[:-100])
    with pytest.raises(CohortError, match="truncated"):
        load_volume(subject)


@pytest.mark.parametrize("name", ["acdc", "mnms", "mnms2"])
def test_real_prepared_subjects_load(shared: Path, name: str) -> None:
    ed, es = (shared / "real_cmr" / f"{name}_sax_{phase}.nii.gz" for phase in ("ed", "es"))
    n_slices = {"acdc": 10, "mnms": 14, "mnms2": 12}[name]
    subject = PreparedSubject(name, "NOR", 0, "siemens", "c", "test", ed, es, "0" * 64, n_slices)
    assert load_volume(subject).shape == (2, 192, 192, n_slices)
