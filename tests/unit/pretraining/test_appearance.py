import dataclasses

import numpy as np
import pytest
import torch

from med_duallora.pretraining.appearance import AppearanceConfig, random_view
from tests.unit.refused import refused

NOTHING = AppearanceConfig(rotation_degrees=0, shift=0, gamma=0, field=0, noise=0, blur=0, bend=0, texture=0, tissue=0)
SIZE = (32, 32)


@pytest.fixture
def disc():
    """A bright disc of radius 10 in the middle of 48 x 48 pixels, a smaller one in the second frame; six slices."""
    x, y = np.mgrid[:48, :48] - 23.5
    frames = [np.where(np.hypot(x, y) < radius, 0.8, 0.1) for radius in (10, 6)]
    return torch.from_numpy(np.stack([np.repeat(frame[..., None], 6, 2) for frame in frames]).astype(np.float32))


def view(volume, seed=0, **changes):
    return random_view(volume, volume[:0], SIZE, dataclasses.replace(NOTHING, **changes), np.random.default_rng(seed))[
        0
    ]


def area(image):
    return float((image > 0.45).sum())


def test_without_any_change_the_middle_is_cut_out(disc):
    assert torch.allclose(view(disc), disc[:, 8:40, 8:40], atol=1e-5)


def test_the_same_generator_gives_the_same_view(disc):
    views = [random_view(disc, disc, SIZE, AppearanceConfig(), np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


@pytest.mark.parametrize("seed", range(6))
def test_maps_are_moved_as_the_volume_is_and_keep_their_values(disc, seed):
    strong = dataclasses.replace(AppearanceConfig(), blur=0.0, noise=0.0, shift=5.0)
    moves = dataclasses.replace(NOTHING, rotation_degrees=180, shift=5, bend=1.5)
    for config, same in ((moves, True), (strong, False)):
        changed, maps = random_view(disc, disc, SIZE, config, np.random.default_rng(seed))
        assert maps.shape == (2, *SIZE, 6)
        assert torch.equal(maps, changed) is same
        assert float(maps.max()) == pytest.approx(0.8, abs=0.01)
    inside = changed[1] > changed[1].amax() * 0.6
    assert float(maps[1][inside].mean()) > float(maps[1][~inside].mean())


def test_each_tissue_has_a_brightness_of_its_own_alike_in_both_frames():
    volume = torch.full((2, 48, 48, 4), 0.4)
    maps = torch.zeros(4, 48, 48, 4)  # two labels at each of two frames
    maps[0, 10:20], maps[1, 24:34], maps[2, 10:20], maps[3, 24:34] = 1, 1, 1, 1
    config = dataclasses.replace(NOTHING, tissue=0.3)
    view, _ = random_view(volume, maps, SIZE, config, np.random.default_rng(0))
    left, right, outside = view[:, 4:10], view[:, 18:24], view[:, 28:]
    assert torch.allclose(view[0], view[1])
    assert torch.allclose(outside, torch.tensor(0.4), atol=1e-5)
    assert float(left.std()) < 1e-5
    assert float(right.std()) < 1e-5
    assert len({round(float(part.mean()), 3) for part in (left, right, outside)}) == 3


@pytest.mark.parametrize("seed", range(8))
def test_the_strongest_change_stays_an_image(disc, seed):
    strongest = AppearanceConfig(shift=30, gamma=3, field=3, noise=1, blur=4)
    changed, _ = random_view(disc, disc[:0], SIZE, strongest, np.random.default_rng(seed))
    assert changed.shape == (2, *SIZE, 6)
    assert changed.dtype == torch.float32
    assert torch.isfinite(changed).all()
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_turns_mirrors_and_shifts_keep_areas(disc, seed):
    disc[:, :, 28:] = disc[:, :, 28:] * 0.9 + 0.05  # no symmetry left
    moved = view(disc, seed, rotation_degrees=180, shift=3)
    for frame in range(2):
        assert area(moved[frame]) == pytest.approx(area(disc[frame]), rel=0.06)


def test_a_turned_view_brings_no_black_corner_in(disc):
    assert min(float(view(disc, seed, rotation_degrees=180).min()) for seed in range(20)) == pytest.approx(
        0.1, abs=1e-3
    )


def test_a_shift_is_at_most_as_long_as_asked(disc):
    x = torch.arange(32, dtype=torch.float32)
    for seed in range(10):
        inside = view(disc, seed, shift=5)[0, :, :, 0] > 0.45
        for axis in (0, 1):
            centre = float((inside.sum(1 - axis) * x).sum() / inside.sum())
            assert abs(centre - 15.5) < 5.3


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.45},
        {"field": 0.3},
        {"noise": 0.06},
        {"blur": 2.0},
        {"shift": 5.0},
        {"rotation_degrees": 90.0},
        {"bend": 1.5},
        {"texture": 0.4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_changes_something_by_itself(disc, change):
    disc[:, :8] = 0.5
    assert any(not torch.allclose(view(disc, seed, **change), view(disc, seed), atol=1e-3) for seed in range(6))


@pytest.mark.parametrize("change", [{"gamma": 1.0}, {"field": 1.0}])
def test_contrast_and_coil_are_the_same_in_both_frames(disc, change):
    disc[1] = disc[0]
    changed = view(disc, 3, **change)
    assert torch.allclose(changed[0], changed[1])


def test_a_bend_is_the_same_in_all_slices_and_frames_and_keeps_areas_roughly(disc):
    disc[1] = disc[0]
    changed = view(disc, 3, bend=3.0)
    assert torch.equal(changed[0], changed[1])
    assert torch.equal(changed[..., 0], changed[..., 5])
    assert not torch.allclose(changed, view(disc), atol=0.05)
    areas = [area(view(disc, seed, bend=1.5)[0]) / area(disc[0]) for seed in range(20)]
    assert np.mean(areas) == pytest.approx(1, abs=0.03)


def test_texture_is_another_one_in_each_slice_and_frame_and_only_fine(disc):
    disc[:] = 0.5
    changed = view(disc, 3, texture=0.4)
    assert not torch.allclose(changed[0], changed[1], atol=0.02)
    assert not torch.allclose(changed[..., 0], changed[..., 1], atol=0.02)
    coarse = torch.nn.functional.avg_pool2d(changed.permute(0, 3, 1, 2), 16)
    assert float(coarse.std()) < 0.5 * float(changed.std())


def test_noise_is_another_one_in_each_frame(disc):
    disc[1] = disc[0]
    changed = view(disc, 3, noise=0.5)
    assert not torch.allclose(changed[0], changed[1], atol=0.01)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("rotation_degrees", 180),
        ("shift", 64),
        ("gamma", 3),
        ("field", 3),
        ("noise", 1),
        ("blur", 4),
        ("bend", 8),
        ("texture", 3),
        ("tissue", 3),
    ],
)
@pytest.mark.parametrize("value", [-0.1, 1e3, float("nan")])
def test_an_impossible_range_is_refused(name, most, value):
    with refused(f"pretrain.appearance.{name}", limit=f"between 0 and {most}"):
        AppearanceConfig(**{name: value})
