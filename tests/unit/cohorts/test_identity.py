from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import acdc
from med_duallora.cohorts.identity import image_hashes, shared_images, shared_with_earlier, voxels_sha256
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import CohortError, SubjectRefused
from tests.unit.cohorts.raw import texture, write_csv
from tests.unit.cohorts.test_prepared import AFFINE, row, volume


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda stack: stack[::-1], id="flipped in plane"),
        pytest.param(lambda stack: stack[..., ::-1], id="slices in the other order"),
        pytest.param(lambda stack: stack.transpose(2, 0, 1), id="axes permuted"),
        pytest.param(np.rot90, id="turned"),
        pytest.param(lambda stack: stack[..., None], id="as a cine of one frame"),
        pytest.param(lambda stack: stack.astype(">i2"), id="big-endian"),
        pytest.param(lambda stack: stack.astype(np.uint16), id="unsigned"),
        pytest.param(lambda stack: stack.astype(np.float32), id="real numbers"),
        pytest.param(np.asfortranarray, id="another order in memory"),
    ],
)
def test_one_image_has_one_identity(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert voxels_sha256(change(texture(1))) == voxels_sha256(texture(1))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda stack: np.where(stack == stack[3, 3, 3], stack + 1, stack), id="one grey level moved"),
        pytest.param(lambda stack: stack[:-1], id="a row less"),
        pytest.param(lambda stack: stack * 0.5, id="rescaled"),
        pytest.param(lambda stack: np.concatenate([stack, stack]), id="twice the voxels of the same values"),
        pytest.param(lambda _: texture(2), id="another scan of the same kind"),
    ],
)
def test_another_image_has_another_identity(change: Callable[[np.ndarray], np.ndarray]) -> None:
    assert voxels_sha256(change(texture(1))) != voxels_sha256(texture(1))


def test_zero_has_one_sign() -> None:
    assert voxels_sha256(np.array([0.0, -0.0, 1.0])) == voxels_sha256(np.array([-0.0, 1.0, 0.0]))


def test_the_two_phases_must_be_two_images() -> None:
    ed, es = image_hashes(texture(1), texture(2))
    assert (ed, es) == (voxels_sha256(texture(1)), voxels_sha256(texture(2)))
    with pytest.raises(SubjectRefused) as refused:
        image_hashes(texture(1), texture(1)[::-1].astype(np.float64))
    assert refused.value.reason == "same-image"


@pytest.mark.parametrize(
    ("subjects", "shared"),
    [
        ([("a", "1", "2"), ("b", "3", "4")], {}),
        ([("a", "1", "2"), ("b", "1", "2")], {"b": ("its ED image is the ED image of a", "its ES image is the ES")}),
        ([("a", "1", "2"), ("b", "2", "1")], {"b": ("its ED image is the ES image of a", "its ES image is the ED")}),
        ([("a", "1", "2"), ("b", "2", "3")], {"b": ("its ED image is the ES image of a (",)}),
        ([("a", "1", "2"), ("b", "3", "4"), ("c", "2", "3")], {"c": ("the ES image of a", "the ED image of b")}),
        # a and c are linked by b, which shows that they are one person
        (
            [("a", "1", "2"), ("b", "2", "3"), ("c", "3", "4")],
            {"b": ("of a",), "c": ("its ED image is the ES image of b",)},
        ),
    ],
)
def test_the_later_of_two_that_share_an_image_is_named(
    subjects: Sequence[tuple[str, str, str]], shared: dict[str, tuple[str, ...]]
) -> None:
    found = shared_with_earlier(subjects)
    assert set(found) == set(shared)
    assert all(part in found[name] for name, parts in shared.items() for part in parts)


def cohort(folder: Path, images: dict[str, tuple[int, int]], columns: bool, split: str = "train") -> PreparedCohort:
    """Write subjects of a prepared cohort from the seeds of their ED and ES volumes."""
    rows = []
    for name, seeds in images.items():
        for phase, seed in zip(("ed", "es"), seeds, strict=True):
            write_nifti(folder / name / f"{name}_sax_{phase}.nii.gz", volume(seed), AFFINE)
        ed, es = (f"{seed:064x}" if columns else "" for seed in seeds)
        rows.append(row(name, split=split, ed_voxels_sha256=ed, es_voxels_sha256=es))
    write_csv(folder / "cohort.csv", rows)
    return PreparedCohort.read(folder)


@pytest.mark.parametrize("columns", [(True, True), (True, False), (False, False)])
def test_shared_images_are_found_within_and_across_prepared_cohorts(tmp_path: Path, columns: Sequence[bool]) -> None:
    first = cohort(tmp_path / "a", {"s1": (1, 2), "s2": (3, 4), "s3": (4, 5)}, columns[0])
    second = cohort(tmp_path / "b", {"t1": (2, 1), "t2": (8, 9)}, columns[1], split="test")
    found = [
        (pair.first.subject, pair.second.subject, pair.images, pair.leaks) for pair in shared_images([first, second])
    ]
    assert found == [
        ("s2", "s3", (("ES", "ED"),), False),
        ("s1", "t1", (("ED", "ES"), ("ES", "ED")), True),
    ]


def test_volumes_are_read_only_where_a_table_tells_no_identity(tmp_path: Path) -> None:
    told = cohort(tmp_path / "a", {"s1": (1, 2), "s2": (1, 2)}, columns=True)
    told.subjects[0].ed_path.write_bytes(b"damaged")
    assert len(shared_images([told])) == 1
    untold = cohort(tmp_path / "b", {"t1": (1, 2)}, columns=False)
    with pytest.raises(CohortError, match="s1_sax_ed"):
        shared_images([told, untold])


def test_among_a_hundred_patients_only_the_scan_that_was_published_twice_is_shared(shared: Path) -> None:
    """patient076 of ACDC holds patient074's voxels in both frames; its label maps were drawn anew."""
    root = shared / "real_cmr" / "acdc_raw"
    if not root.is_dir():
        pytest.skip("the real ACDC patients are not beside the repository")
    subjects, refused = acdc.read(root)
    assert (len(subjects), refused) == (100, [])
    hashes = [
        (subject.subject, *image_hashes(read_voxels(subject.ed), read_voxels(subject.es))) for subject in subjects
    ]
    assert shared_with_earlier(hashes) == {
        "patient076": "its ED image is the ED image of patient074 and its ES image is the ES image of patient074 "
        "(the same voxels)"
    }


def read_voxels(source: ImageSource) -> np.ndarray:
    return np.asarray(nib.load(source.path).dataobj)
