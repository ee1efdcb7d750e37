from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts.nifti import read_nifti
from med_duallora.cohorts.prepare_one import Prepared, prepare_one
from med_duallora.cohorts.subject import ImageSource, RawSubject
from med_duallora.cohorts.volume import CROP_SIZE

from .test_heart_place import beating, noise_only

CENTRE = (185.0, 80.0)
SHAPE = (260, 240, 6)


def write(path: Path, data: np.ndarray) -> Path:
    image = nib.Nifti1Image(data.clip(0, 400).astype(np.int16), np.diag([1.5, 1.5, 8.0, 1.0]))
    image.header.set_zooms((1.5, 1.5, 8.0, 1.0)[: data.ndim])
    nib.save(image, path)
    return path


def subject(folder: Path, frames: np.ndarray) -> RawSubject:
    ed, es = (
        ImageSource(write(folder / f"{name}.nii.gz", frames[..., index])) for name, index in (("ed", 0), ("es", -1))
    )
    return RawSubject("a", "table", "NOR", "ge", "here", ed, es)


def prepared(raw: RawSubject, out: Path) -> Prepared:
    found = prepare_one(raw, out / raw.subject, rotated_origin_shift=False)
    assert isinstance(found, Prepared), found
    return found


def test_without_a_segmentation_the_crop_is_around_the_heart(tmp_path: Path) -> None:
    found = prepared(subject(tmp_path, beating(CENTRE, SHAPE)), tmp_path / "out")
    assert found.crop_centre == "motion"
    assert found.crop_confidence is not None
    assert 0.3 <= found.crop_confidence <= 1
    assert found.remarks == ()
    volume = read_nifti(tmp_path / "out" / "a" / "a_sax_ed.nii.gz")
    assert volume.data.shape[:2] == (CROP_SIZE, CROP_SIZE)
    bright = np.argwhere(volume.data[:, :, 2] > 190).mean(axis=0)
    assert np.abs(bright - CROP_SIZE / 2).max() < 12, "the disc is in the middle of the crop"


def test_a_heart_that_is_not_found_is_said_and_the_image_stays_in_the_middle(tmp_path: Path) -> None:
    found = prepared(subject(tmp_path, np.repeat(noise_only(), 2, axis=0)), tmp_path / "out")
    assert found.crop_centre == "image"
    assert found.crop_confidence is not None
    assert found.crop_confidence < 0.3
    (remark,) = found.remarks
    assert remark.startswith("no segmentation, and the heart was not found with confidence")


def test_a_cine_is_where_the_heart_is_looked_for(tmp_path: Path) -> None:
    """ED and ES of pure noise say nothing; the cine of the same grid does."""
    raw = subject(tmp_path, np.random.default_rng(2).normal(100, 20, (*SHAPE, 2)))
    cine = ImageSource(write(tmp_path / "cine.nii.gz", beating(CENTRE, SHAPE, n_frames=10)))
    assert prepared(raw, tmp_path / "out").crop_centre == "image"
    found = prepared(replace(raw, cine=cine), tmp_path / "out")
    assert (found.crop_centre, found.reused) == ("motion", False), "another cine is another request"
    assert prepared(replace(raw, cine=cine), tmp_path / "out").reused


@pytest.mark.parametrize("fault", ["missing", "damaged", "other grid", "one frame"])
def test_a_cine_that_cannot_be_used_leaves_ed_and_es(tmp_path: Path, fault: str) -> None:
    raw = subject(tmp_path, beating(CENTRE, SHAPE))
    path = tmp_path / "cine.nii.gz"
    if fault == "damaged":
        path.write_bytes(b"\x1f\x8b nothing")
    elif fault == "other grid":
        write(path, beating((40.0, 40.0), (100, 100, 6), n_frames=4))
    elif fault == "one frame":
        write(path, beating(CENTRE, SHAPE)[..., :1])
    assert prepared(replace(raw, cine=ImageSource(path)), tmp_path / "out").crop_centre == "motion"
