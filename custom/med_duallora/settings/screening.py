"""How much a single site may move the global adapter in a round."""

from dataclasses import dataclass

from med_duallora.settings.limits import Limit, above, check_limits, limited

MAX_FACTOR = 1e6


def _multiple(low: float) -> Limit:
    """Allow 0, which switches a rule off, or a multiple of a median from ``low`` on."""
    return Limit(
        f"0 (off), or between {low:g} and {MAX_FACTOR:g}", lambda value: value == 0 or low <= value <= MAX_FACTOR
    )


@dataclass(frozen=True)
class ScreeningConfig:
    """How much a single site may move the global adapter in a round.

    An update is the difference between what a site sends and the global adapter that it was given, all tensors as one
    vector. Medians need three sites: with fewer nobody can tell which one is wrong, and only ``max_change`` and
    ``max_weight`` hold.

    Args:
        norm_limit: a contribution whose update is longer than this multiple of the round's median is refused; 0: no
            such limit.
        clip: an update that is longer than this multiple of the round's median is scaled down to it, and the round's
            record says so; 0: updates count as they are.
        max_change: a contribution that changes one of its tensors by more than this in a round, as root mean square of
            the changes of its elements, is refused. The elements of an adapter are small numbers, and training changes
            them by much less.
        weight_limit: a weight above this multiple of the round's median counts as that multiple, and the round's record
            says so; 0: weights count as they are. Below the square root of 2 one site of three cannot outweigh two
            others whose updates have nothing in common. Raise it where the sites' numbers of subjects are known to be
            true and should count in full.
        max_weight: a weight above this counts as this one. It is far above the number of training subjects of the
            usual cardiac cohort, and far below what would silence the others by a slip.
    """

    norm_limit: float = limited(10.0, _multiple(2))
    clip: float = limited(1.0, _multiple(1))
    max_change: float = limited(10.0, above(0, MAX_FACTOR))
    weight_limit: float = limited(1.4, _multiple(1))
    max_weight: float = limited(10_000.0, above(0, 1e9))

    def __post_init__(self) -> None:
        check_limits(self, "workflow.screening.")
