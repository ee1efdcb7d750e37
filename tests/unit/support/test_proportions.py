import numpy as np
import pytest

from med_duallora.support.proportions import (
    Counts,
    balanced_interval,
    difference_interval,
    mean_interval,
    phi,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("n_hits", "n", "interval"),
    [
        # golden numbers: R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3
        pytest.param(81, 263, (0.2553, 0.3662), id="about a third"),
        pytest.param(15, 148, (0.0624, 0.1605), id="about a tenth"),
        pytest.param(0, 20, (0.0, 0.1611), id="none right"),
        pytest.param(1, 29, (0.0061, 0.1718), id="one right"),
        pytest.param(20, 20, (0.8389, 1.0), id="all right: mirror image of none right"),
    ],
)
def test_intervals_are_wilsons(n_hits: int, n: int, interval: tuple[float, float]) -> None:
    assert wilson_interval(n_hits, n) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(("n_hits", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_no_proportion_has_no_interval(n_hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a proportion"):
        wilson_interval(n_hits, n)


def test_the_interval_of_balanced_accuracy_combines_both_classes() -> None:
    # sensitivity 8 of 10 (Wilson .490 to .943), specificity 15 of 20 (.531 to .888): estimate .775
    low, high = balanced_interval(Counts(8, 10, 15, 20)) or (0.0, 0.0)
    assert low == pytest.approx(0.775 - ((0.8 - 0.4902) ** 2 + (0.75 - 0.5313) ** 2) ** 0.5 / 2, abs=1e-3)
    assert high == pytest.approx(0.775 + ((0.9433 - 0.8) ** 2 + (0.8881 - 0.75) ** 2) ** 0.5 / 2, abs=1e-3)
    assert balanced_interval(Counts(0, 0, 3, 4)) is None


def test_more_sites_narrow_the_interval_of_the_mean() -> None:
    assert mean_interval([(0.5, 0.3, 0.7)]) == pytest.approx((0.3, 0.7))
    assert mean_interval([(0.5, 0.3, 0.7)] * 4) == pytest.approx((0.4, 0.6))


def test_shares_are_those_of_each_class() -> None:
    counts = Counts(hits=3, n_positive=4, rejections=1, n_negative=2)
    assert (counts.sensitivity, counts.specificity, counts.balanced_accuracy) == (0.75, 0.5, 0.625)
    assert Counts(0, 0, 1, 2).sensitivity is None
    assert Counts(0, 0, 1, 2).balanced_accuracy is None, "one class: it would be invented"
    assert Counts(1, 2, 0, 0).specificity is None


def estimate(n_hits: int, n: int) -> tuple[float, float, float]:
    return (n_hits / n, *wilson_interval(n_hits, n))


@pytest.mark.parametrize(
    ("ours", "theirs", "interval"),
    [
        # golden numbers: R. G. Newcombe, Statistics in Medicine 17 (1998), 873-890, table II, method 10
        pytest.param((56, 70), (48, 80), (0.0524, 0.3339), id="large groups"),
        pytest.param((9, 10), (3, 10), (0.1705, 0.8090), id="small groups"),
        pytest.param((5, 56), (0, 29), (-0.0381, 0.1926), id="none right"),
    ],
)
def test_intervals_of_independent_differences_are_newcombes(
    ours: tuple[int, int], theirs: tuple[int, int], interval: tuple[float, float]
) -> None:
    assert difference_interval(estimate(*ours), estimate(*theirs)) == pytest.approx(interval, abs=5e-5)


def test_models_that_err_on_the_same_subjects_are_compared_more_sharply() -> None:
    intervals = [difference_interval(estimate(16, 20), estimate(12, 20), r) for r in (-0.5, 0.0, 0.5, 1.0)]
    widths = [high - low for low, high in intervals]
    assert widths == sorted(widths, reverse=True)


def test_the_interval_of_a_paired_difference_holds_as_often_as_it_says() -> None:
    """Two models on the same 12 subjects, the second one copying 60 % of the first one's answers; 4,000 repetitions."""
    rng = np.random.default_rng(0)
    ours = rng.random((4000, 12)) < 0.8
    theirs = np.where(rng.random(ours.shape) < 0.6, ours, rng.random(ours.shape) < 0.55)
    truth = 0.8 - (0.6 * 0.8 + 0.4 * 0.55)
    held = 0
    for one, other in zip(ours.tolist(), theirs.tolist(), strict=True):
        low, high = difference_interval(estimate(sum(one), 12), estimate(sum(other), 12), phi(one, other))
        held += low <= truth <= high
    assert 0.93 <= held / 4000 <= 0.99


def test_the_correlation_of_right_answers() -> None:
    yes, no = [True, True, False, False], [False, False, True, True]
    assert (phi(yes, yes), phi(yes, no), phi(yes, [True, False, True, False])) == (1.0, -1.0, 0.0)
    assert phi([True] * 4, yes) == 0.0, "one that is always right has no correlation"
    with pytest.raises(ValueError, match="zip"):
        phi(yes, yes[:2])
