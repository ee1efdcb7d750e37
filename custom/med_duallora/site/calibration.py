"""How a site reads a model's probabilities: temperature and threshold, fitted to its validation subjects.

Functions of labels and probabilities alone: the log odds of a probability are the difference of the model's two logits,
so that nothing else of the model is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from med_duallora.settings.limits import above, between, check_limits, limited
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.scores import THRESHOLD
from med_duallora.support.proportions import Counts, wilson_interval

MIN_PER_CLASS = 5
"""Validation subjects of each class below which nothing is fitted: with four, one subject moves a class's share by a
quarter, and the fit would describe these subjects rather than the model."""
TEMPERATURES = (0.05, 20.0)
"""Bounds of the temperature; heads start at zero, so that a short training leaves small logits and needs a low one."""
PER_BIN = 5
"""Subjects that a bin of the reliability curve has at least; fewer say nothing about a share."""
MOST_BINS = 10
_CERTAIN = 1e-7
"""Distance from 0 and 1 at which a probability counts as certain: the precision of the model's own numbers."""

Values = npt.NDArray[np.float64]
Labels = Sequence[int] | npt.NDArray[Any]
Chances = Sequence[float] | npt.NDArray[Any]


@dataclass(frozen=True)
class Calibration:
    """What a site fitted to its validation subjects.

    Args:
        temperature: divides the log odds; 1 changes nothing.
        threshold: of the model's own probability, not of the calibrated one: from here on a subject counts as disease.
        n_positive: diseased validation subjects.
        n_negative: normal validation subjects.
        remarks: what was not fitted, or not as asked, each as a sentence.

    Raises:
        ConfigError: a value is out of range.
    """

    temperature: float = limited(1.0, between(*TEMPERATURES))
    threshold: float = limited(THRESHOLD, above(0, 1))
    n_positive: int = limited(0, between(0, 1_000_000_000))
    n_negative: int = limited(0, between(0, 1_000_000_000))
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_limits(self, "calibration.")

    @property
    def is_fitted(self) -> bool:
        """Return whether there were enough subjects to fit anything."""
        return min(self.n_positive, self.n_negative) >= MIN_PER_CLASS

    def calibrated(self, chances: Chances | float) -> Values:
        """Return probabilities on the scale on which they mean shares of subjects; their order stays."""
        return tempered(chances, self.temperature)

    def counts(self, labels: Labels, chances: Chances) -> Counts:
        """Return how many subjects are classified correctly at the threshold."""
        return counted(labels, chances, self.threshold)


def calibrate(labels: Labels, chances: Chances, floors: ReleaseFloors) -> Calibration:
    """Fit temperature and threshold to validation subjects.

    Args:
        labels: (n_subjects,) 0 or 1.
        chances: (n_subjects,) the model's probability of disease.
        floors: what the threshold should keep.

    Returns:
        Temperature 1 and threshold 0.5, with a remark, where a class has fewer than ``MIN_PER_CLASS`` subjects.
    """
    truth, values = np.asarray(labels, dtype=int), np.asarray(chances, dtype=np.float64)
    n_positive, n_negative = int((truth == 1).sum()), int((truth == 0).sum())
    nothing = Calibration(n_positive=n_positive, n_negative=n_negative)
    if not nothing.is_fitted:
        text = (
            f"{n_negative} normal and {n_positive} diseased validation subjects are too few to fit anything (at least "
            f"{MIN_PER_CLASS} of each class are needed): probabilities stay as the model gives them, threshold 0.5."
        )
        return replace(nothing, remarks=(text,))
    temperature, about_temperature = fit_temperature(truth, values)
    threshold, about_threshold = fit_threshold(truth, values, floors)
    remarks = tuple(text for text in (about_temperature, about_threshold) if text)
    return replace(nothing, temperature=temperature, threshold=threshold, remarks=remarks)


def fit_temperature(labels: Labels, chances: Chances) -> tuple[float, str]:
    """Return the temperature with the lowest negative log likelihood, and a remark where it says little.

    One number divides the log odds, so no subject's rank changes (Guo et al., On calibration of modern neural networks,
    ICML 2017). The likelihood is convex in its inverse: there is one minimum within the bounds.

    Args:
        labels: (n_subjects,) 0 or 1.
        chances: (n_subjects,) probability of disease.

    Returns:
        1 where these subjects would have it below the bound, as when all are on their right side: they do not say how
        sure the model may be.
    """
    from scipy.optimize import minimize_scalar  # like those below: a process that trains loads a part of SciPy less

    truth, odds = np.asarray(labels, dtype=int), _log_odds(chances)
    signed = np.where(truth == 1, odds, -odds)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_temperature)).mean())

    low, high = np.log(TEMPERATURES)
    found = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6}).x)
    if found - low < 1e-3:
        return 1.0, "the validation subjects are told apart too well to say how sure the model may be: temperature 1."
    if high - found < 1e-3:
        text = "the model's probabilities say next to nothing about the validation subjects"
        return TEMPERATURES[1], f"{text}: temperature at its bound of {TEMPERATURES[1]:g}."
    return float(np.exp(found)), ""


