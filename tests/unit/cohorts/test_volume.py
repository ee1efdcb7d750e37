from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from med_duallora.cohorts import volume
from med_duallora.cohorts.volume import LV, MYO, RV, prepare_volume
from med_duallora.errors import SubjectRefused
from tests.unit.cohorts.raw import SHAPE, heart, heart_es, oblique_affine, texture

LPS = np.diag([-1.0, -1.0, 1.0])


def prepare(ed: np.ndarray, es: np.ndarray | None = None, spacing: tuple = (1.6, 1.6, 9.0), **more: Any) -> Any:
    return prepare_volume(ed, ed if es is None else es, oblique_affine(spacing), spacing, **more)


def reference_resampling(
    stack: np.ndarray, affine: np.ndarray, spacing: np.ndarray, size: tuple
) -> tuple[np.ndarray, np.ndarray]:
    """The rule as it is stated, point by point through world coordinates: slow and independent.

    Returns:
        The values, and where they count: exactly on the grid's border rounding decides what is inside.
    """
    target = np.array([1.0, 1.0, 10.0])
    axes, origin = LPS @ affine[:3, :3], LPS @ affine[:3, 3]
    direction = axes / spacing
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")).reshape(3, -1)
    world = (origin + 0.5 * (target - spacing))[:, None] + direction @ (target[:, None] * index)
    raw = np.linalg.solve(axes, world - origin[:, None])
    values = ndimage.map_coordinates(stack.astype(float), raw, order=1, mode="nearest")
    n = np.array(stack.shape)[:, None]
    values[((raw < -0.5) | (raw >= n - 0.5)).any(axis=0)] = 0
    counts = (np.minimum(np.abs(raw + 0.5), np.abs(raw - n + 0.5)) > 1e-6).all(axis=0)
    return np.trunc(values).reshape(size), counts.reshape(size)


@settings(max_examples=25, deadline=None)
@example(angles=(0.0, 180.0, 0.0), in_plane=1.0, slices=5.0, shear=0.0, seed=0)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    in_plane=st.floats(0.9, 2.2),
    slices=st.floats(5, 14),
    shear=st.floats(-0.1, 0.1),
    seed=st.integers(0, 1000),
)
def test_resampling_follows_the_stated_rule(
    angles: tuple[float, float, float], in_plane: float, slices: float, shear: float, seed: int
) -> None:
    from scipy.spatial.transform import Rotation

    spacing = np.array([in_plane, in_plane, slices])
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    direction[:, 0] += shear * direction[:, 1]
    direction /= np.linalg.norm(direction, axis=0)
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = (-31.0, 12.0, 77.0)
    stack = texture(seed, (17, 14, 5))
    grid = volume._target_grid(stack.shape, affine, tuple(spacing), rotated=False)
    result = volume._linear(stack, grid)
    expected, counts = reference_resampling(stack, affine, spacing, result.shape)
    # truncation may fall to either side of a whole number
    assert np.all(np.abs(result - expected)[counts] <= 1)


def test_a_stack_on_the_target_grid_keeps_its_values() -> None:
    stack = texture(3, (20, 18, 4))
    grid = volume._target_grid(stack.shape, oblique_affine((1, 1, 10)), (1.0, 1.0, 10.0), rotated=False)
    assert np.array_equal(volume._linear(stack, grid), stack)
    assert np.array_equal(volume._nearest(stack, grid), stack)


def test_edges_are_clamped_for_half_a_voxel_and_then_zero() -> None:
    # Along x: raw voxels of 2 mm, target positions -0.25, 0.25, ... in raw indices with the shift along the axes.
    affine = np.diag([-2.0, -2.0, 10.0, 1.0])
    stack = np.arange(10, 14, dtype=np.int16)[:, None, None] * np.ones((1, 4, 1), np.int16)
    grid = volume._target_grid(stack.shape, affine, (2.0, 2.0, 10.0), rotated=True)
    assert np.allclose(grid.positions[0], np.arange(8) / 2 - 0.25)
    assert volume._linear(stack, grid)[:, 0, 0].tolist() == [10, 10, 10, 11, 11, 12, 12, 13]
    # On a stack whose x axis points the other way the unrotated shift leads half a voxel off: one end is 0.
    grid = volume._target_grid(stack.shape, np.diag([2.0, -2.0, 10.0, 1.0]), (2.0, 2.0, 10.0), rotated=False)
    assert np.allclose(grid.positions[0], np.arange(8) / 2 + 0.25)
    assert volume._linear(stack, grid)[:, 0, 0].tolist() == [10, 10, 11, 11, 12, 12, 13, 0]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.int16, -2),  # truncated toward zero, not downward
        (np.float32, -2.5),  # real numbers stay real
        (np.float64, -2.5),
    ],
)
def test_interpolated_values_keep_their_kind(dtype: type, expected: float) -> None:
    stack = np.array([-2, -3, -3], dtype=dtype)[:, None, None] * np.ones((1, 3, 1), dtype)
    values = volume._linear(stack, volume._Grid((np.array([0.5]), np.array([0.0]), np.array([0.0])), np.eye(4)))
    assert values.dtype == dtype
    assert values[0, 0, 0] == expected


