"""What a model must reach at a site before it is used there: the floors of the release gate."""

from dataclasses import dataclass

from med_duallora.settings.limits import between, check_limits, limited


@dataclass(frozen=True)
class ReleaseFloors:
    """Lowest test scores with which a model is released; 0 asks for nothing.

    Args:
        min_sensitivity: share of the site's diseased test subjects that the model must find at the site's threshold;
            below it, ``predict`` and ``export`` refuse unless told ``--ungated``. 0: no floor.
        min_specificity: likewise, share of the normal test subjects that it must call normal. Where one of these two
            floors is set, the threshold is chosen to keep it on the validation subjects.
        min_balanced_accuracy: likewise, mean of the two shares.

    Raises:
        ConfigError: a floor is out of range; quotes the value and the limit.
    """

    min_sensitivity: float = limited(0.0, between(0, 1))
    min_specificity: float = limited(0.0, between(0, 1))
    min_balanced_accuracy: float = limited(0.0, between(0, 1))

    def __post_init__(self) -> None:
        check_limits(self, "release.")

    def raised(self, other: "ReleaseFloors") -> "ReleaseFloors":
        """Return the higher of both floors of each score: who sets another one cannot lower the first."""
        return ReleaseFloors(
            max(self.min_sensitivity, other.min_sensitivity),
            max(self.min_specificity, other.min_specificity),
            max(self.min_balanced_accuracy, other.min_balanced_accuracy),
        )

    @property
    def asked(self) -> dict[str, float]:
        """Return the floors that ask for something, by the name of the score."""
        floors = {
            "sensitivity": self.min_sensitivity,
            "specificity": self.min_specificity,
            "balanced_accuracy": self.min_balanced_accuracy,
        }
        return {score: floor for score, floor in floors.items() if floor > 0}
