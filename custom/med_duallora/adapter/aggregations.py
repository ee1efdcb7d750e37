"""How the server forms the next global adapter from the sites' adapters: pure computations, one entry per rule.

Pairs are named as (B, A) with the update B A: B (out, rank), A (rank, in). All numbers are float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from med_duallora.settings.config import AGGREGATION_NAMES

Tensors = Mapping[str, np.ndarray]
Pairs = Sequence[tuple[str, str]]


class CompensatedSum:
    """A running sum of arrays in double-double precision, so that the rounded result forgets the order of terms.

    Source: Knuth's TwoSum; the error of every addition is kept beside the sum.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._high = np.zeros(shape)
        self._low = np.zeros(shape)

    def add(self, term: np.ndarray) -> None:
        """Add one term (any float dtype, the sum's shape)."""
        total = self._high + term
        part = total - self._high
        self._low += (self._high - (total - part)) + (term - part)
        self._high = total

    def value(self) -> np.ndarray:
        """Return the sum as float64."""
        return self._high + self._low


class Collected(Protocol):
    """The contributions of a round, as far as a rule needs them; the result does not depend on their order."""

    def take(self, site: str, weight: float, tensors: Tensors) -> None:
        """Take one site's tensors, by the names that the rule was made for."""

    def result(self) -> dict[str, np.ndarray]:
        """Return the next global tensors; at least one contribution was taken."""


@dataclass(frozen=True)
class Aggregation:
    """One rule.

    Args:
        name: as in the job configuration.
        summary: one line for help texts and reports.
        needs_pairs: whether both factors of every pair must be sent.
        new_factors: whether the result is other factors than the sites trained, so that the optimizer's moments of what
            is sent no longer belong to them and are reset.
        begin: makes the collection of a round from the shapes of all tensors and the pairs among them.
    """

    name: str
    summary: str
    needs_pairs: bool
    new_factors: bool
    begin: Callable[[Mapping[str, tuple[int, ...]], Pairs], Collected]


class MeanOfFactors:
    """The weighted mean of every tensor (the paper's FedAvg); its memory does not grow with the number of sites."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], pairs: Pairs) -> None:
        del pairs  # each factor is averaged on its own
        self._weights: list[float] = []
        self._sums = {name: CompensatedSum(shape) for name, shape in shapes.items()}

    def take(self, site: str, weight: float, tensors: Tensors) -> None:
        """Take one site's tensors."""
        del site
        self._weights.append(weight)
        for name, running in self._sums.items():
            running.add(weight * tensors[name].astype(np.float64))

    def result(self) -> dict[str, np.ndarray]:
        """Return the means."""
        total = math.fsum(self._weights)
        return {name: running.value() / total for name, running in self._sums.items()}


AGGREGATIONS = {
    rule.name: rule
    for rule in (
        Aggregation("factors", "the weighted mean of each factor (the paper's FedAvg)", False, False, MeanOfFactors),
    )
}
AGGREGATION_NAMES.stand_in(AGGREGATIONS)