def test_flat_regions_stay_flat() -> None:
    stack = np.full((31, 29, 7), 137, np.int16)
    grid = volume._target_grid(stack.shape, oblique_affine((1.37, 1.37, 8)), (1.37, 1.37, 8.0), rotated=True)
    assert set(np.unique(volume._linear(stack, grid)[1:-1, 1:-1, 1:-1])) == {137}


@pytest.mark.parametrize(
    ("n_slices", "thickness", "expected"),
    [
        (9, 5.0, 4),  # 4.5 rounds to the even number, as Python and the reference do
        (11, 5.0, 6),  # 5.5 likewise
        (10, 8.0, 8),
        (6, 9.6, 6),
        (4, 8.0, 3),
    ],
)
def test_number_of_slices(n_slices: int, thickness: float, expected: int) -> None:
    prepared = prepare(texture(1, (20, 20, n_slices)), spacing=(1.6, 1.6, thickness))
    assert prepared.ed.shape == (32, 32, expected)


def test_the_origin_shift_is_not_rotated_unless_asked() -> None:
    spacing = np.array([1.6, 1.6, 9.0])
    shift = 0.5 * (np.array([1.0, 1.0, 10.0]) - spacing)
    affine = oblique_affine(spacing)
    plain, rotated = (prepare(texture(1), rotated_origin_shift=turned).affine for turned in (False, True))
    assert np.allclose(LPS @ (plain[:3, 3] - affine[:3, 3]), shift)
    assert np.allclose(rotated[:3, 3] - affine[:3, 3], (affine[:3, :3] / spacing) @ shift)
    assert not np.allclose(plain[:3, 3], rotated[:3, 3], atol=0.1)
    for result in (plain, rotated):
        assert np.allclose(result[:3, :3], affine[:3, :3] / spacing * (1, 1, 10))


@pytest.mark.parametrize(
    ("first", "last", "n", "expected"),
    [
        (100, 120, 256, (14, 206)),  # centre 110
        (100, 121, 256, (15, 207)),  # centre 110.5 goes up
        (10, 20, 256, (0, 192)),  # shifted inside at the lower border
        (240, 250, 256, (64, 256)),  # and at the upper one
        (50, 60, 192, (0, 192)),  # already small enough
        (50, 60, 120, (0, 120)),  # padding is not done here
        (0, 255, 256, (32, 224)),  # centre of the image, without a segmentation
        (0, 192, 193, (0, 192)),  # one voxel too many
    ],
)
def test_crop_windows(first: int, last: int, n: int, expected: tuple[int, int]) -> None:
    assert volume._axis_window(first, last, n) == expected


def test_ed_and_es_are_cropped_alike_around_the_lv_of_ed() -> None:
    spacing, shape = (1.0, 1.0, 10.0), (260, 230, 3)
    ed_labels, es_labels = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    ed_labels[150:161, 40:91, 0] = LV
    ed_labels[160:171, 40:91, 2] = LV  # the box spans all slices: 150 to 170
    ed_labels[0:5, 0:5] = RV
    es_labels[152:160, 42:50] = LV
    prepared = prepare(texture(1, shape), spacing=spacing, ed_labels=ed_labels, es_labels=es_labels)
    assert prepared.window == ((64, 256), (0, 192))
    assert prepared.crop_centre == "segmentation"
    assert prepared.ed.shape == prepared.es.shape == prepared.ed_labels.shape == prepared.es_labels.shape
    assert np.array_equal(prepared.ed_labels, ed_labels[64:256, :192])
    affine = oblique_affine(spacing)
    assert np.allclose(prepared.affine[:3, 3], affine[:3, 3] + affine[:3, 0] * 64)


