"""How much each contribution of a round counts: a pure rule over the lengths of the updates and the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np

from med_duallora.settings.screening import ScreeningConfig

MAJORITY = 3
"""With fewer sites a median says nothing about who is wrong."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a contribution claims for itself.

    Args:
        weight: its weight in the average.
        norm: Frobenius norm of its whole update.
        change: the largest change of a tensor, as root mean square over its elements.
    """

    weight: float
    norm: float
    change: float

    @classmethod
    def of(cls, weight: float, tensors: Mapping[str, np.ndarray], previous: Mapping[str, np.ndarray]) -> "Claim":
        """Measure a contribution against the global state that was sent out, in float64."""
        squares = {name: np.square(value.astype(np.float64) - previous[name]) for name, value in tensors.items()}
        norm = np.sqrt(sum(value.sum() for value in squares.values()))
        changes = (np.sqrt(value.mean()) for value in squares.values() if value.size)
        return cls(weight, float(norm), float(max(changes, default=0.0)))


@dataclass(frozen=True)
class Influence:
    """How much each contribution of a round counts.

    Args:
        refused: site -> why it does not count at all.
        clipped: site -> the factor, below 1, by which its update is scaled down.
        capped: site -> the weight with which it counts instead of the one that it claims.
    """

    refused: Mapping[str, str]
    clipped: Mapping[str, float]
    capped: Mapping[str, float]


def influence(claims: Mapping[str, Claim], limits: ScreeningConfig, weighting: str = "subjects") -> Influence:
    """Return how much each contribution counts.

    Args:
        claims: by site.
        limits: see ``ScreeningConfig``.
        weighting: as in the job; with ``uniform`` every weight counts as 1.
    """
    refused = _too_large(claims, limits)
    refused |= _far(_without(claims, refused), limits)
    left = _without(claims, refused)
    return Influence(refused, _clipped(left, limits), _capped(left, limits, weighting))


def _without(claims: Mapping[str, Claim], refused: Mapping[str, str]) -> dict[str, Claim]:
    """Return the claims that still count: what was refused must not move the medians of the others."""
    return {site: claim for site, claim in claims.items() if site not in refused}


def _too_large(claims: Mapping[str, Claim], limits: ScreeningConfig) -> dict[str, str]:
    limit = limits.max_change
    return {
        site: f"it changes a tensor by {claim.change:.3g} (root mean square), the limit of a round is {limit:g}"
        for site, claim in claims.items()
        if claim.change > limit
    }


def _far(claims: Mapping[str, Claim], limits: ScreeningConfig) -> dict[str, str]:
    limit = limits.norm_limit
    if not limit or len(claims) < MAJORITY:
        return {}
    middle = median(claim.norm for claim in claims.values())
    return {
        site: f"its update is {claim.norm / middle:.3g} times the median of this round, the limit is {limit:g}"
        for site, claim in claims.items()
        if 0 < limit * middle < claim.norm
    }


def _clipped(claims: Mapping[str, Claim], limits: ScreeningConfig) -> dict[str, float]:
    if not limits.clip or len(claims) < MAJORITY:
        return {}
    # a median of 0 allows no update: most sites say that there is nothing new
    longest = limits.clip * median(claim.norm for claim in claims.values())
    return {site: longest / claim.norm for site, claim in claims.items() if claim.norm > longest}


def _capped(claims: Mapping[str, Claim], limits: ScreeningConfig, weighting: str) -> dict[str, float]:
    if weighting == "uniform":
        return {site: 1.0 for site, claim in claims.items() if claim.weight != 1}
    most = limits.max_weight
    if limits.weight_limit and len(claims) >= MAJORITY:
        most = min(most, limits.weight_limit * median(min(claim.weight, most) for claim in claims.values()))
    return {site: most for site, claim in claims.items() if claim.weight > most}
