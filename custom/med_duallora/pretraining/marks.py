"""Values as targets of a linear head: each one, and how near it is to each of a few marks.

A healthy heart is one whose values lie in the middle, and no line through values says that. A linear head on features
that tell how near each value is to its marks can say it (docs/pretraining.md measures both on patients).
"""

from collections.abc import Sequence

import numpy as np

from med_duallora.cohorts.phantom.truth import Values

LEAST_DEVIATION = 1e-6  # of what varies by rounding alone
MARKS = (-2.0, -1.2, -0.4, 0.4, 1.2, 2.0)
MARK_WIDTH = 0.5
"""Marks on the standardised values, and the standard deviation of the bell that says how near a value is to one."""


def with_marks(values: Values) -> Values:
    """Return standardised values (n_subjects, n_targets), then how near each is to each mark, mark by mark.

    Returns:
        (n_subjects, n_targets * (1 + n_marks)), float32.
    """
    near = [np.exp(-0.5 * ((values - mark) / MARK_WIDTH) ** 2) for mark in MARKS]
    return np.concatenate([values, *near], axis=1).astype(np.float32)


def standardised(values: Values, fitted: Sequence[int]) -> Values:
    """Return values of mean 0 and standard deviation 1 over some subjects.

    What does not vary cannot be scaled, and there is nothing to learn of it.
    """
    mean, deviation = values[fitted].mean(0), values[fitted].std(0)
    scaled: Values = (values - mean) / np.where(deviation > LEAST_DEVIATION, deviation, 1)
    return scaled
