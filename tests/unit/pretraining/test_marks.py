import numpy as np
import pytest

from med_duallora.pretraining.marks import MARKS, standardised, with_marks


def test_values_come_first_and_then_their_nearness_mark_by_mark():
    values = np.array([[MARKS[1], 9.0], [0.0, MARKS[-1]]], np.float32)
    marked = with_marks(values)
    assert marked.dtype == np.float32
    assert marked.shape == (2, 2 * (1 + len(MARKS)))
    assert np.array_equal(marked[:, :2], values)
    near = marked[:, 2:].reshape(2, len(MARKS), 2)
    assert near[0, 1, 0] == near[1, -1, 1] == 1
    assert near[0, :, 1].max() < 1e-6  # far from all
    assert near.min() >= 0
    assert near.max() == 1


def test_a_line_through_marks_says_what_no_line_through_values_does():
    """What is in the middle against what is on either side of it."""
    values = np.linspace(-2.5, 2.5, 101, dtype=np.float32)[:, None]
    middle = (np.abs(values[:, 0]) < 0.8).astype(float)
    errors = []
    for features in (values, with_marks(values)):
        design = np.c_[features, np.ones(len(values))]
        weights, *_ = np.linalg.lstsq(design, middle, rcond=None)
        errors.append(float(((design @ weights - middle) ** 2).mean() / middle.var()))
    assert errors[0] == pytest.approx(1, abs=1e-3)
    assert errors[1] < 0.25


def test_what_does_not_vary_is_not_scaled():
    values = np.array([[1.0, 5.0], [3.0, 5.0], [9.0, 7.0]], np.float32)
    assert np.array_equal(standardised(values, [0, 1]), [[-1, 0], [1, 0], [7, 2]])
