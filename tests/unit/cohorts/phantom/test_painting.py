from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from med_duallora.cohorts.phantom import Identity, draw_subject, heart, painting, surroundings
from med_duallora.cohorts.phantom.heart import LV, MYOCARDIUM, RV, heart_box, label_heart
from med_duallora.cohorts.phantom.painting import paint_heart
from med_duallora.cohorts.phantom.solve import solve_phases
from med_duallora.cohorts.phantom.subject import scene_of
from med_duallora.cohorts.phantom.surroundings import paint_body
from tests.unit.cohorts.phantom.conftest import coarse


@pytest.fixture(scope="module")
def painted() -> dict[str, Any]:
    """Signal, labels and body of one heart at ED, before the scanner."""
    phantom = draw_subject(Identity(0, 0, 0, "siemens", "NOR"))
    phantom = replace(phantom, pose=replace(phantom.pose, apex_first=True))
    scene, texture = scene_of(phantom.pose), phantom.identity.stream("texture")
    body = paint_body(scene, phantom.body, phantom.look, texture)
    box = heart_box(scene, phantom.anatomy, texture)
    ed, _ = solve_phases(phantom.anatomy)
    labels = np.zeros(body.shape, np.uint8)
    labels[box.window] = label_heart(box, ed)
    signal = paint_heart(body, box, ed, phantom.look, phantom.pose.slice_thickness)
    return {"body": body, "labels": labels, "signal": signal, "look": phantom.look, "z": scene.z, "base": ed.base}


def test_structures_have_their_signal(painted) -> None:
    signal, labels, look = painted["signal"], painted["labels"], painted["look"]
    assert np.median(signal[labels == LV]) == pytest.approx(1.0, abs=0.1)
    assert np.median(signal[labels == RV]) == pytest.approx(1.0, abs=0.15)
    assert np.median(signal[labels == MYOCARDIUM]) == pytest.approx(look.myocardium, abs=0.08)


def test_papillary_muscles_count_as_cavity(painted) -> None:
    """As in ACDC's and M&Ms' segmentations: dark places inside the cavity's label."""
    inside = painted["signal"][painted["labels"] == LV]
    assert 0.01 < (inside < 0.6).mean() < 0.3


def test_the_wall_encloses_the_cavity_and_the_septum_parts_both_bloods(painted) -> None:
    labels = painted["labels"][len(painted["labels"]) // 2]
    for x, y in np.argwhere(labels == LV):
        around = labels[x - 1 : x + 2, y - 1 : y + 2]
        assert not (around == RV).any()
        assert not (around == 0).any()


def test_labels_end_at_the_valves_where_blood_goes_on(painted) -> None:
    above = painted["z"] > painted["base"] + 12
    assert above.any()
    assert not (painted["labels"][above] == LV).any()
    assert (painted["signal"][above] > 0.8).any()


def test_the_heart_changes_the_body_nowhere_else(painted) -> None:
    changed = np.abs(painted["signal"] - painted["body"]).max(axis=(1, 2)) > 0
    assert changed.any()
    edges = np.abs(painted["signal"] - painted["body"])[:, [0, -1]]
    assert edges.max() == 0


def test_the_body_has_air_fat_and_lung(painted) -> None:
    body, look = painted["body"], painted["look"]
    assert body.min() == 0
    assert (body < 0.2).mean() > 0.3  # lung and air
    assert ((body > 0.8 * look.fat) & (body < 1.3 * look.fat)).mean() > 0.03


@pytest.mark.parametrize(("vendor", "ink"), [("siemens", 0.0), ("philips", 0.7)])
def test_painting_only_where_something_is_leaves_nothing_out(vendor: str, ink: float, monkeypatch) -> None:
    """The parts of a slice that are painted change no voxel: whole slices give the same to the bit."""
    parts = _rendered(vendor, ink)
    everywhere = (slice(None), slice(None))
    for module, name in ((surroundings, "part_around"), (heart, "part_around"), (painting, "part_over")):
        monkeypatch.setattr(module, name, lambda *_: everywhere)
    monkeypatch.setattr(surroundings, "parts_around", lambda _u, _v, _mm, centres, _reach: [everywhere] * len(centres))
    monkeypatch.setattr(surroundings, "_box_of", lambda _: (slice(None), *everywhere))
    monkeypatch.setattr(surroundings, "_certain", lambda inside, *_: (np.zeros_like(inside, bool),) * 2)
    assert np.array_equal(parts, _rendered(vendor, ink))


def _rendered(vendor: str, ink: float) -> Any:
    """The signal of a heart at ES in its body, before the scanner."""
    phantom = coarse(draw_subject(Identity(3, 0, 1, vendor, "DCM")))
    look, scene = replace(phantom.look, ink=ink), scene_of(phantom.pose)
    texture = phantom.identity.stream("texture")
    body = paint_body(scene, phantom.body, look, texture)
    box = heart_box(scene, phantom.anatomy, texture)
    (es,) = solve_phases(phantom.anatomy, (1.0,))
    return paint_heart(body, box, es, look, phantom.pose.slice_thickness)
