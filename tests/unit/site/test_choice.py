"""What a site uses: by its validation subjects, in favour of the federation, and never worse than what it has."""

import numpy as np
import pytest

from med_duallora.measures import CHOICES
from med_duallora.site.choice import Choice, choose, joining_helped, log_losses

LABELS = np.array([0, 1] * 8)
GOOD = np.where(LABELS, 0.9, 0.1)
FAIR = np.where(LABELS, 0.7, 0.3)
WRONG = 1 - GOOD
COIN = np.full(16, 0.5)


# ---- the rule


@pytest.mark.parametrize(
    ("both", "others", "expected", "why"),
    [
        (FAIR, {"backbone": FAIR, "alone": FAIR}, "both", "nothing differs"),
        (GOOD, {"backbone": FAIR, "alone": FAIR}, "both", "the federated one is best"),
        (WRONG, {"backbone": FAIR, "alone": COIN}, "backbone", "the federated one is harmful"),
        (WRONG, {"backbone": FAIR, "alone": GOOD, "global": FAIR}, "alone", "the lowest loss of those that are better"),
        (
            COIN,
            {"backbone": COIN, "global": GOOD},
            "global",
            "only the local part is harmful, none trained alone",
        ),
        (np.where(LABELS, 1.0, 0.0)[::-1], {"backbone": FAIR}, "backbone", "certain and wrong: a loss without end"),
        (np.full(16, np.nan), {"backbone": FAIR}, "backbone", "no answer is as good as a coin"),
    ],
)
def test_the_federated_model_stays_unless_another_is_better(
    both: np.ndarray, others: dict[str, np.ndarray], expected: str, why: str
) -> None:
    found = choose(LABELS, {"both": both, **others})
    assert found.variant == expected, why
    assert found.variant in CHOICES
    assert found.federated == (expected if expected in ("both", "global") else "both")
    assert "balanced log loss on 16 validation subjects" in found.why


def test_a_difference_within_its_standard_error_is_not_enough() -> None:
    """Twelve subjects are told apart a little better, four much worse: better on average, and by chance."""
    for worse, expected in ((-1.2, "both"), (-0.2, "backbone")):
        shift = np.where(np.arange(16) < 12, 0.8, worse)
        odds = np.where(LABELS, shift, -shift)
        backbone = 1 / (1 + np.exp(-odds))
        gains = log_losses(LABELS, COIN) - log_losses(LABELS, backbone)
        assert gains.mean() > 0
        assert choose(LABELS, {"both": COIN, "backbone": backbone}).variant == expected


def test_both_classes_count_the_same() -> None:
    """The backbone is better at the ten normal subjects, and much worse at the five diseased ones."""
    labels = np.array([0] * 50 + [1] * 5)
    both, backbone = np.where(labels, 0.6, 0.4), np.where(labels, 0.3, 0.3)
    assert log_losses(labels, backbone).mean() < log_losses(labels, both).mean()
    assert choose(labels, {"both": both, "backbone": backbone}).variant == "both"


@pytest.mark.parametrize(
    ("labels", "floor", "says"),
    [
        ([], 0, "0 normal and 0 diseased"),
        ([1] * 30, 0, "0 normal and 30 diseased"),
        ([0, 1] * 4, 0, "4 normal and 4 diseased validation subjects are too few to choose by (at least 5"),
        ([0, 1] * 8, 9, "at least 9 of each class"),
    ],
)
def test_too_few_validation_subjects_change_nothing(labels: list[int], floor: int, says: str) -> None:
    truth = np.array(labels, dtype=int)
    found = choose(truth, {"both": 0.9 - 0.8 * truth, "backbone": 0.1 + 0.8 * truth}, floor)
    assert (found.variant, found.own) == ("both", "backbone")
    assert says in found.why
    assert "both adapters, stays" in found.why


def test_what_the_site_has_alone_is_the_better_one_of_both() -> None:
    assert choose(LABELS, {"both": GOOD, "alone": FAIR, "backbone": COIN}).own == "alone"
    assert choose(LABELS, {"both": GOOD, "alone": COIN, "backbone": FAIR}).own == "backbone"


# ---- how likely joining helped


def answers(n: int, n_right: int) -> np.ndarray:
    """(2n,) probabilities for n normal, then n diseased subjects, the first ones of each class right."""
    right = np.arange(n) < n_right
    return np.concatenate([np.where(right, 0.1, 0.9), np.where(right, 0.9, 0.1)])


@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [(20, 10, 0.99, 1.0), (10, 20, 0.0, 0.01), (15, 15, 0.49, 0.51), (12, 11, 0.7, 0.95)],
)
def test_the_probability_follows_the_paired_answers(ours: int, theirs: int, low: float, high: float) -> None:
    labels = np.repeat([0, 1], 20)
    assert low <= (joining_helped(labels, answers(20, ours), answers(20, theirs)) or 0.0) <= high


def test_few_answers_say_less_than_many() -> None:
    few, many = (joining_helped(np.repeat([0, 1], n), answers(n, n), answers(n, n // 2)) for n in (2, 40))
    assert few is not None and many is not None
    assert 0.6 < few < 0.95 < many


def test_the_probability_is_that_of_a_simple_count() -> None:
    """Against the exact posterior: two discordant cells of one class, none of the other, by a fine grid."""
    labels = np.repeat([0, 1], 6)
    found = joining_helped(labels, answers(6, 6), np.concatenate([answers(6, 6)[:6], answers(6, 3)[6:]]))
    stream = np.random.default_rng(9)
    draws = [stream.gamma(np.array(cells) + 0.5, size=(200_000, 3)) for cells in ((0, 0, 6), (3, 0, 3))]
    gains = [(draw[:, 0] - draw[:, 1]) / draw.sum(1) for draw in draws]
    assert found == pytest.approx(np.mean(gains[0] + gains[1] > 0), abs=0.012)


def test_without_a_class_there_is_none() -> None:
    assert joining_helped(np.ones(4, dtype=int), np.ones(4), np.zeros(4)) is None
    assert joining_helped(np.array([], dtype=int), np.array([]), np.array([])) is None


def test_a_choice_of_its_own_is_held_against_the_federated_model() -> None:
    assert Choice("alone", "alone", "").federated == "both"
    assert Choice("global", "backbone", "").federated == "global"
