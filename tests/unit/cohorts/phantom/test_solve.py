import numpy as np
import pytest

from med_duallora.cohorts.phantom.anatomy import draw_anatomy
from med_duallora.cohorts.phantom.parameters import PATHOLOGIES
from med_duallora.cohorts.phantom.solve import (
    cavity_volume,
    myocardial_volume,
    rv_volume,
    solve_phases,
    wall_thickness,
)
from med_duallora.cohorts.phantom.streams import stream

# mean over ACDC's subjects of the largest slice mean of the wall in mm, at ED and ES
ACDC_WALL = {"NOR": (8.3, 13.3), "DCM": (8.6, 10.1), "HCM": (12.9, 19.9), "MINF": (9.1, 12.9), "RV": (7.4, 11.4)}


def draw(pathology: str, n: int):
    return [draw_anatomy(stream(2, 0, index, "anatomy"), pathology, borderline=False) for index in range(n)]


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_shapes_have_the_latent_volumes(pathology: str) -> None:
    for heart in draw(pathology, 12):
        ed, es = solve_phases(heart)
        assert cavity_volume(ed) == pytest.approx(heart.lv_edv, rel=1e-3)
        assert cavity_volume(es) == pytest.approx(heart.lv_esv, rel=1e-3)
        assert myocardial_volume(ed) == pytest.approx(heart.myocardium_ed, rel=1e-3)
        assert myocardial_volume(es) == pytest.approx(heart.myocardium_es, rel=1e-3)
        assert rv_volume(ed) == pytest.approx(heart.rv_edv, rel=1e-3)
        assert rv_volume(es) == pytest.approx(heart.rv_esv, rel=1e-3)


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_walls_are_as_thick_as_in_acdc(pathology: str) -> None:
    pairs = [solve_phases(heart) for heart in draw(pathology, 25)]
    for number, expected in enumerate(ACDC_WALL[pathology]):
        mean = np.mean([wall_thickness(pair[number])[0] for pair in pairs])
        assert mean == pytest.approx(expected, rel=0.18)


def test_the_base_descends_and_the_apex_hardly_moves() -> None:
    heart = draw("NOR", 1)[0]
    ed, es = solve_phases(heart)
    assert (ed.base - ed.apex) - (es.base - es.apex) == pytest.approx(heart.shortening)
    assert 0 < es.apex - ed.apex < 0.2 * heart.shortening
    assert ed.rv_base - es.rv_base == pytest.approx(heart.rv_shortening)


def test_phases_between_ed_and_es_lie_between() -> None:
    heart = draw("NOR", 1)[0]
    ed, middle, es = solve_phases(heart, (0.0, 0.5, 1.0))
    assert cavity_volume(middle) == pytest.approx((heart.lv_edv + heart.lv_esv) / 2, rel=1e-3)
    assert ed.wall > 0
    assert 0 < middle.contraction < es.contraction
