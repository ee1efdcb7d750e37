import numpy as np

from med_duallora.cohorts.phantom.body import draw_body
from med_duallora.cohorts.phantom.streams import stream


def test_a_body_repeats_and_bodies_differ() -> None:
    first, again, other = (draw_body(stream(0, 0, index, "body")) for index in (1, 1, 2))
    assert first.chest_radii == again.chest_radii
    assert np.array_equal(first.vessels, again.vessels)
    assert first.chest_radii != other.chest_radii


def test_people_are_plausible() -> None:
    people = [draw_body(stream(0, 0, index, "body")).person for index in range(100)]
    assert {sex for _, sex, _, _ in people} == {"M", "F"}
    for age, _, height, weight in people:
        assert 18 <= age <= 85
        assert 148 <= height <= 198
        assert 18 <= weight / (height / 100) ** 2 + 0.5 <= 39


def test_lung_vessels_keep_clear_of_the_heart_and_thin_out() -> None:
    vessels = draw_body(stream(0, 0, 0, "body")).vessels
    reach = np.hypot(vessels[:, 0], vessels[:, 1])
    assert reach.min() > 45
    near = vessels[reach < np.median(reach), 3].mean()
    assert near > vessels[reach >= np.median(reach), 3].mean()