def test_without_segmentation_the_crop_is_at_the_image_centre() -> None:
    prepared = prepare(texture(1, (260, 200, 3)), spacing=(1.0, 1.0, 10.0))
    assert prepared.window == ((34, 226), (4, 196))
    assert prepared.crop_centre == "image"
    assert prepared.ed_labels is None
    assert prepared.es_labels is None


def test_intensities_are_clipped_and_scaled_per_phase() -> None:
    ed = np.arange(1000, dtype=np.int16).reshape(10, 20, 5)
    prepared = prepare(ed, 3 * ed + 7, spacing=(1.0, 1.0, 10.0))
    low, high = np.percentile(ed, (0.95, 99.5))
    expected = ((np.clip(ed, low, high) - low) / (high - low) * 255).astype(np.uint8)
    assert prepared.ed.dtype == np.uint8
    assert np.array_equal(prepared.ed, expected)
    # Gain and offset of the scanner cancel: ES differs by them alone.
    assert np.abs(prepared.es.astype(int) - prepared.ed).max() <= 1
    assert (prepared.ed.min(), prepared.ed.max()) == (0, 255)


def test_label_numbers_are_unified() -> None:
    mnms = heart(numbers=(0, 3, 2, 1))
    mnms_es = heart_es(numbers=(0, 3, 2, 1)).astype(np.float32)
    own = prepare(texture(1), ed_labels=heart(), es_labels=heart_es())
    other = prepare(texture(1), ed_labels=mnms, es_labels=mnms_es, label_numbers=(0, LV, MYO, RV))
    assert np.array_equal(own.ed_labels, other.ed_labels)
    assert np.array_equal(own.es_labels, other.es_labels)
    assert other.ed_labels.dtype == np.uint8
    assert set(np.unique(own.ed_labels)) == {0, RV, MYO, LV}


NAN = texture(1).astype(np.float32)
NAN[3, 4, 2] = np.nan
INFINITE = texture(1).astype(np.float32)
INFINITE[0, 0, 0] = -np.inf
ALMOST_CONSTANT = np.full(SHAPE, 40, np.int16)
ALMOST_CONSTANT[0, 0, 0] = 900
EXTRA_LABEL = heart()
EXTRA_LABEL[0, 0, 0] = 4
FRACTION = heart().astype(np.float32)
FRACTION[0, 0, 0] = 0.5
NO_LV = np.where(heart() == LV, MYO, heart())
HUGE = np.full((100, 100, 6), LV, np.uint8)  # 1382 mL


