import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from med_duallora.errors import ConfigError
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import (
    MIN_PER_CLASS,
    Calibration,
    brier,
    calibrate,
    calibration_error,
    counted,
    fit_temperature,
    fit_threshold,
    reliability,
    tempered,
)
from med_duallora.support.proportions import wilson_interval

FREE = ReleaseFloors()


def drawn(temperature: float, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and the probabilities of a model that is too sure (above 1) or not sure enough (below)."""
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 1.5, n)
    labels = (rng.random(n) < expit(odds)).astype(int)
    return labels, expit(odds * temperature)


# ---- temperature


@pytest.mark.parametrize("temperature", [0.2, 1.0, 4.0])
def test_the_temperature_that_made_a_model_wrong_is_found(temperature):
    labels, chances = drawn(temperature)
    found, remark = fit_temperature(labels, chances)
    assert found == pytest.approx(temperature, rel=0.08)
    assert not remark
    again = tempered(chances, found)
    assert calibration_error(reliability(labels, again)) < 0.03
    assert (np.diff(again[np.argsort(chances)]) >= 0).all(), "no rank changes"


def test_temperature_1_changes_no_bit():
    chances = np.array([0.0, 1e-12, 0.3, 1.0])
    assert (tempered(chances, 1.0) == chances).all()


def test_subjects_told_apart_without_a_fault_do_not_make_the_model_surer():
    labels = [0] * 6 + [1] * 6
    chances = [0.4] * 6 + [0.6] * 6
    assert fit_temperature(labels, chances)[0] == 1.0
    assert "too well" in fit_temperature(labels, chances)[1]


def test_a_model_that_knows_nothing_ends_at_the_bound_and_says_so():
    labels = [1] * 6 + [0] * 6
    temperature, remark = fit_temperature(labels, [0.01] * 6 + [0.99] * 6)
    assert temperature == 20.0
    assert "next to nothing" in remark


def test_certain_probabilities_have_a_temperature():
    labels, chances = drawn(1.0, 200)
    chances[0], labels[0], chances[1], labels[1] = 1.0, 0, 0.0, 1
    assert np.isfinite(fit_temperature(labels, chances)[0])


# ---- threshold


@pytest.mark.parametrize(
    ("floors", "threshold", "reason"),
    [
        (FREE, 0.35, "one normal subject above 0.35, no diseased one below: 1 and 4/5"),
        (ReleaseFloors(min_specificity=1.0), 0.75, "no normal subject above it; the best sensitivity of those is 3/5"),
        (ReleaseFloors(min_specificity=0.7), 0.35, "4/5 is enough"),
        (ReleaseFloors(min_sensitivity=0.6), 0.75, "the other way round: the best specificity of those that keep it"),
        (ReleaseFloors(min_sensitivity=1.0), 0.35, "nobody is missed"),
        (ReleaseFloors(min_balanced_accuracy=1.0), 0.35, "it limits no threshold: it is highest without"),
    ],
)
def test_the_threshold_keeps_the_floors_and_is_the_best_of_those(floors, threshold, reason):
    labels = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    chances = [0.0, 0.1, 0.2, 0.3, 0.7, 0.4, 0.5, 0.8, 0.9, 1.0]
    assert fit_threshold(labels, chances, floors) == (pytest.approx(threshold), ""), reason


def test_of_equally_good_thresholds_the_middle_one_is_taken():
    # between 0.2 and 0.4, and again between 0.6 and 0.8, one of three is wrong; 0.5 is not that good
    labels, chances = [0, 1, 0, 1], [0.2, 0.4, 0.6, 0.8]
    assert fit_threshold(labels, chances, FREE)[0] == pytest.approx(0.3), "of two, the one that finds more disease"
    labels, chances = [0, 1, 0, 1, 0, 1], [0.1, 0.3, 0.4, 0.6, 0.8, 0.9]
    assert fit_threshold(labels, chances, FREE)[0] == pytest.approx(0.5), "of three, the middle one"


def test_floors_that_no_threshold_keeps_are_said():
    labels, chances = [0] * 5 + [1] * 5, [0.9] * 5 + [0.1] * 5
    threshold, remark = fit_threshold(labels, chances, ReleaseFloors(min_sensitivity=0.9, min_specificity=0.9))
    assert "no threshold keeps the floors" in remark
    assert 0 < threshold <= 1


def test_a_threshold_above_every_probability_is_possible():
    labels, chances = [0] * 5 + [1] * 5, [0.9] * 5 + [0.1] * 5
    threshold, remark = fit_threshold(labels, chances, ReleaseFloors(min_specificity=1.0))
    assert not remark
    assert counted(labels, chances, threshold).rejections == 5


# ---- both


def test_a_fit_says_on_whom():
    labels, chances = drawn(2.0, 400)
    found = calibrate(labels, chances, FREE)
    assert (found.n_positive, found.n_negative) == (labels.sum(), 400 - labels.sum())
    assert not found.remarks
    assert found.calibrated(chances) == pytest.approx(expit(logit(chances) / found.temperature))
    assert found.counts(labels, chances) == counted(labels, chances, found.threshold)


@pytest.mark.parametrize(
    ("n_negative", "n_positive"),
    [(0, 0), (12, 0), (0, 12), (12, MIN_PER_CLASS - 1), (MIN_PER_CLASS - 1, 12)],
)
def test_too_few_subjects_fit_nothing_and_it_is_said(n_negative, n_positive):
    labels = [0] * n_negative + [1] * n_positive
    found = calibrate(labels, np.linspace(0.1, 0.9, len(labels)), FREE)
    assert (found.temperature, found.threshold) == (1.0, 0.5)
    assert f"{n_negative} normal and {n_positive} diseased validation subjects are too few" in found.remarks[0]


@pytest.mark.parametrize("change", [{"temperature": 0.0}, {"threshold": 0.0}, {"threshold": float("nan")}])
def test_a_calibration_out_of_range_is_refused(change):
    with pytest.raises(ConfigError, match="calibration"):
        Calibration(**change)


# ---- reliability


def test_the_brier_score_is_scikit_learns():
    labels, chances = drawn(2.0, 50)
    assert brier(labels, chances) == pytest.approx(brier_score_loss(labels, chances))
    assert brier([0, 1], [0.5, 0.5]) == 0.25


def test_bins_hold_equally_many_subjects_with_their_interval():
    labels, chances = [0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1], np.linspace(0, 1, 11)
    low, high = reliability(labels, chances)
    assert (low.n, low.n_positive, low.mean) == (6, 1, pytest.approx(0.25))
    assert (high.n, high.n_positive, high.share) == (5, 5, 1.0)
    assert low.interval == wilson_interval(1, 6)
    assert calibration_error([low, high]) == pytest.approx((6 * abs(0.25 - 1 / 6) + 5 * 0.2) / 11)


@pytest.mark.parametrize(("n", "n_bins"), [(0, 0), (1, 1), (4, 1), (12, 2), (1000, 10)])
def test_no_bin_is_too_small_for_a_share(n, n_bins):
    assert len(reliability([0] * n, [0.5] * n)) == n_bins
