"""How the augmented views of a subject differ from it."""

from dataclasses import dataclass

from med_duallora.settings.limits import Limit, below, between, check_limits, limited


def _are_range(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and 0 < values[0] <= values[1] <= 100


@dataclass(frozen=True)
class AugmentConfig:
    """Random image changes of the augmented views, drawn before the frozen trunk (CineMA's classifier recipe).

    Args:
        probability: probability of each of the two transforms, intensity and geometry.
        gamma: range of the intensity exponent on [0, 1] images.
        rotation_degrees: largest rotation about the slice axis.
        shift_mm: largest in-plane shift along each axis.
        scale: largest relative zoom.
    """

    probability: float = limited(0.5, between(0, 1))
    gamma: tuple[float, ...] = limited((0.5, 1.5), Limit("two increasing positive numbers of at most 100", _are_range))
    rotation_degrees: float = limited(180.0, between(0, 180))
    shift_mm: float = limited(20.0, between(0, 96))
    scale: float = limited(0.1, below(0, 1))

    def __post_init__(self) -> None:
        check_limits(self, "augment.")
