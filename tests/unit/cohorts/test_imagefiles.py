import gzip
from pathlib import Path

import pytest

from med_duallora.cohorts.imagefiles import find_image, need_image
from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import SubjectRefused


@pytest.mark.parametrize("name", ["a01.nii.gz", "a01.nii", "a1.nii.gz", "a1.nii"])
def test_an_image_is_found_under_every_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert find_image(tmp_path, "a01", "a1", frame=2) == ImageSource(tmp_path / name, 2)
    assert need_image(tmp_path, "a01", "a1") == ImageSource(tmp_path / name)


def test_without_an_image_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.nii").mkdir()
    assert find_image(tmp_path, "a") is None
    assert find_image(tmp_path / "absent", "a") is None
    with pytest.raises(SubjectRefused, match=r"a\.nii\.gz, and no \.nii") as refused:
        need_image(tmp_path, "a")
    assert refused.value.reason == "missing-file"


def test_an_unpacked_copy_beside_its_original_does_no_harm(tmp_path: Path) -> None:
    voxels = bytes(range(256)) * 9000  # more than is compared at once
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(voxels))
    (tmp_path / "a.nii").write_bytes(voxels)
    assert find_image(tmp_path, "a") == ImageSource(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(b"other"),
        gzip.compress(b"voxels and more"),
        gzip.compress(b"voxels")[:-9],  # damaged: nobody knows what it was
        b"no gzip",
        b"",
    ],
    ids=["other", "more", "damaged", "not gzip", "empty"],
)
def test_two_images_of_one_name_are_ambiguous(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "a.nii.gz").write_bytes(stored)
    (tmp_path / "a.nii").write_bytes(b"voxels")
    with pytest.raises(SubjectRefused, match=r"a\.nii\.gz and a\.nii hold different images") as refused:
        find_image(tmp_path, "a")
    assert refused.value.reason == "ambiguous-file"
