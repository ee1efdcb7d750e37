import gzip
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.errors import SubjectRefused
from med_duallora.nifti import read_nifti, write_nifti
from tests.unit.cohorts.raw import oblique_affine, texture


def saved(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, oblique_affine() if affine is None else affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2)])
def test_what_is_written_is_read(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    data, affine = texture(1, shape), oblique_affine()
    write_nifti(tmp_path / name, data, affine)
    image = read_nifti(tmp_path / name)
    assert np.array_equal(image.data, data)
    assert image.data.dtype == data.dtype
    assert image.spatial_shape == (5, 4, 3)
    assert np.allclose(image.affine, affine, atol=1e-5)
    assert np.allclose(image.spacing, (1.6, 1.6, 9), atol=1e-6)


def test_equal_input_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nifti(tmp_path / "a.nii.gz", texture(1), oblique_affine())
    monkeypatch.setattr(time, "time", lambda: 4e9)
    write_nifti(tmp_path / "b.nii.gz", texture(1), oblique_affine())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_compression_is_recognised_by_content(tmp_path: Path) -> None:
    saved(tmp_path / "a.nii.gz", texture(1))
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    assert np.array_equal(read_nifti(tmp_path / "plain.nii.gz").data, texture(1))


def test_rescaled_intensities_become_real_numbers(tmp_path: Path) -> None:
    image = nib.Nifti1Image(texture(1), oblique_affine())
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz").data.dtype.kind == "f"


def test_non_orthonormal_cosines_load(tmp_path: Path) -> None:
    affine = oblique_affine()
    affine[:3, 0] += 0.08 * affine[:3, 1]  # sheared by a few degrees: ITK refuses such files
    image = read_nifti(saved(tmp_path / "a.nii.gz", texture(1), affine))
    assert np.allclose(image.affine, affine, atol=1e-5)


def test_a_file_without_orientation_has_itks_axes(tmp_path: Path) -> None:
    image = nib.Nifti1Image(texture(1), None)
    image.header.set_zooms((1.5, 1.5, 8.0))
    assert (image.header["qform_code"], image.header["sform_code"]) == (0, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    # LPS identity at the origin, so RAS with both in-plane axes turned; nibabel would centre and turn only x.
    assert np.allclose(read_nifti(tmp_path / "a.nii.gz").affine, np.diag([-1.5, -1.5, 8.0, 1.0]))


def absent(path: Path) -> None:
    assert not path.exists()


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated_gzip(path: Path) -> None:
    saved(path, texture(1))
    path.write_bytes(path.read_bytes()[:-200])


def truncated_in_the_last_frame(path: Path) -> None:
    saved(path, texture(1, (40, 36, 6, 4)))
    path.write_bytes(path.read_bytes()[:-1000])


def wrong_checksum(path: Path) -> None:
    saved(path, texture(1))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))


def truncated_plain(path: Path) -> None:
    write_nifti(path.with_name("whole.nii"), texture(1), oblique_affine())
    path.write_bytes(path.with_name("whole.nii").read_bytes()[:-2])


def header_only_half(path: Path) -> None:
    write_nifti(path.with_name("whole.nii"), texture(1), oblique_affine())
    path.write_bytes(path.with_name("whole.nii").read_bytes()[:200])


def text(path: Path) -> None:
    path.write_text("<html>Please log in to download</html>\n" * 40)


def two_dimensional(path: Path) -> None:
    saved(path, texture(1, (8, 8)))


def five_dimensional(path: Path) -> None:
    saved(path, texture(1, (4, 4, 3, 2, 2)))


def complex_numbers(path: Path) -> None:
    saved(path, texture(1).astype(np.complex64))


def colours(path: Path) -> None:
    saved(path, np.zeros((4, 4, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


def header_edited(path: Path, **fields: object) -> None:
    write_nifti(path.with_name("whole.nii"), texture(1), oblique_affine())
    content = path.with_name("whole.nii").read_bytes()
    header = nib.Nifti1Header.from_fileobj(path.with_name("whole.nii").open("rb"))
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[348:])


def contradicting_spacing(path: Path) -> None:
    header_edited(path, pixdim=[1, 1.0, 1.0, 9.0, 1, 1, 1, 1])


def zero_spacing(path: Path) -> None:
    header_edited(path, pixdim=[1, 0, 1.6, 9.0, 1, 1, 1, 1])


def nan_axes(path: Path) -> None:
    header_edited(path, srow_x=[np.nan] * 4)


def parallel_axes(path: Path) -> None:
    header_edited(path, srow_x=[1.6, 1.6, 0, 0], srow_y=[0, 0.01, 0, 0], srow_z=[0, 0, 9, 0])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (absent, "missing-file"),
        (folder, "unreadable-file"),  # a folder by the name of a file
        (empty, "unreadable-file"),  # an interrupted download
        (truncated_gzip, "unreadable-file"),  # the same, later
        (truncated_in_the_last_frame, "unreadable-file"),  # ED and ES alone could still be read
        (wrong_checksum, "unreadable-file"),  # a flipped bit
        (truncated_plain, "unreadable-file"),  # nothing but the length tells
        (header_only_half, "unreadable-file"),
        (text, "unreadable-file"),  # a login page saved as an image
        (two_dimensional, "wrong-dimensions"),
        (five_dimensional, "wrong-dimensions"),
        (complex_numbers, "bad-data-type"),  # raw reconstruction
        (colours, "bad-data-type"),  # a screenshot
        (contradicting_spacing, "bad-geometry"),  # pixdim edited without the affine
        (zero_spacing, "bad-geometry"),
        (nan_axes, "bad-geometry"),
        (parallel_axes, "bad-geometry"),
    ],
)
def test_unusable_files_are_refused_by_name(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "image.nii.gz"
    damage(path)
    with pytest.raises(SubjectRefused) as refused:
        read_nifti(path)
    assert refused.value.reason == reason
    assert str(path) in refused.value.detail
