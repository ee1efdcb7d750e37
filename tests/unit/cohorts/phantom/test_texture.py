import numpy as np
import pytest

from med_duallora.cohorts.phantom.texture import blend, darken, smooth_noise, soft


@pytest.mark.parametrize(
    ("distance", "coverage", "reason"),
    [(-2.0, 0.0, "outside"), (-0.5, 0.25, "just outside"), (0.0, 0.5, "on the edge"), (5.0, 1.0, "inside")],
)
def test_edges_are_soft(distance: float, coverage: float, reason: str) -> None:
    assert soft(np.array([distance], np.float32), 2.0)[0] == pytest.approx(coverage), reason


def test_blending_mixes_in_place() -> None:
    signal = np.array([1.0, 1.0, 1.0], np.float32)
    blend(signal, 3.0, np.array([0.0, 0.5, 1.0], np.float32))
    assert signal == pytest.approx([1, 2, 3])


def test_a_dark_line_is_darkest_at_its_middle() -> None:
    signal = np.ones(3, np.float32)
    darken(signal, np.array([0.0, 1.0, 30.0], np.float32), 0.6, 1.0)
    assert signal[0] == pytest.approx(0.4)
    assert signal[0] < signal[1] < signal[2]
    assert signal[2] == pytest.approx(1.0, abs=0.01)


def test_noise_is_smooth_in_plane_and_new_in_every_slice() -> None:
    noise = smooth_noise(np.random.default_rng(0), (30, 64, 48), 12.0, 1.5)
    assert noise.shape == (30, 64, 48)
    assert 0.5 < noise.std() < 1.1
    assert np.abs(np.diff(noise, axis=1)).mean() < 0.25 * noise.std()
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.5
