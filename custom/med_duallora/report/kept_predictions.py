"""The sites' predictions of a simulation on this machine: a comparison of two models is sharper with them.

In a real federation they lie at the sites, and no server's report knows them.
"""

from pathlib import Path
from typing import Any

from med_duallora.report.comparison import belongs
from med_duallora.report.finished import Run, SitePredictions
from med_duallora.server.rundir import STATES
from med_duallora.settings.kinds import is_finite_number
from med_duallora.site.kept_calibration import PREDICTIONS_FILE
from med_duallora.site.scores import THRESHOLD
from med_duallora.support.files import read_object
from med_duallora.support.private import open_own


def predictions_beside(workspace: Path, run: Run) -> dict[str, SitePredictions]:
    """Return the predictions behind a run's scores, by site, as far as they are below a simulation's workspace.

    A site's are left out where they cannot be read, or belong to another evaluation than the one of the run.
    """
    try:
        run_id = str(run.manifest["lineage"][-1][0])
    except (LookupError, TypeError):  # of an earlier version, or damaged; the report shows it as it is
        return {}
    found = {}
    for site in run.evaluation.sites:
        path = workspace / STATES / site / run.job.experiment / run_id / PREDICTIONS_FILE
        try:
            kept = _read(path)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if belongs(kept, run.evaluation, site):
            found[site] = kept
    return found


def _read(path: Path) -> SitePredictions:
    rows = read_object(path, open_own)["predictions"]
    labels = tuple(row["label"] for row in rows)
    if not set(labels) <= {0, 1}:
        raise ValueError("a label is neither 0 nor 1")
    variants = sorted(set(rows[0]) - {"subject", "label"}) if rows else []
    right = {variant: tuple(_is_right(row[variant], row["label"]) for row in rows) for variant in variants}
    names = tuple(str(row["subject"]) for row in rows)
    return SitePredictions(labels, right, names, tuple(float(row["both"]) for row in rows if "both" in row))


def _is_right(chance: Any, label: int) -> bool:
    if not is_finite_number(chance):
        raise ValueError("a probability is not a number")
    return bool(chance >= THRESHOLD) == bool(label)
