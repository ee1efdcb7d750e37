"""Reads what an evaluation left in a site's run folder: calibration and predictions that belong together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.errors import ArtifactError
from med_duallora.inference.gate import Gate, gate_of_kept
from med_duallora.settings.kinds import is_finite_number
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import Labels, Values
from med_duallora.site.kept_calibration import CALIBRATION_FILE, PREDICTIONS_FILE, KeptCalibration, read_kept
from med_duallora.site.state import STATE_FILE
from med_duallora.support.files import read_object
from med_duallora.support.private import open_own


@dataclass(frozen=True)
class SiteRun:
    """What the page of a site's run shows.

    Args:
        kept: calibration, floors and counts.
        is_current: whether the newest state of the run is the one that was evaluated.
        labels: (n_test,) 0 or 1.
        chances: (n_test,) probability of disease by the model that the site uses.
    """

    kept: KeptCalibration
    is_current: bool
    labels: Labels
    chances: Values

    @property
    def gate(self) -> Gate:
        """Return whether the model is released."""
        return gate_of_kept(self.kept, self.is_current)


def is_site_run(directory: Path) -> bool:
    """Return whether a folder is the one of a run at a site in which an evaluation ended."""
    return (directory / CALIBRATION_FILE).is_file()


def read_site_run(directory: Path, floors: ReleaseFloors | None = None) -> SiteRun:
    """Read a site's run folder.

    Args:
        directory: ``state_dir/EXPERIMENT/RUN``.
        floors: beside those that the site's configuration had at the evaluation; the higher one counts.

    Raises:
        ArtifactError: a file is missing or damaged, or the two belong to different evaluations.
    """
    kept = read_kept(directory)
    if kept is None:
        raise ArtifactError(f"{directory} has no {CALIBRATION_FILE}: no evaluation ended there")
    path = directory / PREDICTIONS_FILE
    try:
        rows = read_object(path, open_own)["predictions"]
        labels, chances = _columns(rows, kept.chosen.variant)
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}; evaluate the model again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged; evaluate the model again") from error
    if kept.calibration.counts(labels, chances) != kept.test.counts:
        raise ArtifactError(
            f"{path} and {CALIBRATION_FILE} belong to different evaluations, one of which was interrupted; evaluate "
            "the model again"
        )
    if floors is not None:
        kept = kept.under(floors)
    return SiteRun(kept, kept.is_of(directory / STATE_FILE), labels, chances)


def _columns(rows: Any, variant: str) -> tuple[Labels, Values]:
    """Return labels and probabilities of a list of predictions (ValueError, KeyError or TypeError: it is none)."""
    labels, chances = [row["label"] for row in rows], [row[variant] for row in rows]
    if any(type(label) is not int or label not in (0, 1) for label in labels):
        raise ValueError("a label is neither 0 nor 1")
    if not all(is_finite_number(chance) and 0 <= chance <= 1 for chance in chances):
        raise ValueError("a probability is outside [0, 1]")
    return np.array(labels, dtype=int), np.array(chances, dtype=np.float64)
