from itertools import permutations, product

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff

from med_duallora.cohorts.same_space import OFF_GRID, REORDERED, UNPLACED, Stack, on_grid_of
from med_duallora.errors import SubjectRefused
from tests.unit.cohorts.niftifile import rotation
from tests.unit.cohorts.raw import heart, oblique_affine, texture

SPACING = np.array([1.6, 1.6, 9.0])
IMAGE = Stack("ED", texture(1), oblique_affine())


def moved(millimetres: tuple[float, float, float], image: Stack = IMAGE) -> np.ndarray:
    """The image's affine, shifted along the image's own axes."""
    affine = image.affine.copy()
    affine[:3, 3] += image.affine[:3, :3] / SPACING @ millimetres
    return affine


def turned(codes: str, image: Stack = IMAGE) -> Stack:
    """The image as a program stores it that orders axes otherwise, with its matching affine (nibabel's work)."""
    orientation = axcodes2ornt(codes)
    data = apply_orientation(image.data, orientation)
    return Stack("ES", data, image.affine @ inv_ornt_aff(orientation, image.data.shape))


# All 48 orders and directions of three axes, in nibabel's letters.
CODES = ["".join(code) for axes in permutations(("RL", "AP", "SI")) for code in product(*axes)]


@pytest.mark.parametrize("codes", CODES)
def test_turned_and_permuted_axes_are_turned_back_exactly(codes: str) -> None:
    other = turned(codes)
    back, remarks = on_grid_of(other, IMAGE)
    assert np.array_equal(back.data, IMAGE.data)
    assert np.allclose(back.affine, IMAGE.affine)
    assert remarks == ([] if codes == "RAS" else [f"{REORDERED}: ES"])


def test_sheared_grids_are_compared_as_they_are() -> None:
    affine = oblique_affine()
    affine[:3, 0] += 0.1 * affine[:3, 1]
    image = Stack("ED", texture(1), affine)
    back, _ = on_grid_of(turned("ALS", image), image)
    assert np.array_equal(back.data, image.data)


@pytest.mark.parametrize(
    ("offset", "remark"),
    [
        ((0.0, 0.0, 0.0), False),
        ((0.05, -0.05, 0.2), False),  # rounding in headers
        ((0.5, 0.0, 0.0), True),
        ((-0.5, 0.7, 1.5), True),  # less than half a voxel
    ],
)
def test_small_offsets_are_the_same_grid(offset: tuple[float, float, float], remark: bool) -> None:
    stack, remarks = on_grid_of(Stack("ES", texture(2), moved(offset)), IMAGE)
    assert np.array_equal(stack.data, texture(2))
    assert [text.startswith(OFF_GRID) for text in remarks] == ([True] if remark else [])


def rotated(degrees: float) -> np.ndarray:
    affine = IMAGE.affine.copy()
    affine[:3, :3] = rotation(0, 0, np.deg2rad(degrees)) @ affine[:3, :3]
    return affine


def rescaled(factor: float) -> np.ndarray:
    return IMAGE.affine @ np.diag([factor, 1, 1, 1])


@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (moved((1.0, 0, 0)), "1.0 / 0.0 / 0.0 mm away"),  # nearer to the next voxel
        (moved((192, 0, 0)), "192.0 / 0.0 / 0.0 mm away"),
        (moved((0, 0, 9)), "0.0 / 0.0 / 9.0 mm away"),  # a slice further
        (moved((0, 0, 3)), "0.0 / 0.0 / 3.0 mm away"),  # between two slices
        (rotated(10), "does not lie on the voxels of ED"),
        (rotated(40), "turned against those of ED, by about"),
        (rescaled(1.1), "6.2 / 0.0 / 0.0 mm away"),  # another voxel size
    ],
)
def test_other_grids_are_refused_saying_what_differs(affine: np.ndarray, says: str) -> None:
    with pytest.raises(SubjectRefused) as refused:
        on_grid_of(Stack("ES", texture(2), affine), IMAGE)
    assert refused.value.reason == "space-mismatch"
    assert says in refused.value.detail
    assert "ES" in refused.value.detail


@pytest.mark.parametrize("shape", [(40, 36, 7), (40, 37, 6), (36, 40, 6)])
def test_other_shapes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(SubjectRefused) as refused:
        on_grid_of(Stack("ES", texture(2, shape), IMAGE.affine), IMAGE)
    assert refused.value.reason == "shape-mismatch"
    assert str(shape) in refused.value.detail


