"""Another vendor's look over finished images: alike in ED and ES, and nothing where nothing was scanned."""

from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.phantom.appearance import Appearance, draw_appearance
from med_duallora.cohorts.phantom.parameters import VENDOR_APPEARANCE
from med_duallora.cohorts.phantom.rescan import contrast, rescanned
from med_duallora.cohorts.phantom.streams import stream

OWN = VENDOR_APPEARANCE["siemens"]
BLOOD, MYOCARDIUM, BORDER = 200, 48, 20  # grey values, and mm beside the scanned field


def look(vendor: str = "ge", **changes) -> Appearance:
    return replace(draw_appearance(stream(0, 0, 0, "vendor"), VENDOR_APPEARANCE[vendor]), **changes)


def heart(radius: float) -> np.ndarray:
    """A ring of muscle around blood in a scanned field that is smaller than the image; uint8 (160, 140, 3)."""
    x, y = np.mgrid[:160, :140] - np.array([79.5, 69.5])[:, None, None]
    plane = np.where(np.hypot(x, y) < radius, BLOOD, np.where(np.hypot(x, y) < 40, MYOCARDIUM, 110))
    plane[:BORDER] = 0
    return np.repeat(plane[..., None], 3, axis=2).astype(np.uint8)


def scanned(ed: np.ndarray, es: np.ndarray, **changes) -> np.ndarray:
    return rescanned(np.stack([ed, es]), look(**changes), OWN, np.random.default_rng(5))


def blocks(image: np.ndarray) -> np.ndarray:
    """Means over blocks of 10 x 10 x 3 voxels."""
    return image.astype(float).reshape(16, 10, 14, 10, 3).mean(axis=(1, 3, 4))


def test_ed_and_es_are_changed_alike_but_for_their_noise() -> None:
    ed, es = scanned(heart(30), heart(30))
    noise = ed.astype(float) - es
    assert noise.std() > 1, "two acquisitions do not share their noise"
    assert np.abs(blocks(ed) - blocks(es)).max() < 6 * noise.std() / np.sqrt(300)
    assert np.abs(blocks(ed) - blocks(heart(30))).mean() > 10, "and both have changed"


def test_both_frames_are_scaled_with_one_window() -> None:
    """A preparation scales each frame by itself; here a difference of the frames must stay what it was."""
    ed, es = scanned(heart(30), heart(22), snr=1e6)
    unmoved = np.s_[60:, :20]
    assert np.abs(ed[unmoved].astype(int) - es[unmoved]).max() <= 1
    assert ed[79 + 26, 69, 1] > es[79 + 26, 69, 1] + 50, "the wall that moved in"


def test_layout_stays_and_so_does_what_was_not_scanned() -> None:
    volume = np.stack([heart(30), heart(22)])
    volume[..., 2] = 0
    found = rescanned(volume, look(), OWN, np.random.default_rng(5))
    assert (found.dtype, found.shape) == (np.uint8, volume.shape)
    assert not found[:, :BORDER].any(), "outside the scanned field"
    assert not found[..., 2].any(), "an empty slice"
    assert found.max() == 255
    assert (found[:, BORDER:, :, :2] > 0).mean() > 0.9


def test_dark_voxels_inside_the_field_have_noise() -> None:
    volume = np.stack([heart(30), heart(30)])
    volume[:, 100:110, 20:30, 1] = 0
    found = rescanned(volume, look(snr=10.0), OWN, np.random.default_rng(5))
    assert found[:, 102:108, 22:28, 1].std() > 1


@pytest.mark.parametrize(("myocardium", "expected"), [(0.24, 0.24), (0.38, 0.38), (0.15, 0.15)])
def test_the_contrast_moves_the_usual_myocardium_to_that_of_the_look(myocardium: float, expected: float) -> None:
    assert OWN.myocardium[0] ** contrast(look(myocardium=myocardium), OWN) == pytest.approx(expected)
    plain = {"coil": 0.0, "banding": (0.0, 100.0, 0.0, 0.0), "snr": 1e6, "blur_mm": 0.1, "blood_level": 1000.0}
    ed, _ = scanned(heart(30), heart(30), myocardium=myocardium, **plain)
    # the image's darkest and brightest voxels become 0 and 255, so the third tissue tells the exponent
    dark, middle = (level ** contrast(look(myocardium=myocardium), OWN) for level in (MYOCARDIUM / BLOOD, 110 / BLOOD))
    assert ed[79, 69, 1] == 255
    assert ed[140, 10, 1] == pytest.approx(255 * middle, abs=2), "the field beside the image keeps 0 where it was"
    assert ed[79, 104, 1] == pytest.approx(255 * dark, abs=2)


def test_the_coil_makes_one_side_brighter() -> None:
    ed, _ = scanned(heart(30), heart(30), coil=1.2, coil_angle=0.0, snr=1e6)
    assert ed[150, 70, 1] > 1.3 * ed[25, 70, 1]


def test_an_image_without_contrast_stays_whole() -> None:
    assert not rescanned(np.zeros((2, 16, 16, 3), np.uint8), look(), OWN, np.random.default_rng(0)).any()
