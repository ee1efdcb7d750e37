"""What one step of a site offers: made where the numbers come about, compared where they would leave."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from med_duallora.support.digest import content_digest

EVALUATES_ONLY = "this site evaluates only: role of the site configuration is predict"


@dataclass(frozen=True)
class Offer:
    """What a step of a site's own work lets out; nothing else may leave in its name.

    Only the step itself makes one, so what changes the model afterwards, or a payload on its way, offers nothing.

    Args:
        metrics: by the contract's names, as the site's policy lets them out.
        round_index: that was trained; None for a step that only scores.
        weight: of the site in the aggregation; None likewise.
        digests: of the tensors that leave, by name; empty likewise.
    """

    metrics: Mapping[str, float]
    round_index: int | None = None
    weight: float | None = None
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("metrics", "digests"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @classmethod
    def of_round(
        cls, round_index: int, weight: float, tensors: Mapping[str, np.ndarray], metrics: Mapping[str, float]
    ) -> "Offer":
        """Return the offer of a trained round."""
        return cls(metrics, round_index, weight, {name: _digest(name, value) for name, value in tensors.items()})

    def holds(self, name: str, value: np.ndarray) -> bool:
        """Return whether a tensor is the offered one of this name, in every byte, in dtype and in shape."""
        return self.digests.get(name) == _digest(name, value)

    def is_of(self, tensors: Mapping[str, np.ndarray]) -> bool:
        """Return whether the offered tensors are these and no others."""
        return set(tensors) == set(self.digests) and all(self.holds(name, value) for name, value in tensors.items())


@dataclass(frozen=True)
class SiteUpdate:
    """What a site offers after a round; the egress filter decides what of it leaves.

    Args:
        tensors: the parameters that the method sends, float32.
        weight: the site's weight in the aggregation.
        metrics: by the contract's names.
    """

    tensors: dict[str, np.ndarray]
    weight: float
    metrics: dict[str, float]


def _digest(name: str, value: np.ndarray) -> str:
    return content_digest({name: value}, {})