NOWHERE = np.diag([1.0, 1.0, 1.0, 1.0])


def test_a_label_map_whose_header_was_lost_lies_on_its_image() -> None:
    lost = Stack("ED segmentation", heart(), NOWHERE, placed=False)
    stack, remarks = on_grid_of(lost, IMAGE, may_be_unplaced=True)
    assert np.array_equal(stack.data, heart())
    assert np.array_equal(stack.affine, IMAGE.affine)
    assert remarks == [f"{UNPLACED}: ED segmentation"]
    nowhere = Stack("ED", IMAGE.data, NOWHERE, placed=False)
    stack, remarks = on_grid_of(Stack("ED segmentation", heart(), IMAGE.affine), nowhere, may_be_unplaced=True)
    assert np.array_equal(stack.affine, NOWHERE)
    assert remarks == [f"{UNPLACED}: ED segmentation"]


@pytest.mark.parametrize(
    ("stack", "allowed"),
    [
        (Stack("ES", texture(2), NOWHERE, placed=False), False),  # an image has to know its place
        (Stack("ED segmentation", heart((40, 36, 7)), NOWHERE, placed=False), True),  # of another image
        (Stack("ED segmentation", heart((36, 40, 6)), NOWHERE, placed=False), True),  # turned, nobody knows how
        (Stack("ED segmentation", heart(), moved((30, 0, 0))), True),  # knows its place, which is elsewhere
    ],
)
def test_only_a_label_map_that_fits_may_have_lost_its_header(stack: Stack, allowed: bool) -> None:
    with pytest.raises(SubjectRefused):
        on_grid_of(stack, IMAGE, may_be_unplaced=allowed)


def test_where_affines_agree_a_lost_place_changes_nothing() -> None:
    """Turned round at the world's origin, image and label map still fit by their affines, and those are followed."""
    image = Stack("ED", texture(1), np.diag([1.6, 1.6, 9.0, 1.0]), placed=False)
    affine = np.diag([-1.6, 1.6, 9.0, 1.0])
    affine[0, 3] = 39 * 1.6
    stack, remarks = on_grid_of(Stack("ED segmentation", heart()[::-1], affine), image, may_be_unplaced=True)
    assert np.array_equal(stack.data, heart())
    assert remarks == [f"{REORDERED}: ED segmentation"]


UNIT_COLUMNS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ACDC's sform; the true voxel size is only in pixdim
AS_READ = np.diag([-1.6, -1.6, 9.0, 1.0])


@pytest.mark.parametrize("codes", ["LAS", "RPS", "LPI", "RAS", "RAI"])
@pytest.mark.parametrize("of_image", [False, True])
def test_flipped_by_a_program_that_took_unit_columns_for_voxel_sizes(codes: str, of_image: bool) -> None:
    """nibabel moves the origin by whole millimetres then: no affine fits, but the axes still tell of the flip."""
    orientation = axcodes2ornt(codes) * [[1, -1], [1, -1], [1, 1]]
    data = apply_orientation(heart(), orientation)
    affine = UNIT_COLUMNS @ inv_ornt_aff(orientation, data.shape)
    affine[:3, :3] *= SPACING
    flipped, plain = Stack("ED segmentation", data, affine), Stack("ED", heart(), AS_READ, placed=False)
    stack, target = (plain, flipped) if of_image else (flipped, plain)
    with pytest.raises(SubjectRefused) as refused:
        on_grid_of(stack, target, may_be_unplaced=True)
    assert refused.value.reason == "space-mismatch"
    assert "turned or flipped" in refused.value.detail


def test_a_label_map_with_an_origin_alone_lies_on_an_image_without_one() -> None:
    affine = AS_READ.copy()
    affine[:3, 3] = [30, 20, 10]
    image = Stack("ED", texture(1), AS_READ, placed=False)
    _, remarks = on_grid_of(Stack("ED segmentation", heart(), affine), image, may_be_unplaced=True)
    assert remarks == [f"{UNPLACED}: ED segmentation"]


def test_a_header_without_voxel_sizes_says_nothing_of_turned_axes() -> None:
    image = Stack("ED", texture(1), AS_READ + np.array([[0, 0, 0, 50.0]] * 3 + [[0] * 4]))
    lost = Stack("ED segmentation", heart(), NOWHERE, placed=False)
    _, remarks = on_grid_of(lost, image, may_be_unplaced=True)
    assert remarks == [f"{UNPLACED}: ED segmentation"]
