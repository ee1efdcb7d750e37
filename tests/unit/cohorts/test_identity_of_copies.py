"""One scan in many forms is one subject, wherever it comes from."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import acdc
from med_duallora.cohorts.identity import voxels_sha256
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_tables import PrepareOptions
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.cohorts.subject import ImageSource, RawSubject
from tests.unit.cohorts.raw import heart, texture, write_acdc

OPTIONS = PrepareOptions(seed=3)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ACDC patients."""
    root = tmp_path_factory.mktemp("raw")
    write_acdc(root, {"patient001": "NOR", "patient002": "DCM", "patient003": "HCM"})
    return root


def stacks(raw: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ED, ES and affine of the first ACDC patient."""
    folder = raw / "database/training/patient001"
    images = [nib.load(folder / f"patient001_frame{frame:02d}.nii.gz") for frame in (1, 9)]
    return (*(np.asarray(image.dataobj) for image in images), images[0].affine)


def write(folder: Path, ed: np.ndarray, es: np.ndarray, affine: np.ndarray) -> list[ImageSource]:
    for name, stack in (("ed", ed), ("es", es)):
        write_nifti(folder / f"{name}.nii.gz", stack, affine)
    return [ImageSource(folder / "ed.nii.gz"), ImageSource(folder / "es.nii.gz")]


def gzipped_again(raw: Path, folder: Path) -> list[ImageSource]:
    sources = write(folder, *stacks(raw))
    for source in sources:
        source.path.write_bytes(gzip.compress(gzip.decompress(source.path.read_bytes()), compresslevel=1))
    return sources


def not_compressed(raw: Path, folder: Path) -> list[ImageSource]:
    sources = [ImageSource(source.path.with_suffix("")) for source in write(folder, *stacks(raw))]
    for source in sources:
        source.path.write_bytes(gzip.decompress(source.path.with_suffix(".nii.gz").read_bytes()))
    return sources


def exchanged(raw: Path, folder: Path) -> list[ImageSource]:
    return write(folder, *stacks(raw))[::-1]


def with_other_labels(raw: Path, folder: Path) -> list[ImageSource]:
    sources = write(folder, *stacks(raw))
    write_nifti(folder / "gt.nii.gz", heart(), stacks(raw)[2])
    return [*sources, ImageSource(folder / "gt.nii.gz")]


def in_another_type(raw: Path, folder: Path) -> list[ImageSource]:
    ed, es, affine = stacks(raw)
    return write(folder, ed.astype(np.float32), es.astype(np.int32), affine)


def as_a_cine(raw: Path, folder: Path) -> list[ImageSource]:
    ed, es, affine = stacks(raw)
    write_nifti(folder / "cine.nii.gz", np.stack([texture(5), es, ed], axis=3), affine)
    return [ImageSource(folder / "cine.nii.gz", frame) for frame in (2, 1)]


def flipped(raw: Path, folder: Path) -> list[ImageSource]:
    ed, es, affine = stacks(raw)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = ed.shape[0] - 1
    return write(folder, ed[::-1], es[::-1], affine @ flip)


def with_axes_exchanged(raw: Path, folder: Path) -> list[ImageSource]:
    ed, es, affine = stacks(raw)
    return write(folder, ed.transpose(1, 0, 2), es.transpose(1, 0, 2), affine[:, [1, 0, 2, 3]])


def with_another_es(raw: Path, folder: Path) -> list[ImageSource]:
    """Only one image is the patient's."""
    ed, _, affine = stacks(raw)
    return write(folder, texture(4), ed, affine)


COPIES = (
    gzipped_again,
    not_compressed,
    exchanged,
    with_other_labels,
    in_another_type,
    as_a_cine,
    flipped,
    with_axes_exchanged,
    with_another_es,
)


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("later", [False, True], ids=["in one run", "in a second run into the same folder"])
def test_one_scan_is_one_subject(
    raw: Path, tmp_path: Path, copied: Callable[[Path, Path], list[ImageSource]], later: bool
) -> None:
    """Under another name, of another data set and vendor, in another file: still the same person."""
    subjects, _ = acdc.read(raw)
    copy = RawSubject("s1", "table", "DCM", "ge", "elsewhere", *copied(raw, tmp_path / "copy"))
    if later:
        prepare_cohorts(tmp_path / "out", subjects, [], OPTIONS)
    result = prepare_cohorts(tmp_path / "out", [*subjects, copy], [], OPTIONS)
    assert result.n_reused == (3 if later else 0)
    assert [(item.subject, item.dataset, item.reason) for item in result.refused] == [
        ("s1", "table", "duplicate-subject")
    ]
    assert "image of patient001" in result.refused[0].detail
    assert list(result.cohorts) == ["siemens"]
    assert not (tmp_path / "out/ge/s1").exists()


def test_the_first_is_the_first_of_the_sources(raw: Path, tmp_path: Path) -> None:
    subjects, _ = acdc.read(raw)
    copy = RawSubject("s1", "table", "DCM", "ge", "elsewhere", *exchanged(raw, tmp_path / "copy"))
    result = prepare_cohorts(tmp_path / "out", [copy, *subjects], [], OPTIONS)
    assert [item.subject for item in result.refused] == ["patient001"]
    assert "its ED image is the ES image of s1 and its ES image is the ED image of s1" in result.refused[0].detail


def test_the_table_holds_the_identity_of_both_images(raw: Path, tmp_path: Path) -> None:
    prepare_cohorts(tmp_path / "out", *acdc.read(raw), OPTIONS)
    ed, es, _ = stacks(raw)
    first = PreparedCohort.read(tmp_path / "out/siemens").subjects[0]
    assert (first.ed_voxels_sha256, first.es_voxels_sha256) == (voxels_sha256(ed), voxels_sha256(es))
    assert (first.dataset, first.frames) == ("acdc", "given")
