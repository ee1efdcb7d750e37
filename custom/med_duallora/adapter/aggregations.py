"""How the server forms the next global adapter from the sites' adapters: pure computations, one entry per rule.

Pairs are named as (B, A) with the update B A: B (out, rank), A (rank, in). All numbers are float64.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from med_duallora.adapter.geometric import Pairs, Tensors, geometric_median
from med_duallora.settings.config import AGGREGATION_NAMES

CHUNK = 2**15
"""Numbers of a sum that are worked on together: they fit into the processor's cache."""


class CompensatedSum:
    """A running sum of arrays in double-double precision, so that the rounded result forgets the order of terms.

    Source: Knuth's TwoSum; the error of every addition is kept beside the sum.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._high = np.zeros(shape)
        self._low = np.zeros(shape)

    def add(self, term: np.ndarray) -> None:
        """Add one term (any float dtype, the sum's shape)."""
        high, low, terms = self._high.reshape(-1), self._low.reshape(-1), term.reshape(-1)
        for start in range(0, len(high), CHUNK):  # so that no array as large as the sum is made, only to be thrown away
            part = slice(start, start + CHUNK)
            _add_two(high[part], low[part], terms[part])

    def value(self) -> np.ndarray:
        """Return the sum as float64."""
        return self._high + self._low


def _add_two(high: np.ndarray, low: np.ndarray, term: np.ndarray) -> None:
    total = high + term
    part = total - high
    low += (high - (total - part)) + (term - part)
    high[:] = total


class Collected(Protocol):
    """The contributions of a round, as far as a rule needs them.

    Its memory does not grow with the number of sites. ``ScreenedRound`` hands the sites over in the order of their
    names, so that the order in which they answer changes no bit.
    """

    def take(self, weight: float, tensors: Tensors) -> None:
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
        new_factors: whether the pairs of the result are other factors than the sites trained, so that the optimizer's
            moments of these no longer belong to them and are reset.
        begin: makes the collection of a round from the shapes of all tensors and the pairs among them.
        weigh: gives the weights with which the contributions are collected, from all of them, their weights and the
            pairs; None: the weights that they have.
        in_turns: whether only one factor of every pair trains in a round, A and B in turns, and all sites keep the
            other one as it came: the mean of the products is then the product of the means.
    """

    name: str
    summary: str
    needs_pairs: bool
    new_factors: bool
    begin: Callable[[Mapping[str, tuple[int, ...]], Pairs], Collected]
    weigh: Callable[[Sequence[Tensors], Sequence[float], Pairs], list[float]] | None = None
    in_turns: bool = False

    @property
    def of_products(self) -> bool:
        """Return whether the result is formed from products B A, its components in the order of their strength."""
        return self.needs_pairs and not self.in_turns


class MeanOfFactors:
    """The weighted mean of every tensor (the paper's FedAvg), the same to the bit in whatever order sites are taken."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], pairs: Pairs) -> None:
        del pairs  # each factor is averaged on its own
        self._weights: list[float] = []
        self._sums = {name: CompensatedSum(shape) for name, shape in shapes.items()}

    def take(self, weight: float, tensors: Tensors) -> None:
        """Take one site's tensors."""
        self._weights.append(weight)
        for name, running in self._sums.items():
            running.add(weight * tensors[name].astype(np.float64))

    def result(self) -> dict[str, np.ndarray]:
        """Return the means."""
        total = math.fsum(self._weights)
        return {name: running.value() / total for name, running in self._sums.items()}


class SideBySide:
    """A sum of products B A as one product: all B side by side, all A below each other, never larger than the sum.

    A term costs the same whatever was added before: terms are only kept until together they are larger than the sum,
    which from then on takes each new one.

    Args:
        n_out: rows of the sum.
        n_in: columns of the sum.
    """

    def __init__(self, n_out: int, n_in: int) -> None:
        self._shape = (n_out, n_in)
        self._terms: list[tuple[np.ndarray, np.ndarray]] = []
        self._whole: np.ndarray | None = None

    def add(self, b: np.ndarray, a: np.ndarray) -> None:
        """Add the product of b (out, rank) and a (rank, in), which are not copied."""
        if self._whole is not None:
            self._whole += b @ a
            return
        self._terms.append((b, a))
        if sum(len(a) for _, a in self._terms) > min(self._shape):
            b, a = self.factors()
            self._whole, self._terms = b @ a, []

    def factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return B (out, n), n at most the smaller one of out and in, and A (n, in)."""
        n_out, n_in = self._shape
        if self._whole is not None:
            return (np.eye(n_out), self._whole) if n_out <= n_in else (self._whole, np.eye(n_in))
        b = np.hstack([np.zeros((n_out, 0)), *(b for b, _ in self._terms)])
        return b, np.vstack([np.zeros((0, n_in)), *(a for _, a in self._terms)])


class BestOfProducts:
    """The best approximation of the weighted mean of the products B A that its rank allows; other tensors are averaged.

    ``sum p B A`` is the product of the factors of all sites side by side, so QR of these and the SVD of the small core
    between them give its singular values without forming it. B takes the singular values and A keeps rows of length 1:
    a direction that carries nothing yet can still be learnt along, which equal shares for both would end for good.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], pairs: Pairs) -> None:
        self._weights: list[float] = []
        paired = {name for pair in pairs for name in pair}
        self._means = MeanOfFactors({name: shape for name, shape in shapes.items() if name not in paired}, ())
        self._sums = {(b, a): SideBySide(shapes[b][0], shapes[a][1]) for b, a in pairs}
        self._ranks = {(b, a): shapes[a][0] for b, a in pairs}

    def take(self, weight: float, tensors: Tensors) -> None:
        """Take one site's tensors."""
        self._weights.append(weight)
        self._means.take(weight, tensors)
        for (b, a), running in self._sums.items():
            running.add(weight * tensors[b].astype(np.float64), tensors[a].astype(np.float64))

    def result(self) -> dict[str, np.ndarray]:
        """Return the best factors of every pair, and the means of the rest."""
        total = math.fsum(self._weights)
        found = self._means.result()
        for (b, a), running in self._sums.items():
            all_b, all_a = running.factors()
            found[b], found[a] = best_factors(all_b / total, all_a, self._ranks[b, a])
        return found


def best_factors(b: np.ndarray, a: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return B (out, rank) and A (rank, in) with the product of rank ``rank`` that is closest to ``b @ a``.

    Args:
        b: (out, n).
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
            "alternate",
            "the same mean, while A and B train in turns, a round each, so that nothing is lost by averaging factors",
            True,
            False,
            MeanOfFactors,
            in_turns=True,
        ),
        Aggregation(
            "svd", "the best of its rank for the weighted mean of the products B A", True, True, BestOfProducts
        ),
        Aggregation(
            "geometric-median",
            "the same for the geometric median of the products, which a minority of sites cannot pull far",
            True,
            True,
            BestOfProducts,
            geometric_median,
        ),
    )
}
AGGREGATION_NAMES.stand_in(AGGREGATIONS)
