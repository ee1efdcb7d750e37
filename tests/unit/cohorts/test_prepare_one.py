import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import prepare_one as module
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.nifti_stream import files_sha256
from med_duallora.cohorts.prepare_one import Prepared, prepare_one
from med_duallora.cohorts.subject import ImageSource, RawSubject, Refusal
from tests.unit.cohorts.raw import SHAPE, heart, heart_es, oblique_affine, texture, write_subject


@pytest.fixture
def raw(tmp_path: Path) -> RawSubject:
    """A segmented subject of four 3-D files."""
    return write_subject(tmp_path / "raw")


@pytest.fixture
def cine(tmp_path: Path) -> RawSubject:
    """A subject whose phases are frames 2 and 0 of one 4-D file, with a 4-D segmentation."""
    write_nifti(tmp_path / "raw" / "c.nii.gz", texture(1, (*SHAPE, 3)), oblique_affine())
    labels = np.stack([heart_es(), heart(), heart()], axis=3)
    write_nifti(tmp_path / "raw" / "g.nii.gz", labels, oblique_affine())
    sources = [ImageSource(tmp_path / "raw" / name, frame) for name in ("c.nii.gz", "g.nii.gz") for frame in (2, 0)]
    return RawSubject("c1", "mnms", "DCM", "ge", "c", *sources)


def prepare(raw: RawSubject, tmp_path: Path) -> Prepared | Refusal:
    return prepare_one(raw, tmp_path / "out" / raw.subject, False)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_subject_becomes_a_folder(raw: RawSubject, tmp_path: Path) -> None:
    prepared = prepare(raw, tmp_path)
    assert isinstance(prepared, Prepared)
    assert sorted(contents(tmp_path / "out")) == [
        "s1/preparation.json",
        "s1/s1_sax_ed.nii.gz",
        "s1/s1_sax_ed_gt.nii.gz",
        "s1/s1_sax_es.nii.gz",
        "s1/s1_sax_es_gt.nii.gz",
    ]
    image = nib.load(tmp_path / "out/s1/s1_sax_ed.nii.gz")
    assert image.shape == (64, 58, 5)
    assert image.get_data_dtype() == np.uint8
    assert np.allclose(image.header.get_zooms(), (1, 1, 10))
    assert (prepared.n_slices, prepared.crop_centre, prepared.reused) == (5, "segmentation", False)
    assert np.allclose(prepared.spacing, (1.6, 1.6, 9))


def test_the_hash_covers_exactly_the_bytes_of_all_source_files(
    raw: RawSubject, cine: RawSubject, tmp_path: Path
) -> None:
    files = [source.path.read_bytes() for _, source in raw.sources()]
    assert prepare(raw, tmp_path).source_sha256 == hashlib.sha256(b"".join(files)).hexdigest()
    # A 4-D file counts once although ED and ES both come from it.
    files = [(tmp_path / "raw" / name).read_bytes() for name in ("c.nii.gz", "g.nii.gz")]
    assert prepare(cine, tmp_path).source_sha256 == hashlib.sha256(b"".join(files)).hexdigest()


def test_frames_of_a_cine_are_taken_by_index(cine: RawSubject, tmp_path: Path) -> None:
    assert prepare(cine, tmp_path).crop_centre == "segmentation"
    data = texture(1, (*SHAPE, 3))
    single = replace(cine, subject="c2", ed=ImageSource(tmp_path / "ed.nii"), es=ImageSource(tmp_path / "es.nii"))
    write_nifti(single.ed.path, data[..., 2], oblique_affine())
    write_nifti(single.es.path, data[..., 0], oblique_affine())
    prepare(single, tmp_path)
    for phase in ("ed", "es"):
        first, second = (tmp_path / f"out/{name}/{name}_sax_{phase}.nii.gz" for name in ("c1", "c2"))
        assert first.read_bytes() == second.read_bytes()


def test_a_segmentation_of_one_frame_may_be_a_3d_file(cine: RawSubject, tmp_path: Path) -> None:
    write_nifti(tmp_path / "gt.nii.gz", heart(), oblique_affine())
    prepared = prepare(replace(cine, ed_segmentation=ImageSource(tmp_path / "gt.nii.gz", 2)), tmp_path)
    assert prepared.crop_centre == "segmentation"


