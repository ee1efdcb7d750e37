import numpy as np
import pytest

from med_duallora.cohorts.phantom.anatomy import draw_anatomy
from med_duallora.cohorts.phantom.parameters import CLASS_ANATOMY, CRITERIA, PATHOLOGIES
from med_duallora.cohorts.phantom.streams import stream

N = 300


def draw(pathology: str, borderline: bool, n: int = N):
    return [draw_anatomy(stream(0, 0, index, "anatomy"), pathology, borderline) for index in range(n)]


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_marked_disease_follows_its_table(pathology: str) -> None:
    hearts, table = draw(pathology, borderline=False), CLASS_ANATOMY[pathology]
    for name in ("lv_edv", "lv_ef", "rv_edv", "rv_ef"):
        mean, sd = getattr(table, name)
        # the class's criteria shift means by a fraction of the sd
        assert np.mean([getattr(heart, name) for heart in hearts]) == pytest.approx(mean, abs=0.35 * sd), name
    mean, sd = table.myocardium
    assert np.mean([heart.myocardium_ed for heart in hearts]) == pytest.approx(mean, abs=0.35 * sd)


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_marked_disease_meets_its_criteria(pathology: str) -> None:
    met = 0
    for heart in draw(pathology, borderline=False):
        values = (heart.lv_ef, heart.rv_ef, heart.rv_edv / heart.lv_edv, heart.myocardium_ed / heart.lv_edv)
        met += all(low <= value <= high for value, (low, high) in zip(values, CRITERIA[pathology], strict=True))
    assert met > 0.97 * N  # a few have used up their candidates


@pytest.mark.parametrize(
    ("pathology", "borderline", "low", "high", "reason"),
    [
        ("NOR", True, 0, 0, "health has no severity"),
        ("DCM", False, 1, 1, "ACDC leaves borderline cases out"),
        ("DCM", True, 0.6, 0.9, "other cohorts have milder disease"),
    ],
)
def test_severity(pathology: str, borderline: bool, low: float, high: float, reason: str) -> None:
    severities = [heart.severity for heart in draw(pathology, borderline)]
    assert low <= np.mean(severities) <= high, reason
    assert (np.std(severities) > 0.1) == (low != high)


def test_mild_disease_is_between_normal_and_marked() -> None:
    mild, marked = (np.mean([heart.lv_ef for heart in draw("DCM", borderline)]) for borderline in (True, False))
    assert marked + 4 < mild < 50


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_every_class_consumes_the_same_draws(pathology: str) -> None:
    rng, reference = stream(0, 0, 1, "anatomy"), stream(0, 0, 1, "anatomy")
    draw_anatomy(rng, pathology, borderline=True)
    draw_anatomy(reference, "NOR", borderline=True)
    assert rng.uniform() == reference.uniform()


def test_the_ventricles_pump_the_same_blood() -> None:
    healthy = draw("NOR", borderline=True)
    left, right = ([getattr(heart, name) for heart in healthy] for name in ("lv_edv", "rv_edv"))
    assert np.corrcoef(left, right)[0, 1] > 0.7
    strokes = np.array([(h.lv_edv - h.lv_esv, h.rv_edv - h.rv_esv) for h in healthy])
    assert np.corrcoef(strokes.T)[0, 1] > 0.7


def test_mass_is_volume_times_density() -> None:
    heart = draw("HCM", borderline=False, n=1)[0]
    assert heart.mass == pytest.approx(1.05 * heart.myocardium_ed)
