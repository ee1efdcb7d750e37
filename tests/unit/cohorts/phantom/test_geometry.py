from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.phantom.anatomy import TERRITORIES, draw_anatomy
from med_duallora.cohorts.phantom.geometry import N_ANGLES, angles, infarct, motion, outline, wall_shape, wrapped
from med_duallora.cohorts.phantom.solve import solve_phases
from med_duallora.cohorts.phantom.streams import stream

MID = np.array([[0.5]])


def heart(pathology: str = "NOR", index: int = 0):
    return draw_anatomy(stream(4, 0, index, "anatomy"), pathology, borderline=False)


@pytest.mark.parametrize("pathology", ["NOR", "DCM", "HCM", "MINF", "RV"])
def test_layers_are_nested(pathology: str) -> None:
    for phase in solve_phases(heart(pathology)):
        layers = phase.layers(np.linspace(-20, 130, 60))
        assert (layers.endo <= layers.epi).all()
        assert (layers.epi <= layers.rv).all()
        assert (layers.rv <= layers.outer).all()


def test_the_heart_is_closed_below_the_apex_and_the_rv_above_its_base() -> None:
    ed, _ = solve_phases(heart())
    assert ed.layers(np.array([-1.0])).endo.max() == 0
    assert ed.layers(np.array([-1.0])).epi.min() > 0
    assert ed.layers(np.array([-40.0])).outer.max() == 0
    above = ed.layers(np.array([ed.rv_base + 1]))
    assert (above.rv == above.epi).all()


def test_the_rv_lies_over_the_septum() -> None:
    ed, _ = solve_phases(heart())
    layers = ed.layers(np.array([0.6 * ed.base]))
    depth = (layers.rv - layers.epi)[0]
    assert depth[N_ANGLES // 2] > 10
    assert depth[0] == 0  # nothing over the lateral wall


@pytest.mark.parametrize(("given", "expected"), [(0.0, 0.0), (np.pi, -np.pi), (2 * np.pi, 0.0), (-4.0, 2 * np.pi - 4)])
def test_angles_wrap(given: float, expected: float) -> None:
    assert wrapped(np.array(given)) == pytest.approx(expected)


@pytest.mark.parametrize("territory", TERRITORIES)
def test_an_infarct_is_thin_and_hardly_moves(territory: str) -> None:
    ill = replace(heart("MINF"), territory=territory)
    inside = infarct(ill, MID)[0] > 0.9
    outside = infarct(ill, MID)[0] < 0.1
    assert 0.2 < inside.mean() < 0.5
    assert motion(ill, MID)[0][inside].mean() < 0.4 * motion(ill, MID)[0][outside].mean()
    healthy = replace(ill, thinning=0.0)
    assert (wall_shape(ill, MID)[0][inside] < 0.95 * wall_shape(healthy, MID)[0][inside]).all()


def test_pressure_flattens_the_septum() -> None:
    ill = heart("RV")
    septum = int(np.argmin(np.abs(wrapped(angles() - ill.rv_angle))))
    assert outline(ill, 0.2)[0, septum] == pytest.approx(outline(ill, 0.0)[0, septum] - 0.2)


def test_a_hypertrophic_septum_is_thicker_than_the_wall_opposite() -> None:
    ill = replace(heart("HCM"), asymmetry=0.6)
    shape = wall_shape(ill, np.array([[ill.asymmetry_level]]))[0]
    septal = int(np.argmin(np.abs(wrapped(angles() - ill.asymmetry_angle))))
    assert shape[septal] > 1.2 * shape[(septal + N_ANGLES // 2) % N_ANGLES]
