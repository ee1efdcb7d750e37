"""Images of one subject from several files, which name their places differently or wrongly."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts.itk_geometry import SIZES_CONTRADICT
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepare_one import Prepared, prepare_one
from med_duallora.cohorts.same_space import REORDERED, UNPLACED
from med_duallora.cohorts.subject import ImageSource, RawSubject, Refusal
from tests.unit.cohorts.raw import heart, oblique_affine, texture, write_subject


@pytest.fixture
def raw(tmp_path: Path) -> RawSubject:
    """A segmented subject of four 3-D files."""
    return write_subject(tmp_path / "raw")


def prepare(raw: RawSubject, tmp_path: Path) -> Prepared | Refusal:
    return prepare_one(raw, tmp_path / "out" / raw.subject, False)


def volumes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.nii.gz")}


def rewrite(source: ImageSource, change: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> None:
    nib.save(change(nib.load(source.path)), source.path)


def flipped(*axes: int) -> Callable[[nib.Nifti1Image], nib.Nifti1Image]:
    """Turn axes round, and the affine with them: the same image in another order."""

    def change(image: nib.Nifti1Image) -> nib.Nifti1Image:
        orientation = np.array([[axis, -1 if axis in axes else 1] for axis in range(3)])
        return image.as_reoriented(orientation)

    return change


def transposed(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return image.as_reoriented(np.array([[1, 1], [2, -1], [0, 1]]))


def header_lost(image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(np.asarray(image.dataobj), np.eye(4))


@pytest.mark.parametrize(
    "change",
    [flipped(0), flipped(2), flipped(0, 1, 2), transposed],
    ids=["x", "z", "x, y and z", "transposed"],
)
@pytest.mark.parametrize("roles", [("ed_gt",), ("es",), ("es_gt",), ("es", "es_gt"), ("ed_gt", "es_gt")], ids=str)
def test_images_in_another_order_are_brought_onto_the_grid_of_ed(
    raw: RawSubject, tmp_path: Path, roles: tuple[str, ...], change: Callable[[nib.Nifti1Image], nib.Nifti1Image]
) -> None:
    prepare(raw, tmp_path)
    expected = volumes(tmp_path / "out")
    for role, source in raw.sources():
        if role in roles:
            rewrite(source, change)
    prepared = prepare(raw, tmp_path)
    assert isinstance(prepared, Prepared)
    assert not prepared.reused
    assert volumes(tmp_path / "out") == expected
    assert any(text.startswith(REORDERED) for text in prepared.remarks)


def test_a_label_map_without_header_is_taken_as_drawn_on_its_image(raw: RawSubject, tmp_path: Path) -> None:
    prepare(raw, tmp_path)
    expected = volumes(tmp_path / "out")
    for source in (raw.ed_segmentation, raw.es_segmentation):
        rewrite(source, header_lost)
    prepared = prepare(raw, tmp_path)
    assert volumes(tmp_path / "out") == expected
    assert [text for text in prepared.remarks if text.startswith(UNPLACED)] == [
        f"{UNPLACED}: ED segmentation",
        f"{UNPLACED}: ES segmentation",
    ]


def es_moved(raw: RawSubject) -> RawSubject:
    affine = oblique_affine()
    affine[0, 3] += 20
    write_nifti(raw.es.path, texture(2), affine)
    return raw


def labels_elsewhere(raw: RawSubject) -> RawSubject:
    affine = oblique_affine()
    affine[2, 3] += 192
    write_nifti(raw.ed_segmentation.path, heart(), affine)
    return raw


def flipped_without_saying_so(raw: RawSubject) -> RawSubject:
    """The header of a turned copy tells its directions but not its new origin."""
    write_nifti(raw.ed_segmentation.path, heart()[::-1], oblique_affine() @ np.diag([-1, 1, 1, 1]))
    return raw


def es_labels_of_ed(raw: RawSubject) -> RawSubject:
    return replace(raw, es_segmentation=raw.ed_segmentation)


def phases_exchanged(raw: RawSubject) -> RawSubject:
    return replace(raw, ed=raw.es, es=raw.ed, ed_segmentation=raw.es_segmentation, es_segmentation=raw.ed_segmentation)


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        (es_moved, "space-mismatch", "ES does not lie on the voxels of ED"),
        (labels_elsewhere, "space-mismatch", "ED segmentation does not lie on the voxels of ED"),
        (flipped_without_saying_so, "space-mismatch", "62.4 / 0.0 / 0.0 mm away"),
        (es_labels_of_ed, "phases-exchanged", "ED and ES may be exchanged"),
        (phases_exchanged, "phases-exchanged", "ED and ES may be exchanged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_images_that_do_not_belong_together_are_refused(
    raw: RawSubject, tmp_path: Path, change: Callable[[RawSubject], RawSubject], reason: str, says: str
) -> None:
    refused = prepare(change(raw), tmp_path)
    assert isinstance(refused, Refusal)
    assert refused.reason == reason
    assert says in refused.detail


def test_a_stack_with_an_axis_of_one_frame_may_be_asked_for_by_frame_or_without(
    raw: RawSubject, tmp_path: Path
) -> None:
    nib.save(nib.Nifti1Image(texture(1)[..., None], oblique_affine()), raw.ed.path)
    assert isinstance(prepare(raw, tmp_path), Prepared)
    assert isinstance(prepare(replace(raw, ed=ImageSource(raw.ed.path, 0)), tmp_path), Prepared)


def test_contradictions_in_headers_are_remarked_once_with_the_images_they_concern(
    raw: RawSubject, tmp_path: Path
) -> None:
    for role in ("es", "ed_gt"):
        source = dict(raw.sources())[role]
        affine = oblique_affine() @ np.diag([1 / 1.6, 1 / 1.6, 1 / 9, 1])
        image = nib.Nifti1Image(np.asarray(nib.load(source.path).dataobj), affine)
        image.header["pixdim"][1:4] = (1.6, 1.6, 9)
        nib.save(image, source.path)
        edited = bytearray(gzip.decompress(source.path.read_bytes()))
        edited[80:92] = np.array([1.6, 1.6, 9], "<f4").tobytes()
        source.path.write_bytes(gzip.compress(bytes(edited), mtime=0))
    assert prepare(raw, tmp_path).remarks == (
        f"{SIZES_CONTRADICT}: ES, ED segmentation (1 x 1 x 1 against 1.6 x 1.6 x 9)",
    )
