import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from med_duallora.measures import SCORES
from med_duallora.site.scores import THRESHOLD, scores


@pytest.mark.parametrize(
    ("labels", "probabilities", "expected", "reason"),
    [
        (
            [0, 0, 1, 1],
            [0.1, 0.4, 0.6, 0.9],
            {"sensitivity": 1, "specificity": 1, "balanced_accuracy": 1, "auroc": 1, "mcc": 1},
            "all right",
        ),
        (
            [0, 0, 1, 1],
            [0.9, 0.6, 0.4, 0.1],
            {"sensitivity": 0, "specificity": 0, "balanced_accuracy": 0, "auroc": 0, "mcc": -1},
            "all wrong",
        ),
        (
            [0, 1],
            [0.5, 0.5],
            {"sensitivity": 1, "specificity": 0, "balanced_accuracy": 0.5, "auroc": 0.5, "mcc": 0},
            "a probability of exactly .5 counts as diseased; a tie is half an AUROC",
        ),
        (
            # TP 2, FN 1, TN 1, FP 1; pairs won: (.9 > .8, .2), (.6 > .2), (.3 > .2) = 4 of 6
            [1, 1, 1, 0, 0],
            [0.9, 0.6, 0.3, 0.8, 0.2],
            {
                "sensitivity": 2 / 3,
                "specificity": 1 / 2,
                "balanced_accuracy": 7 / 12,
                "auroc": 4 / 6,
                "mcc": (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2),
            },
            "counted by hand; disease is the positive class",
        ),
        ([1, 1], [0.2, 0.7], {"sensitivity": 0.5}, "no normal subject: nothing else is defined"),
        ([0, 0, 0], [0.2, 0.7, 0.1], {"specificity": 2 / 3}, "no diseased subject"),
        ([], [], {}, "no subject, no score"),
    ],
)
def test_scores(labels, probabilities, expected, reason):
    found = scores(labels, probabilities)
    assert found == pytest.approx(expected), reason
    assert all(type(value) is float for value in found.values()), "plain numbers pass the egress contract"


@pytest.mark.parametrize(
    ("labels", "probabilities", "message", "reason"),
    [
        ([0, 1], [0.5], r"\(2,\) labels and \(1,\)", "lengths differ"),
        ([[0, 1]], [[0.5, 0.5]], "one length", "not a list"),
        ([0, 2], [0.5, 0.5], "labels must be 0 or 1", "a third class"),
        ([0, 1], [0.5, 1.01], "in \\[0, 1\\]", "no probability"),
        ([0, 1], [-0.01, 0.5], "in \\[0, 1\\]", "no probability"),
        ([0, 1], [0.5, math.nan], "finite", "NaN compares as false and would count as normal"),
        ([0, 1], [0.5, math.inf], "finite", "infinity"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, probabilities, message, reason):
    with pytest.raises(ValueError, match=message):
        scores(labels, probabilities)


def test_the_ranges_are_the_scores_own():
    unit = (0.0, 1.0)
    plain = {"balanced_accuracy": unit, "sensitivity": unit, "specificity": unit, "auroc": unit}
    ranges = {name: (score.lowest, score.highest) for name, score in SCORES.items()}
    assert ranges == {**plain, "mcc": (-1.0, 1.0)}, "the egress contract refuses what lies outside"


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), max_size=40))
def test_scores_stay_in_their_ranges_and_do_not_depend_on_the_order(rows):
    labels, chances = np.array([r[0] for r in rows], dtype=int), np.array([r[1] for r in rows])
    found = scores(labels, chances)
    for name, value in found.items():
        assert SCORES[name].lowest <= value <= SCORES[name].highest, name
    assert scores(labels[::-1], chances[::-1]) == pytest.approx(found)
    both = len(set(labels.tolist())) == 2
    assert set(found) == set(SCORES) if both else set(found) <= {"sensitivity", "specificity"}
    if both:
        assert found["auroc"] == pytest.approx(roc_auc_score(labels, chances))
        assert found["mcc"] == pytest.approx(matthews_corrcoef(labels, chances >= THRESHOLD))