def test_without_segmentation_the_heart_is_looked_for_and_no_label_map_is_written(
    raw: RawSubject, tmp_path: Path
) -> None:
    prepared = prepare(replace(raw, ed_segmentation=None, es_segmentation=None), tmp_path)
    assert prepared.crop_centre == "motion"
    assert not list((tmp_path / "out").rglob("*_gt.nii.gz"))


def test_a_second_run_redoes_nothing(raw: RawSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(raw, tmp_path)
    monkeypatch.setattr(module, "prepare_volume", None)  # would fail if it were called
    assert prepare(raw, tmp_path) == replace(first, reused=True)


def source_changed(raw: RawSubject, _: Path) -> RawSubject:
    write_nifti(raw.es.path, texture(9), oblique_affine())
    return raw


def other_numbering(raw: RawSubject, _: Path) -> RawSubject:
    return replace(raw, label_numbers=(0, 3, 2, 1))


def phases_swapped(raw: RawSubject, _: Path) -> RawSubject:
    return replace(raw, ed=raw.es, es=raw.ed)


def output_damaged(raw: RawSubject, folder: Path) -> RawSubject:
    (folder / "s1_sax_es.nii.gz").write_bytes(b"x")
    return raw


def output_deleted(raw: RawSubject, folder: Path) -> RawSubject:
    (folder / "s1_sax_ed_gt.nii.gz").unlink()
    return raw


def record_damaged(raw: RawSubject, folder: Path) -> RawSubject:
    (folder / "preparation.json").write_text("[]")
    return raw


def record_incomplete(raw: RawSubject, folder: Path) -> RawSubject:
    record = json.loads((folder / "preparation.json").read_text())
    del record["prepared"]["n_slices"]
    (folder / "preparation.json").write_text(json.dumps(record))
    return raw


@pytest.mark.parametrize(
    "change",
    [
        source_changed,
        other_numbering,
        phases_swapped,
        output_damaged,
        output_deleted,
        record_damaged,
        record_incomplete,
    ],
)
def test_what_changed_is_redone(
    raw: RawSubject, tmp_path: Path, change: Callable[[RawSubject, Path], RawSubject]
) -> None:
    prepare(raw, tmp_path)
    changed = change(raw, tmp_path / "out/s1")
    again = prepare(changed, tmp_path)
    assert isinstance(again, Prepared)
    assert not again.reused
    fresh = prepare_one(changed, tmp_path / "fresh" / "s1", False)
    assert again == fresh
    assert contents(tmp_path / "out/s1") == contents(tmp_path / "fresh/s1")


def test_another_version_or_option_is_redone(raw: RawSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(raw, tmp_path)
    assert not prepare_one(raw, tmp_path / "out/s1", True).reused
    assert prepare_one(raw, tmp_path / "out/s1", True).reused
    monkeypatch.setattr(module, "PREPARATION", "cinema-sax-next")
    assert not prepare_one(raw, tmp_path / "out/s1", True).reused


def with_nan(raw: RawSubject) -> RawSubject:
    data = texture(1).astype(np.float32)
    data[0, 0, 0] = np.nan
    write_nifti(raw.ed.path, data, oblique_affine())
    return raw


def other_spacing_at_es(raw: RawSubject) -> RawSubject:
    write_nifti(raw.es.path, texture(2), oblique_affine((1.4, 1.4, 9.0)))
    return raw


def truncated(raw: RawSubject) -> RawSubject:
    raw.es.path.write_bytes(raw.es.path.read_bytes()[:-50])
    return raw


def segmentation_gone(raw: RawSubject) -> RawSubject:
    assert raw.ed_segmentation
    raw.ed_segmentation.path.unlink()
    return raw


def cine_for_stack(raw: RawSubject) -> RawSubject:
    write_nifti(raw.ed.path, texture(1, (*SHAPE, 3)), oblique_affine())
    return raw


def stack_for_cine(raw: RawSubject) -> RawSubject:
    return replace(raw, ed=ImageSource(raw.ed.path, 1))


def one_image_twice(raw: RawSubject) -> RawSubject:
    write_nifti(raw.es.path, texture(1).astype(np.float32), oblique_affine())
    return raw


def frame_too_high(raw: RawSubject) -> RawSubject:
    write_nifti(raw.ed.path, texture(1, (*SHAPE, 3)), oblique_affine())
    return replace(raw, ed=ImageSource(raw.ed.path, 3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_nan, "non-finite"),
        (other_spacing_at_es, "space-mismatch"),  # voxels would be compared across different places
        (truncated, "unreadable-file"),
        (segmentation_gone, "missing-file"),  # the cohort promised it: not to be cropped elsewhere silently
        (cine_for_stack, "wrong-dimensions"),
        (stack_for_cine, "wrong-dimensions"),
        (frame_too_high, "frame-out-of-range"),
        (one_image_twice, "same-image"),  # no motion, although the two files differ
    ],
)
def test_a_refused_subject_leaves_nothing(
    raw: RawSubject, tmp_path: Path, change: Callable[[RawSubject], RawSubject], reason: str
) -> None:
    prepare(raw, tmp_path)  # an earlier, good run: its output must not stay beside a refusal
    refused = prepare(change(raw), tmp_path)
    assert isinstance(refused, Refusal)
    assert (refused.subject, refused.dataset, refused.reason) == ("s1", "table", reason)
    assert refused.source == str(raw.ed.path)
    assert not list((tmp_path / "out").iterdir())


def test_non_orthonormal_cosines_are_prepared(raw: RawSubject, tmp_path: Path) -> None:
    affine = oblique_affine()
    affine[:3, 0] += 0.05 * affine[:3, 1]
    affine[:3, 0] *= 1.6 / np.linalg.norm(affine[:3, 0])
    for _, source in raw.sources():
        # No qform, which ITK would take instead; ITK itself refuses such a file.
        nib.save(nib.Nifti1Image(np.asarray(nib.load(source.path).dataobj), affine), source.path)
    (remark,) = prepare(raw, tmp_path).remarks
    assert remark.startswith("the axes are not at right angles, ITK refuses such a file: ED, ES, ED segmentation, ES")
    written = nib.load(tmp_path / "out/s1/s1_sax_ed.nii.gz").affine
    assert np.allclose(written[:3, :3], affine[:3, :3] / (1.6, 1.6, 9) * (1, 1, 10), atol=1e-5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "too-large"),
        (OverflowError("too large"), "unexpected-error"),
        (RecursionError(), "unexpected-error"),
        (ZeroDivisionError(), "unexpected-error"),
        (IndexError(), "unexpected-error"),
    ],
)
def test_an_error_that_nobody_thought_of_refuses_one_subject(
    raw: RawSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    prepare(raw, tmp_path)

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module, "PREPARATION", "cinema-sax-next")
    monkeypatch.setattr(module, "prepare_volume", fails)
    refused = prepare(raw, tmp_path)
    assert isinstance(refused, Refusal)
    assert refused.reason == reason
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_changes_while_it_is_read_is_refused(
    raw: RawSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changing(paths: list[Path]) -> tuple[str, dict[Path, str]]:
        found = files_sha256(paths)
        source_changed(raw, tmp_path)
        return found

    monkeypatch.setattr(module, "files_sha256", changing)
    refused = prepare(raw, tmp_path)
    assert isinstance(refused, Refusal)
    assert refused.detail == f"{raw.es.path} was changed while it was read"


def test_a_failed_write_leaves_the_earlier_folder_whole(
    raw: RawSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(raw, tmp_path)
    before = contents(tmp_path / "out")
    source_changed(raw, tmp_path)
    monkeypatch.setattr(module, "write_json", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        prepare(raw, tmp_path)
    assert contents(tmp_path / "out") == before


def test_moved_sources_are_not_redone(raw: RawSubject, tmp_path: Path) -> None:
    """Names and places of files do not matter, only their bytes."""
    prepare(raw, tmp_path)
    shutil.copytree(tmp_path / "raw", tmp_path / "moved")
    names = {role: ImageSource(tmp_path / "moved" / source.path.name) for role, source in raw.sources()}
    moved = replace(raw, ed=names["ed"], es=names["es"], ed_segmentation=names["ed_gt"], es_segmentation=names["es_gt"])
    assert prepare(moved, tmp_path).reused
