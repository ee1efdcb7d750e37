"""Golden values, and what must hold of intervals and tests."""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, matthews_corrcoef, roc_auc_score

from med_duallora.study.statistics import (
    MACRO,
    POOLED,
    SCORES,
    WORST,
    Answers,
    Resampling,
    Scored,
    Series,
    Split,
    holm,
    paired_test,
    weighted_scores,
)

LABELS = (1, 1, 1, 1, 0, 0, 0, 0)
CHANCES = (0.9, 0.8, 0.5, 0.3, 0.6, 0.4, 0.3, 0.1)


def answers(labels=LABELS, chances=CHANCES, first: int = 0) -> Answers:
    return Answers(tuple(f"s{row + first}" for row in range(len(labels))), tuple(labels), tuple(chances))


def scored(series, n_draws: int = 200) -> Scored:
    return Scored(series, Resampling.of([series], n_draws))


def test_golden_values_of_one_site():
    found = {name: values[0] for name, values in weighted_scores(LABELS, CHANCES, np.ones((1, 8))).items()}
    # 3 of 4 found, 3 of 4 recognised; of 16 pairs 12 are in order and one (0.3, 0.3) is a tie
    assert found["sensitivity"] == found["specificity"] == found["balanced_accuracy"] == 0.75
    assert found["auroc"] == pytest.approx(12.5 / 16) == pytest.approx(roc_auc_score(LABELS, CHANCES))
    assert found["mcc"] == pytest.approx(0.5)
    assert found["brier"] == pytest.approx(1.41 / 8) == pytest.approx(brier_score_loss(LABELS, CHANCES))


def test_a_weight_of_two_is_the_subject_twice():
    rng = np.random.default_rng(3)
    labels, chances = np.arange(30) % 2, rng.random(30).round(1)
    weights = rng.integers(0, 3, (5, 30)).astype(float)
    found = weighted_scores(labels, chances, weights)
    for row in range(5):
        truth, said = (np.repeat(values, weights[row].astype(int)) for values in (labels, chances))
        assert found["auroc"][row] == pytest.approx(roc_auc_score(truth, said))
        assert found["mcc"][row] == pytest.approx(matthews_corrcoef(truth, said >= 0.5))
        assert found["brier"][row] == pytest.approx(brier_score_loss(truth, said))
        assert found["sensitivity"][row] == pytest.approx((said >= 0.5)[truth == 1].mean())
        assert found["specificity"][row] == pytest.approx((said < 0.5)[truth == 0].mean())


def test_what_is_not_defined_is_not_a_number_and_one_class_predicted_is_no_correlation():
    one_class = weighted_scores((1, 1), (0.9, 0.2), np.ones((1, 2)))
    assert one_class["sensitivity"][0] == 0.5
    assert all(math.isnan(one_class[name][0]) for name in ("specificity", "balanced_accuracy", "auroc", "mcc"))
    assert weighted_scores((1, 0), (0.9, 0.8), np.ones((1, 2)))["mcc"][0] == 0


def test_levels_are_what_they_are_called():
    """Site a is right on all, site b on half of each class, over two seeds with other subjects."""
    right, half = (0.9, 0.9, 0.1, 0.1), (0.9, 0.1, 0.9, 0.1)
    labels = (1, 1, 0, 0)
    series = {
        seed: {"a": answers(labels, right, seed), "b": answers((*labels, *labels), (*half, *half), 2 * seed)}
        for seed in (0, 4)
    }
    found = scored(series)
    assert found.estimate("a").value == 1
    assert found.estimate("b").value == 0.5
    assert found.estimate(MACRO).value == 0.75
    assert found.estimate(WORST).value == 0.5
    assert found.estimate(POOLED).value == pytest.approx(8 / 12)
    assert found.spread() == 0
    assert found.estimate(WORST, "brier").value == found.estimate("b", "brier").value, "the highest is the worst"


def test_the_interval_of_a_share_is_that_of_its_subjects():
    """200 diseased subjects, 150 of them found: the standard error is sqrt(.75 * .25 / 200) = .0306."""
    series = {0: {"a": answers((1,) * 200 + (0,), (0.9,) * 150 + (0.1,) * 51)}}
    found = scored(series, 4000).estimate("a", "sensitivity")
    assert found.value == 0.75
    assert found.low == pytest.approx(0.75 - 1.96 * 0.0306, abs=0.006)
    assert found.high == pytest.approx(0.75 + 1.96 * 0.0306, abs=0.006)


def test_the_spread_is_that_of_the_seeds_means():
    """Seed 0 is right on all of one site, seed 1 on half of it: 1 and .5, so .5 / sqrt(2)."""
    labels = (1, 1, 0, 0)
    series = {0: {"a": answers(labels, (0.9, 0.9, 0.1, 0.1))}, 1: {"a": answers(labels, (0.9, 0.1, 0.9, 0.1))}}
    assert scored(series).spread() == pytest.approx(0.5 / 2**0.5)
    assert math.isnan(scored({0: series[0]}).spread())


