"""The contributions of a round, checked one at a time and aggregated by a rule, whatever the order of the answers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from med_duallora.adapter.aggregations import AGGREGATIONS, Aggregation, CompensatedSum
from med_duallora.boundary.contract import MAX_WEIGHT, EgressContract
from med_duallora.errors import AggregationError, EgressViolation


@dataclass(frozen=True)
class AggregationResult:
    """What a round gave.

    Args:
        tensors: the next global state (the previous one, unchanged, where nobody contributed).
        sites: who contributed, in alphabetical order.
        total_weight: sum of the weights.
        residual: relative Frobenius norm of what the rule loses against averaging the products,
            ``|sum p B A - B' A'| / |sum p B A|`` over all pairs, with B' A' the next global adapter and p the
            shares with which the rule counts the contributions; None without contributions, and where not both factors
            are sent.
    """

    tensors: dict[str, np.ndarray]
    sites: tuple[str, ...]
    total_weight: float
    residual: float | None


class RoundAccumulator:
    """Checks and collects the contributions of one round in time.

    Args:
        contract: what a contribution must hold.
        round_index: the round that is being collected.
        rule: how the next global adapter is formed.
    """

    def __init__(self, contract: EgressContract, round_index: int, rule: Aggregation = AGGREGATIONS["factors"]) -> None:
        self.contract = contract
        self.round_index = round_index
        self._weights: dict[str, float] = {}
        shapes = {name: spec.shape for name, spec in contract.tensors.items()}
        self._collected = rule.begin(shapes, contract.pairs)
        self._products: dict[tuple[str, str], CompensatedSum] = {}

    @property
    def n_sites(self) -> int:
        """Return how many contributions were taken."""
        return len(self._weights)

    def add(self, site: str, round_index: int, weight: float, tensors: Mapping[str, np.ndarray]) -> None:
        """Take one site's contribution, or leave everything as it was.

        Raises:
            AggregationError: another round than the current one; a second contribution of the site; a weight that
                is not a number above 0 and at most ``MAX_WEIGHT``; tensors outside the contract.
        """
        self.take(site, weight, self.checked(site, round_index, weight, tensors))

    def checked(
        self, site: str, round_index: int, weight: float, tensors: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return copies of a contribution's tensors, and take nothing (AggregationError: see ``add``)."""
        if round_index != self.round_index:
            raise AggregationError(f"{site} answers round {round_index}, but round {self.round_index} is open")
        if site in self._weights:
            raise AggregationError(f"{site} has already contributed to round {round_index}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
            raise AggregationError(f"{site} has weight {weight!r}, expected a number above 0, at most {MAX_WEIGHT:g}")
        try:
            return self.contract.check_tensors(dict(tensors))
        except EgressViolation as violation:
            raise AggregationError(f"{site}: {violation}") from violation

    def take(self, site: str, weight: float, checked: Mapping[str, np.ndarray]) -> None:
        """Take a contribution that ``checked`` returned."""
        self._weights[site] = weight
        self._collected.take(weight, checked)
        for pair in self.contract.pairs:
            b, a = (checked[name].astype(np.float64) for name in pair)
            product = b @ a
            product *= weight
            # made with the first contribution that is taken: what only checks needs no room for the sums
            self._products.setdefault(pair, CompensatedSum(product.shape)).add(product)

    def result(self, previous: Mapping[str, np.ndarray]) -> AggregationResult:
        """Return the next global state, or ``previous`` unchanged where nobody contributed."""
        sites = tuple(sorted(self._weights))
        if not sites:
            return AggregationResult(dict(previous), (), 0.0, None)
        total = math.fsum(self._weights.values())
        found = self._collected.result()
        with np.errstate(over="ignore"):  # whoever uses the result asks whether it is finite
            tensors = {name: value.astype(self.contract.tensors[name].dtype) for name, value in found.items()}
        return AggregationResult(tensors, sites, total, self._residual(found, total) if self._products else None)

    def _residual(self, found: Mapping[str, np.ndarray], total: float) -> float:
        lost = whole = 0.0
        for (b, a), running in self._products.items():
            product = running.value() / total
            lost += float(np.square(product - found[b] @ found[a]).sum())
            whole += float(np.square(product).sum())
        return math.sqrt(lost / whole) if whole else 0.0
