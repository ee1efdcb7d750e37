from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.phantom.appearance import FWHM_PER_SD, MAX_GREY, acquire, draw_appearance, receive_field
from med_duallora.cohorts.phantom.parameters import VENDOR_APPEARANCE, VENDORS
from med_duallora.cohorts.phantom.streams import stream


def look(vendor: str = "siemens", **changes):
    return replace(draw_appearance(stream(0, 0, 0, "vendor"), VENDOR_APPEARANCE[vendor]), **changes)


def scan(signal: np.ndarray, **changes) -> np.ndarray:
    settings = {"snr": 25.0, "blood_level": 500.0, "blur_mm": 2.0, **changes}
    return acquire(
        signal.astype(np.float32), np.ones(signal.shape[1:]), look(**settings), 1.0, np.random.default_rng(0)
    )


def test_blood_has_its_level_and_its_noise() -> None:
    image = scan(np.ones((4, 60, 60)))
    assert image.dtype == np.int16
    assert image.mean() == pytest.approx(500, rel=0.01)
    assert image.std() == pytest.approx(500 / 25, rel=0.05)


def test_air_has_rayleigh_noise() -> None:
    image = scan(np.zeros((4, 60, 60)))
    assert image.mean() == pytest.approx(500 / 25 * np.sqrt(np.pi / 2), rel=0.05)


def test_a_point_is_blurred_to_the_stated_width() -> None:
    signal = np.zeros((1, 61, 61))
    signal[0, 30, 30] = 100.0
    image = scan(signal, snr=1e6, blur_mm=4.0).astype(float)[0]
    profile = image[:, 30]
    x = np.arange(61) - 30
    sd = np.sqrt((profile * x**2).sum() / profile.sum())
    assert sd * FWHM_PER_SD == pytest.approx(4.0, rel=0.1)


def test_grey_values_stay_in_range() -> None:
    image = scan(np.full((1, 20, 20), 100.0))
    assert image.max() == MAX_GREY


def field(**changes) -> np.ndarray:
    u, v = np.meshgrid(np.linspace(-100, 100, 41), np.linspace(-100, 100, 41), indexing="ij")
    return receive_field(u, v, look(banding=(0.0, 100.0, 0.0, 0.0), coil_angle=-np.pi, **changes))


def test_the_coil_brightens_its_side_and_leaves_the_heart() -> None:
    strong, none = field(coil=1.1), field(coil=0.0)
    assert strong[20, 20] == pytest.approx(1.0)
    assert strong[0, 20] > 1.3
    assert strong[40, 20] < 0.7
    assert none == pytest.approx(np.ones_like(none))


def test_bands_are_dark() -> None:
    u, v = np.meshgrid(np.linspace(-100, 100, 201), [0.0], indexing="ij")
    bands = receive_field(u, v, look(coil=0.0, banding=(0.3, 100.0, 0.0, 0.0)))
    assert bands.max() == pytest.approx(1.0)
    assert bands.min() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("vendor", VENDORS)
def test_draws_follow_the_vendor_s_table(vendor: str) -> None:
    table = VENDOR_APPEARANCE[vendor]
    looks = [draw_appearance(stream(0, 0, index, "vendor"), table) for index in range(300)]
    assert np.mean([item.myocardium for item in looks]) == pytest.approx(table.myocardium[0], abs=0.02)
    assert np.mean([item.snr for item in looks]) == pytest.approx(table.snr[0], rel=0.1)
    assert np.mean([item.ink > 0 for item in looks]) == pytest.approx(table.ink_probability, abs=0.08)
    assert {item.scanner for item in looks} == set(range(len(table.scanners)))
