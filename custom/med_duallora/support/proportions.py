"""Shares of subjects that were classified correctly, with intervals that hold for few subjects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Counts:
    """How many of a group of test subjects were classified correctly.

    Args:
        hits: diseased subjects that were found.
        n_positive: diseased subjects.
        rejections: normal subjects that were called normal.
        n_negative: normal subjects.
    """

    hits: int
    n_positive: int
    rejections: int
    n_negative: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.hits + other.hits,
            self.n_positive + other.n_positive,
            self.rejections + other.rejections,
            self.n_negative + other.n_negative,
        )

    @property
    def sensitivity(self) -> float | None:
        """Return the share of diseased subjects that were found; None without any."""
        return self.hits / self.n_positive if self.n_positive else None

    @property
    def specificity(self) -> float | None:
        """Return the share of normal subjects that were called normal; None without any."""
        return self.rejections / self.n_negative if self.n_negative else None

    @property
    def balanced_accuracy(self) -> float | None:
        """Return the mean of both; None where a class has no subject."""
        sensitivity, specificity = self.sensitivity, self.specificity
        return None if sensitivity is None or specificity is None else (sensitivity + specificity) / 2


def wilson_interval(n_hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927).

    Raises:
        ValueError: ``n`` is 0, or ``n_hits`` is not between 0 and ``n``.
    """
    if not (n > 0 and 0 <= n_hits <= n):
        raise ValueError(f"{n_hits} of {n} is not a proportion")
    share, z2 = n_hits / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def balanced_interval(found: Counts) -> tuple[float, float] | None:
    """Return a 95 % interval of the balanced accuracy behind these counts; None where a class has no subject.

    Sensitivity and specificity come from different subjects, so their Wilson limits are combined by the method of
    variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008).
    """
    if not found.n_positive or not found.n_negative:
        return None
    parts = [(found.hits, found.n_positive), (found.rejections, found.n_negative)]
    return mean_interval([(hits / n, *wilson_interval(hits, n)) for hits, n in parts])


def mean_interval(estimates: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the interval of a mean of independent estimates, each given as (value, low, high); see above."""
    n = len(estimates)
    mean = math.fsum(value for value, _, _ in estimates) / n
    below = math.sqrt(math.fsum((value - low) ** 2 for value, low, _ in estimates)) / n
    above = math.sqrt(math.fsum((high - value) ** 2 for value, _, high in estimates)) / n
    return mean - below, mean + above


def difference_interval(
    ours: tuple[float, float, float], theirs: tuple[float, float, float], correlation: float = 0.0
) -> tuple[float, float]:
    """Return the interval of ``ours - theirs``, each given as (value, low, high).

    Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650), for proportions with Wilson limits; with the
    method of variance estimates recovery (Zou and Donner 2008) for other estimates.

    Args:
        ours: of the one model.
        theirs: of the other one.
        correlation: of the two estimates, see ``phi``. 0 where it is unknown: models that are tested on the same
            subjects mostly err on the same ones, and then the interval is wider than it need be.
    """
    (value, low, high), (other, other_low, other_high) = ours, theirs
    below, above = (
        _half(value - low, other_high - other, correlation),
        _half(high - value, other - other_low, correlation),
    )
    return value - other - below, value - other + above


def _half(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))


def phi(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Return the correlation of two models' right answers on the same subjects; 0 where one is always right or wrong.

    Raises:
        ValueError: their lengths differ.
    """
    pairs = list(zip(ours, theirs, strict=True))
    n = {outcome: pairs.count(outcome) for outcome in ((True, True), (True, False), (False, True), (False, False))}
    product = n[True, True] * n[False, False] - n[True, False] * n[False, True]
    sizes = sum(ours) * (len(pairs) - sum(ours)) * sum(theirs) * (len(pairs) - sum(theirs))
    return product / math.sqrt(sizes) if sizes else 0.0