def stacks(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> dict[str, Any]:
    return {"ed": texture(1, shape), "es": texture(2, shape), "spacing": spacing}


def label_box(shape: tuple[int, int, int], *box: slice) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[box] = LV
    return labels


WIDE = (260, 40, 5)
ES_ELSEWHERE = {
    **stacks(WIDE, (1.6, 1.6, 9.0)),
    "ed_labels": label_box(WIDE, slice(200, 220), slice(10, 20)),
    "es_labels": label_box(WIDE, slice(20, 25), slice(10, 20)),
}
IN_THE_BORDER = {
    **stacks((200, 40, 21), (1.6, 1.6, 2.0)),
    "ed_labels": label_box((200, 40, 21), slice(0, 200), slice(0, 40), slice(20, 21)),
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"es": texture(1, (40, 36, 7))}, "shape-mismatch"),  # ES has a slice more
        ({"ed_labels": heart((40, 37, 6))}, "shape-mismatch"),  # a segmentation of something else
        ({"ed": texture(1, (40, 36))}, "wrong-dimensions"),  # one slice without its axis
        ({"ed": texture(1, (40, 36, 6, 2))}, "wrong-dimensions"),  # a cine instead of a stack
        ({"es": texture(1, (40, 36, 0))}, "wrong-dimensions"),  # nothing
        ({"spacing": (1.6, 1.6, 0.0016)}, "bad-geometry"),  # metres
        ({"spacing": (0.05, 1.6, 9.0)}, "bad-geometry"),  # no MRI has it
        (
            {"ed": texture(1, (1, 36, 6)), "es": texture(2, (1, 36, 6)), "spacing": (0.4, 1.6, 9.0)},
            "wrong-dimensions",  # narrower than half a prepared voxel
        ),
        (stacks((40, 36, 9), (1.0, 1.0, 1.0)), "implausible-stack"),  # the header lost its voxel size
        (stacks((40, 36, 3), (1.6, 1.6, 8.0)), "implausible-stack"),  # two prepared slices
        (stacks((40, 36, 1), (1.6, 1.6, 4.0)), "implausible-stack"),  # none
        (stacks((900, 4, 6), (1.6, 1.6, 9.0)), "implausible-stack"),  # wider than a scanner
        (stacks((8, 8, 60), (1.6, 1.6, 9.0)), "implausible-stack"),  # longer than a chest
        ({"ed": NAN}, "non-finite"),
        ({"es": INFINITE}, "non-finite"),
        ({"ed": np.zeros(SHAPE, np.int16)}, "constant-image"),  # an empty export
        ({"es": ALMOST_CONSTANT}, "constant-image"),  # one bright voxel is not contrast
        ({"ed_labels": EXTRA_LABEL}, "bad-segmentation"),  # scar as a fourth label
        ({"es_labels": FRACTION}, "bad-segmentation"),  # resampled linearly by someone
        ({"ed_labels": NO_LV}, "empty-lv"),
        ({"ed_labels": np.zeros(SHAPE, np.uint8)}, "empty-lv"),  # an empty label map
        ({"ed_labels": heart(), "es_labels": NO_LV}, "empty-lv"),  # of another frame
        ({"ed_labels": heart(radius_lv=3)}, "implausible-heart"),  # 4 mL
        ({"ed_labels": HUGE, "ed": texture(1, HUGE.shape), "es": texture(2, HUGE.shape)}, "implausible-heart"),
        ({"ed_labels": heart(), "es_labels": heart()}, "phases-exchanged"),  # ED's label map twice
        ({"ed_labels": heart_es(), "es_labels": heart()}, "phases-exchanged"),  # rather than smaller than a heart
        ({"ed_labels": heart(radius_lv=6), "es_labels": heart(radius_lv=7)}, "phases-exchanged"),
        (ES_ELSEWHERE, "heart-outside"),  # the ES label map belongs to another scan
        (IN_THE_BORDER, "empty-lv"),  # nothing of it lies on the prepared grid
    ],
)
def test_what_cannot_be_prepared_is_refused(changes: dict[str, Any], reason: str) -> None:
    arguments = {"ed": texture(1), "es": texture(2), "spacing": (1.6, 1.6, 9.0)} | changes
    with pytest.raises(SubjectRefused) as refused:
        prepare(**arguments)
    assert refused.value.reason == reason


def test_exchanged_phases_are_said_to_be_exchanged() -> None:
    with pytest.raises(SubjectRefused, match=r"13\.1 mL large at ES and 10\.5 mL at ED; ED and ES may be exchanged"):
        prepare(texture(1), ed_labels=heart(), es_labels=heart(radius_lv=5.5))


def test_a_given_centre_centres_the_crop_where_there_is_no_segmentation() -> None:
    spacing, shape = (2.0, 1.0, 10.0), (130, 260, 3)
    given = prepare(texture(1, shape), spacing=spacing, centre=(20.0, 200.0))
    assert given.crop_centre == "motion"
    assert given.window == ((0, 192), (68, 260))
    moved = prepare(texture(1, shape), spacing=spacing, centre=(60.0, 120.0))
    # Raw index 60 of 2 mm voxels is prepared voxel 120 or so, whatever half voxel the shift of the origin adds.
    assert abs(sum(moved.window[0]) / 2 - 120.5) <= 1
    assert abs(sum(moved.window[1]) / 2 - 120.5) <= 1
    labels = np.zeros(shape, np.uint8)
    labels[50:60, 200:250, :] = LV
    assert (
        prepare(texture(1, shape), spacing=spacing, centre=(60.0, 20.0), ed_labels=labels).crop_centre == "segmentation"
    )


def test_only_the_crop_is_interpolated_and_nothing_else_changes() -> None:
    stack = texture(5, (230, 240, 4))
    prepared = prepare(stack, spacing=(1.1, 0.9, 9.0), centre=(100.0, 130.0))
    grid = volume._target_grid(stack.shape, oblique_affine((1.1, 0.9, 9.0)), (1.1, 0.9, 9.0), rotated=False)
    (x, x_stop), (y, y_stop) = prepared.window
    whole = volume._linear(stack, grid)[x:x_stop, y:y_stop]
    assert np.array_equal(prepared.ed, volume._scale_intensity(whole, "ED"))


def test_preparation_does_not_change_its_input() -> None:
    ed, labels, at_es = texture(1), heart(), heart_es()
    prepare(ed, ed_labels=labels, es_labels=at_es)
    assert np.array_equal(ed, texture(1))
    assert np.array_equal(labels, heart())
    assert np.array_equal(at_es, heart_es())
