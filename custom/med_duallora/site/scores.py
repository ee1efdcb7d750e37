"""Scores of a binary classification; the positive class (1) is disease."""

import math
from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.5
"""A subject counts as disease when its predicted probability is at least this; it is never tuned on test data."""


def scores(labels: Sequence[int] | np.ndarray, probabilities: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Return the scores that are defined for these subjects.

    Args:
        labels: (n_subjects,) 0 or 1.
        probabilities: (n_subjects,) predicted probability of disease.

    Returns:
        Names of ``measures.SCORES``. Where one class is absent only the other class's recall is defined, so the
        rest is left out rather than invented; without subjects the result is empty.

    Raises:
        ValueError: lengths differ, a label is neither 0 nor 1, or a probability is outside [0, 1].
    """
    truth, chance = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if truth.shape != chance.shape or truth.ndim != 1:
        raise ValueError(f"{truth.shape} labels and {chance.shape} probabilities, expected two lists of one length")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not ((chance >= 0) & (chance <= 1)).all():
        raise ValueError("probabilities must be finite and in [0, 1]")
    predicted = chance >= THRESHOLD
    found: dict[str, float] = {}
    if (truth == 1).any():
        found["sensitivity"] = float(predicted[truth == 1].mean())
    if (truth == 0).any():
        found["specificity"] = float((~predicted[truth == 0]).mean())
    if len(found) == 2:
        found["balanced_accuracy"] = (found["sensitivity"] + found["specificity"]) / 2
        found["auroc"] = _auroc(chance[truth == 1], chance[truth == 0])
        found["mcc"] = _mcc(truth == 1, predicted)
    return found


def _auroc(diseased: np.ndarray, normal: np.ndarray) -> float:
    """Return the probability that a diseased subject's value is above a normal one's; equal ones count half.

    Written out, like the next one, because loading scikit-learn takes longer than a small site's round; compared with
    it in the tests.
    """
    difference = diseased[:, None] - normal
    return float((np.sum(difference > 0) + np.sum(difference == 0) / 2) / difference.size)


def _mcc(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return Matthews' correlation coefficient of two lists of booleans, 0 where one of them is constant."""
    hits, false = int((truth & predicted).sum()), int((~truth & predicted).sum())
    missed, right = int((truth & ~predicted).sum()), int((~truth & ~predicted).sum())
    square = (hits + false) * (hits + missed) * (right + false) * (right + missed)
    return (hits * right - false * missed) / math.sqrt(square) if square else 0.0
