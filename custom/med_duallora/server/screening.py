"""The server's view of a whole round: which contributions count, and whether there are enough of them.

What is far larger than the others can only be told when all have answered. So contributions wait on disk, in a file
without a name that vanishes with the process, and the memory is that of one of them, however many sites there are.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from med_duallora.adapter.aggregations import AGGREGATIONS, Aggregation
from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import AggregationError
from med_duallora.server.aggregation import AggregationResult, RoundAccumulator
from med_duallora.settings.limits import Limit, between, check_limits, limited
from med_duallora.settings.workflow import MAX_SITES


def _is_norm_limit(value: float) -> bool:
    return value == 0 or 2 <= value <= 1e6


@dataclass(frozen=True)
class RoundRules:
    """When a contribution, and a round, counts.

    Args:
        norm_limit: a contribution whose update (its difference to the global state that was sent out) has a norm above
            this multiple of the round's median is refused; 0: no limit. With one or two sites there is no majority to
            compare with, and nothing is refused.
        min_sites: with fewer contributions left, the global adapter stays as it was.
        sites: names of the sites that may contribute; empty: any.

    Raises:
        ConfigError: a limit is out of range.
    """

    norm_limit: float = limited(10.0, Limit("0 (off), or between 2 and 1e+06", _is_norm_limit))
    min_sites: int = limited(1, between(1, MAX_SITES))
    sites: frozenset[str] = limited(frozenset(), Limit("a list of names, none of them empty", all))

    def __post_init__(self) -> None:
        check_limits(self, "")


@dataclass(frozen=True)
class ScreenedResult:
    """What a round gave after screening.

    Args:
        aggregation: see ``AggregationResult``; the previous state where too few contributions were left.
        refused: site -> why its contribution was left out after all.
        remark: what the log should say of the round as a whole; empty where all is well.
    """

    aggregation: AggregationResult
    refused: Mapping[str, str]
    remark: str


class ScreenedRound:
    """Collects the contributions of one round and aggregates those that count.

    Args:
        contract: what a contribution must hold.
        round_index: the round that is being collected.
        rules: see ``RoundRules``.
        rule: how the next global adapter is formed.
    """

    def __init__(
        self,
        contract: EgressContract,
        round_index: int,
        rules: RoundRules | None = None,
        rule: Aggregation = AGGREGATIONS["factors"],
    ) -> None:
        self.contract = contract
        self.round_index = round_index
        self.rules = rules or RoundRules()
        self.rule = rule
        self._gate = RoundAccumulator(contract, round_index)
        self._weights: dict[str, float] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the round; no name, so nothing is left

    @property
    def n_sites(self) -> int:
        """Return how many contributions were taken so far."""
        return len(self._weights)

    def add(self, site: str, round_index: int, weight: float, tensors: Mapping[str, np.ndarray]) -> None:
        """Take one site's contribution, or leave everything as it was.

        Raises:
            AggregationError: an unknown site; a second contribution; whatever ``RoundAccumulator.add`` refuses; no room
                to keep it.
        """
        if self.rules.sites and site not in self.rules.sites:
            raise AggregationError(f"{site} is not a site of this job")
        if site in self._weights:
            raise AggregationError(f"{site} has already contributed to round {round_index}")
        checked = self._gate.checked(site, round_index, weight, tensors)
        try:
            self._file.seek(self.n_sites * self.contract.tensor_bytes)
            for name in self.contract.tensors:
                self._file.write(checked[name].tobytes())
            self._file.flush()
        except OSError as error:
            raise AggregationError(f"no room to keep the contribution of {site}: {error.strerror or error}") from error
        self._weights[site] = weight

    def result(self, previous: Mapping[str, np.ndarray]) -> ScreenedResult:
        """Return the aggregate of what counts, or ``previous`` unchanged where too little does."""
        refused = self._outliers(previous)
        accumulator = RoundAccumulator(self.contract, self.round_index, self.rule)
        for site, tensors in self._contributions():
            if site not in refused:
                accumulator.take(site, self._weights[site], tensors)
        n_needed, n_left = self.rules.min_sites, accumulator.n_sites
        if n_left < n_needed:
            remark = f"{n_left} valid contributions, {n_needed} needed: the global adapter stays as it was"
            return ScreenedResult(AggregationResult(dict(previous), (), 0.0, None), refused, remark)
        return ScreenedResult(accumulator.result(previous), refused, "")

    def _outliers(self, previous: Mapping[str, np.ndarray]) -> dict[str, str]:
        if not self.rules.norm_limit or not self._weights:
            return {}
        norms = {site: _norm(tensors, previous) for site, tensors in self._contributions()}
        middle = median(norms.values())
        limit = self.rules.norm_limit
        return {
            site: f"its update is {norm / middle:.3g} times the median of this round, the limit is {limit:g}"
            for site, norm in norms.items()
            if 0 < limit * middle < norm
        }

    def _contributions(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        self._file.seek(0)
        for site in self._weights:
            tensors = {}
            for name, spec in self.contract.tensors.items():
                dtype = np.dtype(spec.dtype)
                data = self._file.read(spec.n_elements * dtype.itemsize)
                tensors[name] = np.frombuffer(data, dtype=dtype).reshape(spec.shape)
            yield site, tensors


def _norm(tensors: Mapping[str, np.ndarray], previous: Mapping[str, np.ndarray]) -> float:
    """Return the Frobenius norm of all changes together, in float64."""
    squares = (np.square(value.astype(np.float64) - previous[name]).sum() for name, value in tensors.items())
    return float(np.sqrt(sum(squares)))
