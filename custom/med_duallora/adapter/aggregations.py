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


class BestOfProducts:
    """The best approximation of the weighted mean of the products B A that its rank allows; other tensors are averaged.

    ``sum p B A`` is the product of the factors of all sites side by side, so QR of these and the SVD of the small core
    between them give its singular values without forming it. B takes the singular values and A keeps rows of length 1:
    a direction that carries nothing yet can still be learnt along, which equal shares for both would end for good.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], pairs: Pairs) -> None:
        self._pairs = pairs
        paired = {name for pair in pairs for name in pair}
        self._means = MeanOfFactors({name: shape for name, shape in shapes.items() if name not in paired}, ())
        self._taken: dict[str, tuple[float, Tensors]] = {}

    def take(self, site: str, weight: float, tensors: Tensors) -> None:
        """Take one site's tensors; the memory is that of the adapters of all sites."""
        self._means.take(site, weight, tensors)
        self._taken[site] = weight, {name: tensors[name].astype(np.float64) for pair in self._pairs for name in pair}

    def result(self) -> dict[str, np.ndarray]:
        """Return the best factors of every pair, and the means of the rest."""
        taken = [self._taken[site] for site in sorted(self._taken)]
        total = math.fsum(weight for weight, _ in taken)
        found = self._means.result()
        for b, a in self._pairs:
            side_by_side = np.concatenate([weight / total * tensors[b] for weight, tensors in taken], axis=1)
            stacked = np.concatenate([tensors[a] for _, tensors in taken])
            found[b], found[a] = best_factors(side_by_side, stacked, rank=taken[0][1][a].shape[0])
        return found


def best_factors(b: np.ndarray, a: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return B (out, rank) and A (rank, in) with the product of rank ``rank`` that is closest to ``b @ a``.

    Args:
        b: (out, n), with n at least ``rank``.
        a: (n, in).
        rank: of the result.
    """
    (q_b, r_b), (q_a, r_a) = np.linalg.qr(b), np.linalg.qr(a.T)
    left, values, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    n = min(rank, len(values))
    new_b, new_a = (q_b @ left[:, :n]) * values[:n], right[:n] @ q_a.T
    signs = np.where(new_a[np.arange(n), np.abs(new_a).argmax(axis=1)] < 0, -1.0, 1.0)
    new_b, new_a = new_b * signs, new_a * signs[:, None]
    # a rank above both dimensions of the layer has no more directions
    missing = rank - n
    return np.pad(new_b, ((0, 0), (0, missing))), np.pad(new_a, ((0, missing), (0, 0)))


AGGREGATIONS = {
    rule.name: rule
    for rule in (
        Aggregation("factors", "the weighted mean of each factor (the paper's FedAvg)", False, False, MeanOfFactors),
        Aggregation(
            "svd", "the best of its rank for the weighted mean of the products B A", True, True, BestOfProducts
        ),
    )
}
AGGREGATION_NAMES.stand_in(AGGREGATIONS)
