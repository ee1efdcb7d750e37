import numpy as np
import pytest

from med_duallora.backbone import BackboneConfig
from med_duallora.errors import CohortError
from med_duallora.pretraining.data import ViewConfig, VolumePool, find_cohorts

TINY = BackboneConfig.preset("cinema-tiny")


def test_pool_reads_every_cohort_of_a_folder(tiny_cohorts):
    folder = next(iter(tiny_cohorts.values())).parent
    pool = VolumePool.load(folder, TINY)
    assert len(pool.volumes) == 40
    assert {v.shape for v in pool.volumes} == {(2, 32, 32, 4)}
    assert {v.dtype for v in pool.volumes} == {np.dtype(np.uint8)}


def test_pool_of_one_cohort_and_its_hash(tiny_cohorts):
    first, second = list(tiny_cohorts.values())[:2]
    assert len(VolumePool.load(first, TINY).volumes) == 10
    # the fixture's cohorts name the same sources, but hold other voxels
    assert VolumePool.load(first, TINY).content == VolumePool.load(first, TINY).content
    assert VolumePool.load(first, TINY).content != VolumePool.load(second, TINY).content
    assert VolumePool.load(first, TINY).content != VolumePool.load(first.parent, TINY).content


def test_folder_without_a_cohort_is_refused(tmp_path):
    with pytest.raises(CohortError, match="holds no prepared cohort"):
        find_cohorts(tmp_path)


def test_split_holds_the_last_subjects_out(pool):
    train, held_out = pool.split(2)
    assert len(train.volumes) == 4
    assert held_out.volumes == pool.volumes[4:]
    with pytest.raises(CohortError, match="too few"):
        pool.split(6)


def test_plain_is_one_pair_or_two_single_frames(pool):
    pair, single = pool.plain(0, "pair"), pool.plain(0, "single")
    assert pair.shape == (1, 2, *TINY.image_size)
    assert single.shape == (2, 1, *TINY.image_size)
    assert np.array_equal(pair[0], single[:, 0])
    # five slices are cropped to four
    assert np.allclose(pair[0, 0, ..., 0], pool.volumes[0][0, ..., 0] / 255)


def test_draw_depends_on_its_generator_alone(pool):
    draws = [pool.draw(0, ViewConfig(), np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].shape == (2, *TINY.image_size)
    assert draws[0].dtype == np.float32


def disc_areas(image: np.ndarray) -> tuple[int, ...]:
    return tuple(int((frame[:, :, 0] > 0.5).sum()) for frame in image)


def test_a_pair_is_changed_alike_and_keeps_its_order(pool):
    still = ViewConfig(gamma_probability=0.0, shift=0)
    areas = {disc_areas(pool.draw(0, still, np.random.default_rng(seed))) for seed in range(10)}
    assert len(areas) == 1
    ed, es = areas.pop()
    assert ed > es


def test_both_single_frames_are_drawn(pool):
    still = ViewConfig(frames="single", gamma_probability=0.0, shift=0)
    draws = [pool.draw(0, still, np.random.default_rng(seed)) for seed in range(20)]
    assert {draw.shape for draw in draws} == {(1, *TINY.image_size)}
    assert len({disc_areas(draw) for draw in draws}) == 2


def test_slices_are_not_dropped_from_a_short_stack(pool):
    volume = pool.volumes[0][..., :4]
    short = VolumePool((volume,), TINY.image_size, pool.content)
    for seed in range(8):
        assert (short.draw(0, ViewConfig(shift=0), np.random.default_rng(seed))[0].max((0, 1)) > 0).all()


def test_volume_that_is_not_square_keeps_its_shape():
    volume = np.zeros((2, 32, 48, 4), np.uint8)
    pool = VolumePool((volume,), (32, 48, 4), "0" * 64)
    assert all(pool.draw(0, ViewConfig(), np.random.default_rng(s)).shape == (2, 32, 48, 4) for s in range(8))
