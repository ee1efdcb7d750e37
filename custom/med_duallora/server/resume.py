"""Going on from a saved global adapter: what its manifest must say, and whether a job may continue it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.backbone import agreed_sha256
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import ArtifactError, ConfigError, EgressViolation
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import JobConfig


@dataclass(frozen=True)
class SavedRound:
    """A global adapter together with everything that a job needs to go on from it.

    Args:
        name: of the file, for messages.
        tensors: the global state after ``round_index``.
        job: the job that trained it; ``train.n_rounds`` are the rounds that the whole training was planned with.
        round_index: its last finished round, from 0.
        lineage: the runs that led to it.
        sites: whose adapters were averaged in that round.
        n_rounds_by_site: in how many rounds of the training, up to that one, each site's adapter was averaged.
    """

    name: str
    tensors: Mapping[str, np.ndarray]
    job: JobConfig
    round_index: int
    lineage: Lineage
    sites: tuple[str, ...] = ()
    n_rounds_by_site: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "SavedRound":
        """Read an adapter and its manifest.

        Raises:
            ArtifactError: it is missing or damaged, or its manifest does not say which run and round it belongs to.
        """
        tensors, manifest = load_adapter(path)
        try:
            job = JobConfig.from_dict(manifest["job"])
            lineage = Lineage.from_list(manifest["lineage"])
            round_index = _round_of(manifest)
            sites, counts = _contributors(manifest)
        except (KeyError, ValueError, ConfigError) as error:
            raise ArtifactError(
                f"adapter {path.name} cannot be resumed from: its manifest does not say which job, run and round it "
                f"belongs to ({error}). A new experiment can begin with it: workflow.initial_adapter"
            ) from error
        return cls(path.name, tensors, job, round_index, lineage, sites, counts)

    @property
    def next_round(self) -> int:
        """Return the first round that is still to be done."""
        return self.round_index + 1

    def check(self, job: JobConfig) -> None:
        """Find out whether a job may go on from this adapter: everything but the number of rounds must be the same.

        Two jobs are about the same backbone checkpoint also where one names the shipped one and the other leaves it
        out. A job may pin a checkpoint that the adapter's job left open; each site compares it with its state.

        Raises:
            ArtifactError: it belongs to another job, does not fit, or no round is left; names the first difference.
        """
        differences = [*_differences(self.job.to_dict(), job.to_dict()), *_other_backbone(self.job, job)]
        if differences:
            name, there, here = differences[0]
            raise ArtifactError(
                f"adapter {self.name} belongs to another job: {name} was {there!r}, but is {here!r} here. A resumed "
                "job may change train.n_rounds alone; a new experiment can begin with any adapter that fits: "
                "workflow.initial_adapter"
            )
        if self.next_round >= job.train.n_rounds:
            raise ArtifactError(
                f"adapter {self.name} is of round {self.next_round} of train.n_rounds = {job.train.n_rounds}: no round "
                "is left. To train longer, set train.n_rounds to the new total"
            )
        if self.lineage.full:
            raise ArtifactError(
                f"adapter {self.name} is of a training that was resumed {len(self.lineage.runs) - 1} times, and a "
                "lineage holds no more. A new experiment can begin with it: workflow.initial_adapter"
            )
        try:
            EgressContract.for_job(job).check_tensors(dict(self.tensors))
        except EgressViolation as violation:
            raise ArtifactError(f"adapter {self.name} does not fit its own job: {violation}") from violation


def _round_of(manifest: Mapping[str, Any]) -> int:
    value = manifest["round"]
    if type(value) is not int or value < 0:
        raise ValueError("round is not a whole number from 0")
    return value


def _contributors(manifest: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return who took part in the round, and in how many rounds each site did; nobody where the manifest is silent."""
    sites, counts = manifest.get("sites", []), manifest.get("n_rounds_by_site", {})
    if not isinstance(sites, list) or not isinstance(counts, dict):
        raise ValueError("sites is not a list, or n_rounds_by_site is not a table")
    if not all(type(count) is int and count > 0 for count in counts.values()):
        raise ValueError("n_rounds_by_site holds something other than whole numbers from 1")
    return tuple(map(str, sites)), {str(site): count for site, count in counts.items()}


def _differences(
    there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield (name, there, here) of settings that differ, but for the number of rounds and the pinned checkpoint."""
    for name, value in there.items():
        if isinstance(value, dict):
            yield from _differences(value, here[name], f"{prefix}{name}.")
        elif value != here[name] and prefix + name not in ("train.n_rounds", "backbone_sha256"):
            yield prefix + name, value, here[name]


def _other_backbone(there: JobConfig, here: JobConfig) -> Iterator[tuple[str, object, object]]:
    agreed_there, agreed_here = (agreed_sha256(job.backbone, job.backbone_sha256) for job in (there, here))
    if agreed_there not in (None, agreed_here):
        yield "backbone_sha256", agreed_there, agreed_here or ""
