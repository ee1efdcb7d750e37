import gzip
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import nifti_stream
from med_duallora.cohorts.nifti import read_nifti, write_nifti
from med_duallora.errors import SubjectRefused
from tests.unit.cohorts.niftifile import VOXELS, write_raw
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


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0, 5), (np.nan, 5), (np.inf, 5)])
def test_intensities_without_a_scale_stay_whole_numbers(tmp_path: Path, slope: float, intercept: float) -> None:
    def scaled(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = slope, intercept

    image = read_nifti(write_raw(tmp_path / "a.nii", edit=scaled))
    assert np.array_equal(image.data, VOXELS)
    assert image.data.dtype == VOXELS.dtype


@pytest.mark.parametrize("shape", [(5, 4, 3, 1), (5, 4, 3, 1, 1), (5, 4, 3, 1, 1, 1, 1)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_axes_of_length_one_behind_the_third_are_left_out(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    nib.save(kind(texture(1, shape), oblique_affine()), tmp_path / "a.nii")
    image = read_nifti(tmp_path / "a.nii")
    assert np.array_equal(image.data, texture(1, (5, 4, 3)))
    assert (image.data.dtype, image.n_frames) == (np.int16, 1)


def test_a_cine_with_another_axis_of_length_one_is_a_cine(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(texture(1, (5, 4, 3, 2, 1)), oblique_affine()), tmp_path / "a.nii.gz")
    assert np.array_equal(read_nifti(tmp_path / "a.nii.gz").data, texture(1, (5, 4, 3, 2)))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_only_the_frames_that_are_wanted_are_kept(tmp_path: Path, name: str) -> None:
    data = texture(1, (5, 4, 3, 6))
    write_nifti(tmp_path / name, data, oblique_affine())
    image = read_nifti(tmp_path / name, [4, 1])
    assert np.array_equal(image.data, data[..., [1, 4]])
    assert (image.n_frames, image.spatial_shape) == (6, (5, 4, 3))
    assert image.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    with pytest.raises(SubjectRefused, match=r"frame-out-of-range: .* frames 0 to 5; frame 6"):
        read_nifti(tmp_path / name, [1, 6])


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(tmp_path: Path, order: str) -> None:
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(texture(1), oblique_affine(), header), tmp_path / "a.nii")
    assert np.array_equal(read_nifti(tmp_path / "a.nii").data, texture(1))


def test_a_file_may_be_padded_at_its_end(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert np.array_equal(read_nifti(path).data, VOXELS)


def test_frames_beyond_the_memory_limit_are_refused_and_single_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nifti(tmp_path / "a.nii.gz", texture(1, (5, 4, 3, 6)), oblique_affine())
    monkeypatch.setattr(nifti_stream, "MAX_HELD_BYTES", 300)
    with pytest.raises(SubjectRefused, match=r"too-large: .*6 frames at once"):
        read_nifti(tmp_path / "a.nii.gz")
    assert read_nifti(tmp_path / "a.nii.gz", [5, 2]).data.shape == (5, 4, 3, 2)


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


def zero_spacing(path: Path) -> None:
    header_edited(path, pixdim=[1, 0, 1.6, 9.0, 1, 1, 1, 1])


def nan_axes(path: Path) -> None:
    header_edited(path, srow_x=[np.nan] * 4, qform_code=0)


def parallel_axes(path: Path) -> None:
    header_edited(path, srow_x=[1.6, 1.6, 0, 0], srow_y=[0, 0.01, 0, 0], srow_z=[0, 0, 9, 0], qform_code=0)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def edited(**fields: object) -> Callable[[Path], None]:
    """Return a damage: plain file, header fields set to what ``header_edited`` is given."""
    return lambda path: header_edited(path, **fields)


def terabytes(path: Path) -> None:
    header_edited(path, dim=[4, 32767, 32767, 32767, 32767, 1, 1, 1])


def huge_nifti_2(path: Path) -> None:
    write_raw(path, kind=nib.Nifti2Header, edit=lambda header: header["dim"].__setitem__(slice(1, 4), 2**62))


def bomb(path: Path) -> None:
    """64 MB of zeros behind the voxels, 64 kB on the disk."""
    write_nifti(path, texture(1), oblique_affine())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**26), mtime=0))


def bomb_of_many_members(path: Path) -> None:
    write_nifti(path, texture(1), oblique_affine())
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**20), mtime=0) * 64)


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
        (pipe, "unreadable-file"),  # would be waited for without end
        (edited(vox_offset=np.inf), "unreadable-file"),
        (edited(vox_offset=np.nan), "unreadable-file"),
        (edited(vox_offset=1e30), "unreadable-file"),
        (edited(vox_offset=-352), "unreadable-file"),
        (edited(vox_offset=16), "unreadable-file"),  # inside the header
        (edited(vox_offset=352 + 2**20), "unreadable-file"),  # behind the end
        (edited(magic=b"ni1"), "unreadable-file"),  # the header of a pair
        (edited(dim=[0, 40, 36, 6, 1, 1, 1, 1]), "unreadable-file"),
        (edited(dim=[3, -40, 36, 6, 1, 1, 1, 1]), "wrong-dimensions"),
        (edited(dim=[3, 40, 0, 6, 1, 1, 1, 1]), "wrong-dimensions"),
        (edited(datatype=4242), "bad-data-type"),
        (edited(datatype=1536, bitpix=128), "bad-data-type"),
        (terabytes, "too-large"),
        (huge_nifti_2, "too-large"),
        (edited(dim=[3, 1024, 1024, 512, 1, 1, 1, 1]), "too-large"),  # half a gigabyte of voxels in one frame
        (bomb, "too-large"),
        (bomb_of_many_members, "too-large"),
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
