"""What a campaign was asked for, as a job: checked before anything is submitted; a folder for each job."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from med_duallora.flare.jobs.export import JOBS, read_job
from med_duallora.flare.jobs.submission import prepare_submission
from med_duallora.support.files import PARTIAL, read_object, sha256_of_json, write_json

FOLLOWS = ("start_round", "initial_adapter")
"""Workflow settings that differ between the jobs of one campaign."""


@dataclass(frozen=True)
class Wanted:
    """The job of a campaign.

    Args:
        job: a known job, or a folder.
        assignments: ``key=value`` changes of its settings.
    """

    job: str
    assignments: Sequence[str] = ()

    def folder(self, below: Path, name: str, adapter: Path | None) -> Path:
        """Write the folder of the next job; an older one below the same place goes.

        Args:
            below: a folder of the campaign's.
            name: of the job on FLARE's console.
            adapter: of the last kept round; None: the job begins as its settings say.

        Raises:
            ConfigError, ArtifactError, KitError: see ``prepare_submission``.
        """
        shutil.rmtree(below, ignore_errors=True)
        n_sites = JOBS[self.job].workflow.min_sites if self.job in JOBS else 0
        folder = prepare_submission(self.job, self.assignments, n_sites, below, resume_from=adapter)
        meta = read_object(folder / "meta.json")
        write_json(folder / "meta.json", {**meta, "name": name})
        return folder

    def plan(self, below: Path) -> "Planned":
        """Find out what the job is, without a server (errors as ``folder``).

        Args:
            below: a folder in which nothing is left.
        """
        with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=below) as scratch:
            job, workflow = read_job(self.folder(Path(scratch) / "planned", "planned", None))
        settings = {name: value for name, value in asdict(workflow).items() if name not in FOLLOWS}
        command = sha256_of_json({"job": job.to_dict(), "workflow": settings})
        return Planned(command, workflow.rounds(job).stop, workflow.min_sites)


@dataclass(frozen=True)
class Planned:
    """What follows from a job's settings.

    Args:
        command: digest of all settings.
        n_rounds: how many rounds the training has when the campaign is over.
        min_sites: how many sites a round needs.
    """

    command: str
    n_rounds: int
    min_sites: int
