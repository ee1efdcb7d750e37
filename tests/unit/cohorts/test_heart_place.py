import math
from pathlib import Path

import numpy as np
import pytest

from med_duallora.cohorts import acdc
from med_duallora.cohorts.heart_place import CONFIDENT, find_heart
from med_duallora.cohorts.nifti_stream import files_sha256
from med_duallora.cohorts.stacks import load_stacks
from med_duallora.cohorts.volume import CROP_SIZE, LV

SPACING = (1.5, 1.5, 8.0)


def beating(
    centre: tuple[float, float] = (60.0, 80.0),
    shape: tuple[int, int, int] = (150, 170, 6),
    noise: float = 5.0,
    n_frames: int = 2,
    spacing: tuple[float, float, float] = SPACING,
) -> np.ndarray:
    """A bright disc in a dark ring that contracts, in a chest of soft structures that does not move; (X, Y, Z, T)."""
    rng = np.random.default_rng(4)
    x, y = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape[:2], spacing, strict=False)), indexing="ij")
    distance = np.hypot(x - centre[0] * spacing[0], y - centre[1] * spacing[1])
    chest = 60 + 25 * np.sin(x / 19) * np.cos(y / 23)
    frames = []
    for phase in np.linspace(0, 1, n_frames):
        radius = 25 - 9 * phase
        plane = np.where(distance < radius, 200.0, np.where(distance < radius + 10, 40.0, chest))
        stack = np.repeat(plane[..., None], shape[2], axis=2)
        frames.append(stack + rng.normal(0, noise, shape))
    return np.stack(frames, axis=3)


def off_mm(frames: np.ndarray, centre: tuple[float, float], spacing: tuple[float, float, float] = SPACING) -> float:
    found = find_heart(frames, spacing).centre
    return math.dist(*(np.multiply(place, spacing[:2]).tolist() for place in (found, centre)))


@pytest.mark.parametrize("centre", [(60.0, 80.0), (35.0, 40.0), (110.0, 130.0)])
@pytest.mark.parametrize("n_frames", [2, 12], ids=["ED and ES", "cine"])
def test_a_beating_disc_is_found_wherever_it_is(centre: tuple[float, float], n_frames: int) -> None:
    frames = beating(centre, n_frames=n_frames)
    assert off_mm(frames, centre) < 5
    assert find_heart(frames, SPACING).confidence > CONFIDENT


@pytest.mark.parametrize(
    ("change", "back"),
    [
        (lambda frames: frames[::-1], lambda x, y: (149 - x, y)),
        (lambda frames: frames[:, ::-1], lambda x, y: (x, 169 - y)),
        (lambda frames: frames.swapaxes(0, 1), lambda x, y: (y, x)),
        (lambda frames: frames[..., ::-1], lambda x, y: (x, y)),
        (lambda frames: (frames * 17 + 300).astype(np.int16), lambda x, y: (x, y)),
    ],
    ids=["x flipped", "y flipped", "transposed", "ES first", "other intensities"],
)
def test_the_order_of_axes_and_frames_does_not_matter(change, back) -> None:
    assert off_mm(change(beating()), back(60.0, 80.0)) < 5


def test_voxels_need_not_be_square() -> None:
    spacing = (1.0, 2.2, 10.0)
    assert off_mm(beating((70.0, 60.0), (180, 110, 5), spacing=spacing), (70.0, 60.0), spacing) < 5


def test_a_straight_edge_that_moves_more_is_no_heart() -> None:
    frames = beating()
    frames[:, :18, :, 1] = 250
    frames[:, :18, :, 0] = 0
    assert off_mm(frames, (60.0, 80.0)) < 8


def test_a_right_ventricle_that_moves_more_is_not_the_left_one() -> None:
    """A failing left ventricle hardly moves; the crescent beside it fills and empties altogether."""
    weak = beating(noise=2.0)
    weak[..., 1] = beating(noise=2.0)[..., 0] * 0.7 + weak[..., 1] * 0.3
    x, y = np.indices(weak.shape[:2]) * 1.5
    crescent = (np.hypot(x - 50, y - 120) < 38) & (np.hypot(x - 90, y - 120) > 38)
    weak[crescent, :, 0] += 120
    assert off_mm(weak, (60.0, 80.0)) < 8
    assert find_heart(weak, SPACING).confidence > CONFIDENT


def test_slices_above_and_below_the_heart_do_not_make_it_unsure() -> None:
    frames = beating(shape=(150, 170, 9))
    without = beating((400.0, 400.0), shape=(150, 170, 9))
    frames[:, :, [0, 7, 8]] = without[:, :, [0, 7, 8]]
    assert off_mm(frames, (60.0, 80.0)) < 5
    assert find_heart(frames, SPACING).confidence > 0.8


def test_a_field_of_view_smaller_than_the_crop_is_enough() -> None:
    frames = beating()[25:95, 45:115]
    assert off_mm(frames, (35.0, 35.0)) < 5
    assert find_heart(frames, SPACING).confidence > CONFIDENT


def test_the_extent_follows_the_heart_and_not_the_chest() -> None:
    """The disc moves within 25 mm; noise all over the chest adds nothing."""
    assert 15 < find_heart(beating(noise=2.0), SPACING).extent_mm < 35


def still() -> np.ndarray:
    frames = beating(noise=0)
    return np.stack([frames[..., 0], frames[..., 0]], axis=3)


def noise_only() -> np.ndarray:
    return np.random.default_rng(1).normal(100, 20, (150, 170, 6, 2))


def one_grey() -> np.ndarray:
    return np.full((150, 170, 6, 2), 7.0)


def not_finite() -> np.ndarray:
    frames = beating()
    frames[3, 4, 0, 0] = np.nan
    return frames


@pytest.mark.parametrize("frames", [still, noise_only, one_grey, not_finite], ids=lambda f: f.__name__)
def test_without_a_heart_there_is_no_confidence(frames) -> None:
    assert find_heart(frames(), SPACING).confidence < CONFIDENT


@pytest.mark.parametrize("shape", [(10, 10, 3), (10, 10, 3, 1), (0, 10, 3, 2)])
def test_frames_that_are_none_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected X x Y x Z x at least 2 frames"):
        find_heart(np.zeros(shape), SPACING)


def test_the_hearts_of_patients_are_found(shared: Path) -> None:
    """Every tenth patient of ACDC, of all classes; benchmarks/heart_place.py measures all of them."""
    database = shared / "real_cmr" / "acdc_raw" / "database"
    if not database.is_dir():
        pytest.skip("raw ACDC is not beside the repository")
    subjects = acdc.read(database)[0][1::10]
    distances, confidences = [], []
    for raw in subjects:
        stacks = load_stacks(raw, files_sha256([source.path for _, source in raw.sources()])[1])
        place = find_heart(np.stack([stacks.ed, stacks.es], axis=3), stacks.spacing)
        assert stacks.ed_labels is not None
        x, y = np.nonzero((stacks.ed_labels == LV).any(axis=2))
        middle = ((i.min() + i.max()) / 2 for i in (x, y))
        off = [(f - m) * s for f, m, s in zip(place.centre, middle, stacks.spacing, strict=False)]
        half = [(i.max() - i.min()) / 2 * s for i, s in zip((x, y), stacks.spacing, strict=False)]
        assert all(abs(o) + h < CROP_SIZE / 2 for o, h in zip(off, half, strict=True)), "the whole LV is in the crop"
        distances.append(np.hypot(*off))
        confidences.append(place.confidence)
    assert len(distances) == 10
    assert np.median(distances) < 10
    assert min(confidences) > CONFIDENT