def fit_threshold(labels: Labels, chances: Chances, floors: ReleaseFloors) -> tuple[float, str]:
    """Return the threshold that suits these subjects best, and a remark where no threshold keeps the floors.

    Without a floor it has the highest balanced accuracy; with a floor of the specificity the highest sensitivity of
    those that keep it; with one of the sensitivity the other way round. Of several that are equally good the middle one
    is taken, of an even number the lower one of the two in the middle, which finds more disease.

    Args:
        labels: (n_subjects,) 0 or 1, both present.
        chances: (n_subjects,) probability of disease.
        floors: what it should keep.
    """
    cuts = _cuts(np.asarray(chances, dtype=np.float64))
    shares = [_shares(counted(labels, chances, cut)) for cut in cuts]
    kept = [(cut, s) for cut, s in zip(cuts, shares, strict=True) if _keeps(s, floors)]
    balanced, text = (0.5, 0.5), ""
    if kept:
        weights = _weights(floors)
    else:
        kept, weights = list(zip(cuts, shares, strict=True)), balanced
        text = (
            "no threshold keeps the floors on the validation subjects: the one of the best balanced accuracy is used."
        )
    ranked = [(_weighted(s, weights), _weighted(s, balanced), cut) for cut, s in kept]
    best = max(ranked)[:2]
    good = [cut for *values, cut in ranked if tuple(values) == best]
    return float(good[(len(good) - 1) // 2]), text


def counted(labels: Labels, chances: Chances, threshold: float) -> Counts:
    """Return how many subjects are classified correctly where disease is a probability of at least ``threshold``."""
    truth, called = np.asarray(labels, dtype=int), np.asarray(chances, dtype=np.float64) >= threshold
    positive, negative = truth == 1, truth == 0
    return Counts(int(called[positive].sum()), int(positive.sum()), int((~called[negative]).sum()), int(negative.sum()))


def tempered(chances: Chances | float, temperature: float) -> Values:
    """Return probabilities whose log odds were divided by a temperature; 1 gives the very same numbers back."""
    values = np.asarray(chances, dtype=np.float64)
    from scipy.special import expit

    return values if temperature == 1 else np.asarray(expit(_log_odds(values) / temperature), dtype=np.float64)


def brier(labels: Labels, chances: Chances) -> float:
    """Return the mean squared distance of probability and truth (Brier, Monthly Weather Review 78, 1950).

    0 is perfect; always saying 0.5 gives 0.25.
    """
    return float(np.mean((np.asarray(chances, dtype=np.float64) - np.asarray(labels)) ** 2))


@dataclass(frozen=True)
class Bin:
    """Subjects of like probability.

    Args:
        mean: their mean probability.
        n_positive: how many of them have the disease.
        n: how many they are.
    """

    mean: float
    n_positive: int
    n: int

    @property
    def share(self) -> float:
        """Return the share of them with the disease."""
        return self.n_positive / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of that share (Wilson)."""
        return wilson_interval(self.n_positive, self.n)


def reliability(labels: Labels, chances: Chances) -> list[Bin]:
    """Return bins of equal numbers of subjects, by rising probability: what was said beside what was true.

    There are as many bins as leave each ``PER_BIN`` subjects, at most ``MOST_BINS``; none without subjects.
    """
    truth, values = np.asarray(labels, dtype=int), np.asarray(chances, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    n_bins = min(MOST_BINS, max(1, len(values) // PER_BIN))
    return [
        Bin(float(values[of].mean()), int(truth[of].sum()), len(of)) for of in np.array_split(order, n_bins) if len(of)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of what was said and what was true, each bin counting by its subjects (Guo 2017)."""
    n = sum(item.n for item in bins)
    return sum(item.n * abs(item.mean - item.share) for item in bins) / n


def _log_odds(chances: Chances | float) -> Values:
    from scipy.special import logit

    return np.asarray(logit(np.clip(np.asarray(chances, dtype=np.float64), _CERTAIN, 1 - _CERTAIN)), dtype=np.float64)


def _cuts(chances: Values) -> list[float]:
    """Return one threshold between every two neighbouring probabilities, one below all and one above all."""
    edges = np.unique(np.clip(np.concatenate([[0.0], chances, [1.0]]), 0, 1))
    return [float(cut) for cut in (edges[:-1] + edges[1:]) / 2 if 0 < cut <= 1]


def _shares(counts: Counts) -> tuple[float, float]:
    return counts.sensitivity or 0.0, counts.specificity or 0.0


def _keeps(shares: tuple[float, float], floors: ReleaseFloors) -> bool:
    sensitivity, specificity = shares
    return sensitivity >= floors.min_sensitivity and specificity >= floors.min_specificity


def _weights(floors: ReleaseFloors) -> tuple[float, float]:
    """Return how much sensitivity and specificity count beside the floors."""
    if bool(floors.min_sensitivity) == bool(floors.min_specificity):
        return 0.5, 0.5
    return (0.0, 1.0) if floors.min_sensitivity else (1.0, 0.0)


def _weighted(shares: tuple[float, float], weights: tuple[float, float]) -> float:
    """Return the weighted sum of both shares; equal ones must not differ in their last digits."""
    return round(shares[0] * weights[0] + shares[1] * weights[1], 12)