def test_seeds_that_test_the_same_subjects_do_not_narrow_the_interval():
    """Ten times the same answers are no more subjects."""
    one = {0: {"a": answers()}}
    ten = dict.fromkeys(range(10), one[0])
    assert scored(ten).estimate("a") == scored(one).estimate("a")


def test_a_difference_is_paired():
    """Two models with the same answers differ by nothing in every draw; independent draws would say otherwise."""
    series: Series = {0: {"a": answers()}}
    draws = Resampling.of([series, series], 300)
    found = Scored(series, draws).difference(Scored(series, draws), "a")
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert not found.excludes_zero


def test_draws_do_not_depend_on_the_order_of_seeds_sites_or_subjects():
    forward = {0: {"a": answers(), "b": answers(first=8)}, 1: {"a": answers(first=8)}}
    mixed = Answers(*(tuple(reversed(values)) for values in vars(answers()).values()))
    backward = {1: {"a": answers(first=8)}, 0: {"b": answers(first=8), "a": mixed}}
    for score in SCORES:
        ours, theirs = (scored(series).values(MACRO, score) for series in (forward, backward))
        assert np.allclose(ours, theirs, equal_nan=True)


def test_every_site_and_class_keeps_its_size_in_every_draw():
    series: Series = {0: {"a": answers(), "b": answers(labels=(1, 0, 0), chances=(0.5, 0.5, 0.5))}}
    weights = Resampling.of([series], 50).weights("b", ("s0", "s1", "s2"))
    assert weights[:, 0].tolist() == [1] * 51
    assert set(weights[:, 1:].sum(1)) == {2}


def test_golden_p_values():
    """Six pairs that all are better: the exact two-sided p is 2 / 2**6."""
    ours: dict[tuple[Split, str], float] = {(seed, "a"): 0.8 + 0.01 * seed for seed in range(6)}
    theirs: dict[tuple[Split, str], float] = {(seed, "a"): 0.7 - 0.01 * seed for seed in range(6)}
    found = paired_test(ours, {**theirs, (9, "b"): 0.1})
    assert (found.n_pairs, found.n_better) == (6, 6)
    assert found.p == pytest.approx(2 / 64)
    assert paired_test(theirs, ours).p == found.p
    assert paired_test(ours, ours).p == 1
    assert paired_test(ours, {unit: float("nan") for unit in ours}).n_pairs == 0


def test_golden_adjusted_p_values():
    """Holm's step-down: .01 x 4, .02 x 3, then never less than the one before."""
    assert holm({"c": 0.03, "a": 0.01, "b": 0.02, "d": 0.9}) == pytest.approx(
        {"c": 0.06, "a": 0.04, "b": 0.06, "d": 0.9}
    )
    assert holm({}) == {}


def test_answers_belong_together():
    with pytest.raises(ValueError, match="as many"):
        Answers(("a",), (1, 0), (0.5, 0.5))


def test_a_subject_with_two_labels_is_refused():
    """In another seed, or with another method: then the subjects are not the same ones."""
    with pytest.raises(ValueError, match="two labels"):
        Resampling.of([{0: {"a": answers()}}, {1: {"a": answers(labels=LABELS[::-1])}}], 10)


def test_a_subject_that_moves_between_sites_is_drawn_once_for_all_of_them():
    """Two federations cut from the same subjects: the sites of one are not those of the other."""
    labels, names = (0, 0, 1, 1), ("a", "b", "c", "d")
    first = {"x": Answers(names[::2], labels[::2], (0.1, 0.9)), "y": Answers(names[1::2], labels[1::2], (0.1, 0.9))}
    second = {"x": Answers(names[1::2], labels[1::2], (0.1, 0.9)), "y": Answers(names[::2], labels[::2], (0.1, 0.9))}
    series: Series = {("one", 0): first, ("two", 0): second}
    draws = Resampling.of([series], 50, moving=True)
    assert np.array_equal(draws.weights("x", ["a", "d"]), draws.weights("y", ["a", "d"]))
    assert set(draws.weights("x", ["a", "b"])[1:].sum(1)) == {2}, "within its class"
    apart = Resampling.of([series], 50)
    assert not np.array_equal(apart.weights("x", ["a", "b"]), apart.weights("y", ["a", "b"]))
    with pytest.raises(ValueError, match="two labels"):
        Resampling.of([{0: {"x": Answers(("a",), (0,), (0.1,)), "y": Answers(("a",), (1,), (0.1,))}}], 5, moving=True)


def test_several_federations_of_the_same_subjects_do_not_narrow_the_interval():
    """Five times the same answers under other cohorts' names are no more subjects."""
    one: Series = {("first", 0): {"a": answers()}}
    five: Series = {(f"cohort-{number}", 0): {"a": answers()} for number in range(5)}
    found = [Scored(series, Resampling.of([series], 300, moving=True)).estimate("a") for series in (one, five)]
    assert found[0] == found[1]
