"""The server's view of a whole round: which contributions count, how much, and whether there are enough of them.

What is far larger than the others can only be told when all have answered. So contributions wait on disk, and the
memory is that of one of them, however many sites there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from med_duallora.adapter.aggregations import AGGREGATIONS, Aggregation
from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import AggregationError
from med_duallora.server.aggregation import AggregationResult, RoundAccumulator
from med_duallora.server.influence import Claim, influence
from med_duallora.server.spool import Spool
from med_duallora.settings.limits import Limit, between, check_limits, limited
from med_duallora.settings.screening import ScreeningConfig
from med_duallora.settings.workflow import MAX_SITES

Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RoundRules(ScreeningConfig):
    """When a contribution, and a round, counts.

    To the settings of ``ScreeningConfig`` come:

    Args:
        min_sites: with fewer contributions left, the global adapter stays as it was.
        sites: names of the sites that may contribute; empty: any.

    Raises:
        ConfigError: a limit is out of range.
    """

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
        clipped: site -> the factor, below 1, by which its update was scaled down.
        capped: site -> the weight with which it counted instead of the one that it claimed.
    """

    aggregation: AggregationResult
    refused: Mapping[str, str]
    remark: str
    clipped: Mapping[str, float] = field(default_factory=dict)
    capped: Mapping[str, float] = field(default_factory=dict)

    def limited(self) -> list[str]:
        """Return what the log should say of contributions that counted for less than they claimed."""
        clipped = ", ".join(f"{site} to {factor:.3g}" for site, factor in self.clipped.items())
        capped = ", ".join(f"{site} with {weight:g}" for site, weight in self.capped.items())
        lines = [f"updates scaled down to the length that the round allows: {clipped}"] if clipped else []
        return lines + ([f"weights above what the round allows count less: {capped}"] if capped else [])


class ScreenedRound:
    """Collects the contributions of one round and aggregates those that count.

    Args:
        contract: what a contribution must hold.
        round_index: the round that is being collected.
        rules: see ``RoundRules``.
        rule: how the next global adapter is formed.
        weighting: what a weight means, as in the job.
    """

    def __init__(
        self,
        contract: EgressContract,
        round_index: int,
        rules: RoundRules | None = None,
        rule: Aggregation = AGGREGATIONS["factors"],
        weighting: str = "subjects",
    ) -> None:
        self.contract = contract
        self.round_index = round_index
        self.rules = rules or RoundRules()
        self.rule = rule
        self.weighting = weighting
        self._gate = RoundAccumulator(contract, round_index)
        self._weights: dict[str, float] = {}
        self._spool = Spool(contract.tensors)

    @property
    def n_sites(self) -> int:
        """Return how many contributions were taken so far."""
        return len(self._weights)

    def add(
        self, site: str, round_index: int, weight: float, tensors: Tensors, n_subjects: float | None = None
    ) -> None:
        """Take one site's contribution, or leave everything as it was.

        Args:
            site: its name.
            round_index: the round that it answers.
            weight: that it claims.
            tensors: by the contract's names.
            n_subjects: that it says it trained on; None: it does not say.

        Raises:
            AggregationError: an unknown site; a second contribution; another weight than its own number of subjects;
                whatever ``RoundAccumulator.add`` refuses; no room to keep it.
        """
        if self.rules.sites and site not in self.rules.sites:
            raise AggregationError(f"{site} is not a site of this job")
        if site in self._weights:
            raise AggregationError(f"{site} has already contributed to round {round_index}")
        checked = self._gate.checked(site, round_index, weight, tensors)
        if self.weighting == "subjects" and n_subjects is not None and n_subjects != weight:
            raise AggregationError(f"{site} has weight {weight:g}, but says that it trained on {n_subjects:g} subjects")
        try:
            self._spool.write(self.n_sites, checked)
        except OSError as error:
            raise AggregationError(f"no room to keep the contribution of {site}: {error.strerror or error}") from error
        self._weights[site] = weight

    def result(self, previous: Tensors) -> ScreenedResult:
        """Return the aggregate of what counts, or ``previous`` unchanged where too little counts or overflows."""
        places = {site: place for place, site in enumerate(self._weights)}
        claims = {s: Claim.of(self._weights[s], self._spool.read(places[s]), previous) for s in sorted(places)}
        allowed = influence(claims, self.rules, self.weighting)
        left = [site for site in claims if site not in allowed.refused]
        counted = _Counted(self._spool, [(places[site], allowed.clipped.get(site, 1.0)) for site in left], previous)
        weights = [allowed.capped.get(site, self._weights[site]) for site in left]
        found, remark = self._aggregated(left, weights, counted, previous)
        if remark:
            unmoved = AggregationResult(dict(previous), (), 0.0, None)
            return ScreenedResult(unmoved, allowed.refused, f"{remark}: the global adapter stays as it was")
        return ScreenedResult(found, allowed.refused, "", allowed.clipped, allowed.capped)

    def _aggregated(
        self, sites: Sequence[str], weights: Sequence[float], counted: "_Counted", previous: Tensors
    ) -> tuple[AggregationResult, str]:
        """Return the aggregate, and why it cannot be used; empty: it can."""
        if self.rule.weigh and sites:
            weights = self.rule.weigh(counted, weights, self.contract.pairs)
        accumulator = RoundAccumulator(self.contract, self.round_index, self.rule)
        for place, (site, weight) in enumerate(zip(sites, weights, strict=True)):
            accumulator.take(site, weight, counted[place])
        found, needed = accumulator.result(previous), self.rules.min_sites
        if len(sites) < needed:
            return found, f"{len(sites)} valid contributions, {needed} needed"
        if not all(np.isfinite(value).all() for value in found.tensors.values()):
            return found, "the contributions are too large for an adapter of their kind"
        return found, ""


class _Counted(Sequence[Tensors]):
    """The contributions that count, as they count, one at a time from the disk.

    Args:
        spool: that keeps them.
        places: of each, and the factor by which its update is scaled down.
        previous: the global state that was sent out.
    """

    def __init__(self, spool: Spool, places: Sequence[tuple[int, float]], previous: Tensors) -> None:
        self._spool, self._places, self._previous = spool, places, previous

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        place, factor = self._places[index]
        tensors = self._spool.read(place)
        return (
            tensors
            if factor == 1
            else {name: _scaled(value, self._previous[name], factor) for name, value in tensors.items()}
        )


def _scaled(value: np.ndarray, previous: np.ndarray, factor: float) -> np.ndarray:
    """Return a tensor whose change is scaled by a factor, in float64."""
    before = previous.astype(np.float64)
    scaled: np.ndarray = before + factor * (value - before)
    return scaled
