"""A site among others that teach the opposite: does what it uses fall back to what it has alone?

    python benchmarks/poisoned_site.py --data PREPARED [--set KEY=VALUE]

PREPARED is a folder of prepared cohorts, one per site, with training, validation and test subjects. Each site in turn
is the honest one, in a federation of its own in which the others' training and validation labels are turned round.
Printed are its balanced log losses on its test subjects by what it could use, what it chose by its validation subjects
and how likely joining helped it. Research use only, not for diagnosis.
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.engine import run_federation
from med_duallora.measures import CHOICES
from med_duallora.pretraining.data import find_cohorts
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.choice import log_losses
from med_duallora.site.kept_calibration import PREDICTIONS_FILE, KeptChoice, read_kept
from med_duallora.study.splits import Dealt, rows_of, write
from med_duallora.support.files import read_object

OPPOSITE = {"0": ("DCM", "1"), "1": ("NOR", "0")}
"""Diagnosis and label that take the place of a label."""


@dataclass(frozen=True)
class Found:
    """What became of the honest site.

    Args:
        losses: balanced log loss on its test subjects by variant, ``chosen`` among them.
        choice: what it uses.
        joining_helped: the probability; None where a class has no test subject.
    """

    losses: Mapping[str, float]
    choice: KeptChoice
    joining_helped: float | None


def poisoned(job: JobConfig, cohorts: Mapping[str, Path], honest: str, folder: Path, checkpoint: Path | None) -> Found:
    """Run a federation in which one site alone has its labels right, and return what it finds.

    Args:
        job: its settings.
        cohorts: prepared cohort by site.
        honest: the site whose labels stay.
        folder: an empty one to work in.
        checkpoint: the backbone; None: the shipped one.
    """
    sites = {}
    for site, data in cohorts.items():
        rows = [dict(row) if site == honest else _opposite(row) for row in rows_of(data)]
        place = write([Dealt(data, tuple(rows))], folder / "data" / site)
        where = (folder / "state" / site, folder / "cache" / site, checkpoint)
        sites[site] = SiteConfig(place, *where, device="cpu", policy=SitePolicy.for_one_machine())
    result = run_federation(job, sites)
    return _found(sites[honest].state_dir / job.experiment / result.lineage.run_id, result.evaluation[honest])


def _opposite(row: dict[str, str]) -> dict[str, str]:
    pathology, label = OPPOSITE[row["label"]]
    return row if row["split"] == "test" else {**row, "pathology": pathology, "label": label}


def _found(run: Path, scores: Mapping[str, float]) -> Found:
    rows, kept = read_object(run / PREDICTIONS_FILE)["predictions"], read_kept(run)
    assert kept is not None
    labels = np.array([row["label"] for row in rows])
    names = [name for name in (*CHOICES, "chosen") if name in rows[0]]
    losses = {name: log_losses(labels, [row[name] for row in rows]) for name in names}
    means = {
        name: float(np.mean([values[labels == label].mean() for label in (0, 1)])) for name, values in losses.items()
    }
    return Found(means, kept.chosen, scores.get("joining_helped"))


def main() -> None:
    """Run a federation per site and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone-checkpoint", type=Path, help="default: the one shipped for the preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments")
    options = parser.parse_args()
    job = JobConfig().with_overrides(options.assignments)
    cohorts = {cohort.directory.name: cohort.directory for cohort in find_cohorts(options.data)}
    names = (*CHOICES, "chosen")
    print(f"| honest site | {' | '.join(names)} | uses | joining helped |\n|---|{'--:|' * len(names)}---|--:|")
    for site in cohorts:
        with tempfile.TemporaryDirectory() as folder:
            found = poisoned(job, cohorts, site, Path(folder), options.backbone_checkpoint)
        cells = [f"{found.losses[name]:.2f}" if name in found.losses else "" for name in names]
        helped = "" if found.joining_helped is None else f"{found.joining_helped:.3f}"
        print(f"| {site} | {' | '.join(cells)} | {found.choice.variant} | {helped} |", flush=True)


if __name__ == "__main__":
    main()
