"""``calibration.json``: what a site's evaluation left about the model that it evaluated; it never leaves the site."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from med_duallora.errors import ArtifactError, ConfigError, StateError
from med_duallora.measures import CHOICES, FEDERATED
from med_duallora.settings.limits import between, check_limits, limited, one_of
from med_duallora.settings.reading import built
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import Calibration
from med_duallora.site.state import private_folder, state_checksum
from med_duallora.support.files import read_object, write_json
from med_duallora.support.private import open_own
from med_duallora.support.proportions import Counts

CALIBRATION_FILE = "calibration.json"
PREDICTIONS_FILE = "predictions.json"
"""What each variant of the model says of every test subject."""
FORMAT = "1"
_COUNT = between(0, 1_000_000_000)


@dataclass(frozen=True)
class KeptCounts:
    """How the test subjects were classified at the site's threshold, see ``proportions.Counts``.

    Args:
        hits: diseased subjects that were found.
        n_positive: diseased subjects.
        rejections: normal subjects that were called normal.
        n_negative: normal subjects.

    Raises:
        ConfigError: more subjects are right than there are.
    """

    hits: int = limited(0, _COUNT.also("at most n_positive", lambda found: found.hits <= found.n_positive))
    n_positive: int = limited(0, _COUNT)
    rejections: int = limited(0, _COUNT.also("at most n_negative", lambda found: found.rejections <= found.n_negative))
    n_negative: int = limited(0, _COUNT)

    def __post_init__(self) -> None:
        check_limits(self, "test.")

    @property
    def counts(self) -> Counts:
        """Return them as those of a report."""
        return Counts(self.hits, self.n_positive, self.rejections, self.n_negative)


@dataclass(frozen=True)
class KeptChoice:
    """Which model the site uses, see ``site.choice``.

    Args:
        variant: one of ``measures.CHOICES``.
        why: a sentence for people; empty where nothing was chosen.
        state: checksum of the state in the folder ``chosen``; empty where the one with both adapters is used.

    Raises:
        ConfigError: there is no such model.
    """

    variant: str = limited(FEDERATED, one_of(*CHOICES))
    why: str = ""
    state: str = ""

    def __post_init__(self) -> None:
        check_limits(self, "chosen.")


@dataclass(frozen=True)
class KeptCalibration:
    """What an evaluation at a site leaves beside the state that it evaluated.

    Args:
        site: name of the site.
        experiment: name of the experiment.
        phantoms: whether the cohort holds synthetic phantoms.
        state: checksum of the evaluated state; empty where the site had none.
        calibration: of the chosen model, fitted to the validation subjects.
        release: the site's floors at that time.
        test: the test subjects at the calibration's threshold.
        chosen: which model is used.
        format: of the file.
        not_for_diagnosis: always true.

    Raises:
        ConfigError: a value is out of range.
    """

    site: str
    experiment: str
    phantoms: bool
    state: str
    calibration: Calibration
    release: ReleaseFloors = field(default_factory=ReleaseFloors)
    test: KeptCounts = field(default_factory=KeptCounts)
    chosen: KeptChoice = field(default_factory=KeptChoice)
    format: str = limited(FORMAT, one_of(FORMAT))
    not_for_diagnosis: bool = True

    def __post_init__(self) -> None:
        check_limits(self, "")

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain JSON values; ``from_dict`` gives an equal one back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "KeptCalibration":
        """Build from nested plain values; what is unknown, missing or out of range raises ConfigError."""
        return built(cls, values, "")

    def under(self, floors: ReleaseFloors) -> "KeptCalibration":
        """Return the same evaluation under further floors; the threshold stays, it was fitted under the former ones."""
        return dataclasses.replace(self, release=self.release.raised(floors))

    def is_of(self, state: Path) -> bool:
        """Return whether a file holds the state that was evaluated."""
        return bool(self.state) and self.state == state_checksum(state)


def keep(directory: Path, kept: KeptCalibration) -> None:
    """Write it into a run's folder, mode 0600 (StateError where that cannot be done)."""
    private_folder(directory.parent, directory)
    try:
        write_json(directory / CALIBRATION_FILE, kept.to_dict(), 0o600)
    except OSError as error:
        raise StateError(f"the calibration cannot be kept in state_dir ({error.strerror}); make room") from error


def keep_predictions(directory: Path, rows: list[dict[str, Any]]) -> None:
    """Write what each variant says of the test subjects, mode 0600 (StateError where that cannot be done)."""
    private_folder(directory.parent, directory)
    try:
        write_json(directory / PREDICTIONS_FILE, {"not_for_diagnosis": True, "predictions": rows}, 0o600)
    except OSError as error:
        raise StateError(f"the predictions cannot be kept in state_dir ({error.strerror}); make room") from error


def read_kept(directory: Path) -> KeptCalibration | None:
    """Return what an evaluation left in a run's folder; None where none ended there.

    Raises:
        ArtifactError: the file is damaged, cannot be read, is a link or of another version.
    """
    path = directory / CALIBRATION_FILE
    try:
        return KeptCalibration.from_dict(read_object(path, open_own))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}") from error
    except (ValueError, ConfigError) as error:
        raise ArtifactError(f"{path} is damaged or of another version: {error}; evaluate the model again") from error
