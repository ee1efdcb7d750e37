import numpy as np
import pytest
import torch

from med_duallora.backbone import BackboneConfig, inputs
from med_duallora.backbone.inputs import augment, fit_length, to_input, to_unit_range
from med_duallora.errors import CohortError
from med_duallora.settings.config import AugmentConfig

MINI = BackboneConfig.preset("cinema-mini")
BASE = BackboneConfig.preset("cinema-base")
ALWAYS = AugmentConfig(probability=1.0)


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def volume_of(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, *shape), dtype=np.uint8)


@pytest.mark.parametrize(
    ("config", "shape", "reason"),
    [
        (BASE, (192, 192, 16), "already the input's size"),
        (BASE, (150, 192, 9), "x narrower than the field of view, few slices"),
        (MINI, (192, 192, 10), "the usual prepared volume"),
        (MINI, (131, 201, 18), "odd sizes, y wider, more slices than the input has"),
        (MINI, (1, 1, 1), "smallest possible"),
    ],
)
def test_input_has_the_backbones_shape_type_and_range(config, shape, reason):
    x = to_input(volume_of(*shape), config)
    assert x.shape == (2, *config.image_size)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert x.min() >= 0
    assert x.max() <= 1


def test_base_input_is_the_image_over_255_with_zeros_at_the_end():
    volume = volume_of(180, 192, 9)
    x = to_input(volume, BASE)
    assert np.array_equal(x[:, :180, :, :9], volume / np.float32(255))
    assert not x[:, 180:].any()
    assert not x[..., 9:].any()


def test_mini_input_is_the_mean_of_two_by_two_pixels():
    volume = volume_of(192, 192, 16)
    x = to_input(volume, MINI)
    # the field of view is 128 mm and 14 slices around the centre: 32 pixels and one slice go on either side
    expected = volume[1, 42:44, 52:54, 4].astype(float).mean() / 255
    assert x[1, 5, 10, 3] == pytest.approx(expected, abs=1e-6)


def test_longer_axes_are_cropped_around_their_centre():
    volume = volume_of(200, 192, 19)
    assert np.array_equal(to_input(volume, BASE), to_input(volume[:, 4:196, :, 1:17], BASE))


def test_fit_length_keeps_a_fitting_axis():
    volume = volume_of(4, 5, 6)
    assert fit_length(volume, 2, 5) is volume


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (np.zeros((192, 192, 10), np.uint8), r"shape \(192, 192, 10\)"),
        (np.zeros((3, 192, 192, 10), np.uint8), r"must be \(2, X, Y, Z\)"),
        (np.zeros((2, 192, 192, 0), np.uint8), "not empty"),
        (np.zeros((2, 8, 8, 4), np.int16), "type int16"),
        (np.full((2, 8, 8, 4), 1.5, np.float32), "values from 1.5"),
        (np.full((2, 8, 8, 4), np.nan, np.float32), "nan"),
    ],
    ids=["three axes", "three frames", "no slice", "not prepared", "above 1", "not a number"],
)
def test_unusable_volume_is_refused(volume, message):
    with pytest.raises(CohortError, match=message):
        to_input(volume, MINI)


def test_augment_depends_on_its_generator_alone():
    volume = volume_of(64, 60, 5)
    first = augment(volume, ALWAYS, np.random.default_rng(7))
    torch.manual_seed(1)
    np.random.seed(1)
    assert np.array_equal(first, augment(volume, ALWAYS, np.random.default_rng(7)))
    assert not np.array_equal(first, augment(volume, ALWAYS, np.random.default_rng(8)))


def test_augment_takes_the_same_number_of_draws_whatever_happens():
    volume = volume_of(16, 16, 2)
    streams = [np.random.default_rng(3) for _ in range(2)]
    for stream, probability in zip(streams, (0.0, 1.0), strict=True):
        augment(volume, AugmentConfig(probability=probability), stream)
    assert streams[0].random() == streams[1].random()


def test_augment_without_a_change_is_the_unit_range_image():
    volume = volume_of(16, 16, 2)
    found = augment(volume, AugmentConfig(probability=0.0), np.random.default_rng(0))
    assert np.array_equal(found, to_unit_range(volume))


def test_augment_changes_both_frames_alike():
    volume = volume_of(48, 48, 3)
    volume[1] = volume[0]
    found = augment(volume, ALWAYS, np.random.default_rng(5))
    assert found.dtype == np.float32
    assert found.shape == volume.shape
    assert np.allclose(found[0], found[1], atol=1e-6)
    assert not np.allclose(found, to_unit_range(volume), atol=0.1)


def test_quarter_turn_moves_a_pixel_within_its_slice():
    volume = np.zeros((2, 33, 33, 3), np.uint8)
    volume[:, 24, 16, 1] = 255
    still = AugmentConfig(probability=1.0, gamma=(1.0, 1.0), shift_mm=0.0, scale=0.0, rotation_degrees=90.0)

    class LargestDraw(np.random.Generator):
        def uniform(self, low=0.0, high=1.0, size=None):
            return np.full(size, max(low, high)) if size else max(low, high)

    found = augment(volume, still, LargestDraw(np.random.PCG64(0)))
    place = tuple(int(i) for i in np.unravel_index(found[0].argmax(), found[0].shape))
    assert place in {(16, 24, 1), (16, 8, 1)}
    assert found[0].max() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_the_random_changes_are_monai_s(seed):
    """CineMA trains with MONAI's transforms; loading them takes longer than a small site needs for a round."""
    from monai.transforms import AdjustContrast, Affine

    rng = np.random.default_rng(seed)
    volume = rng.random((2, 40, 36, 5), dtype=np.float32)
    gamma, angle, zoom, shift = rng.uniform(0.5, 1.5), rng.uniform(-3, 3), rng.uniform(0.9, 1.1), rng.uniform(-9, 9, 2)
    slices = volume.transpose(0, 3, 1, 2).reshape(10, 40, 36)
    theirs = Affine(
        rotate_params=angle,
        translate_params=tuple(shift.tolist()),
        scale_params=(zoom, zoom),
        padding_mode="zeros",
        image_only=True,
    )
    moved = theirs(slices).numpy().reshape(2, 5, 40, 36).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(inputs._move(volume, angle, shift, zoom), moved, rtol=0, atol=1e-6)
    brighter = AdjustContrast(gamma=gamma)(volume).numpy()
    np.testing.assert_allclose(inputs._adjust_contrast(volume, gamma), brighter, rtol=0, atol=1e-6)
