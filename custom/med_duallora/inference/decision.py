"""From a probability to a decision: what a site fitted to its validation subjects, where it did."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.errors import ArtifactError
from med_duallora.site.scores import THRESHOLD
from med_duallora.support.files import read_object

CALIBRATION_FILE = "calibration.json"
DISEASE, NORMAL = "disease", "normal"


@dataclass(frozen=True)
class Calibration:
    """What turns a probability into a decision.

    Args:
        threshold: from this probability on it is disease.
    """

    threshold: float = THRESHOLD

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], place: str) -> "Calibration":
        """Build from plain values; what is not there is as for a model without calibration (ArtifactError)."""
        threshold = values.get("threshold", THRESHOLD)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
            raise ArtifactError(f"{place}: threshold is {threshold!r}; it must be a number between 0 and 1")
        return cls(float(threshold))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"threshold": self.threshold}

    def decision(self, probability: float) -> str:
        """Return ``disease`` or ``normal``."""
        return DISEASE if probability >= self.threshold else NORMAL


def kept_calibration(folder: Path) -> Calibration:
    """Return what a run's folder keeps; where it keeps nothing, a probability of 0.5 decides (ArtifactError)."""
    path = folder / CALIBRATION_FILE
    try:
        return Calibration.from_dict(read_object(path), str(path))
    except FileNotFoundError:
        return Calibration()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
