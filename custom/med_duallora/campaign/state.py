"""What a campaign knows: written to disk at every change, so that a killed campaign goes on where it was."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

from med_duallora.errors import InputError


class Phase(str, Enum):
    """Where a campaign is."""

    GATHERING = "gathering"
    """No job: it waits for the server and the sites."""
    SUBMITTING = "submitting"
    """A job is being submitted, or was, and the answer was lost."""
    RUNNING = "running"
    """A job is at work, or waits to be scheduled."""
    STOPPING = "stopping"
    """The campaign has asked for the end of its job."""
    COLLECTING = "collecting"
    """The job is over; what it left is being fetched."""
    DONE = "done"
    GAVE_UP = "gave up"


@dataclass(frozen=True)
class JobDone:
    """A job that is over.

    Args:
        job_id: FLARE's id.
        status: FLARE's last word of it.
        first_round: with which round it began, from 0.
        last_round: the last round that was kept of it; below ``first_round`` where none was.
        sites: who worked at it.
        reason: why the campaign ended it; empty where it ended by itself.
    """

    job_id: str
    status: str
    first_round: int
    last_round: int
    sites: tuple[str, ...]
    reason: str


@dataclass
class Campaign:
    """One campaign.

    Args:
        identity: what the names of its jobs end with; no other campaign has it.
        command: digest of what was asked for; another command does not go on with this one.
        phase: see ``Phase``.
        round_index: the last round that is kept, from 0; -1 where none is.
        token: of the submission that is under way, or was the last one.
        job_id: the present job; empty where there is none.
        server_start: of the server that took the job.
        crew: sites that worked at the present job.
        known: every site that was ever there.
        away: sites that are not waited for any more.
        reason: why the campaign ends its job.
        n_submitted: jobs so far.
        n_fruitless: jobs in a row that left no new round.
        first_round: with which round the present job began.
        evaluated: whether a job left the scores of the trained adapter.
        jobs: those that are over.
    """

    identity: str
    command: str
    phase: Phase = Phase.GATHERING
    round_index: int = -1
    token: str = ""
    job_id: str = ""
    server_start: float = 0.0
    crew: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    away: set[str] = field(default_factory=set)
    reason: str = ""
    n_submitted: int = 0
    n_fruitless: int = 0
    first_round: int = 0
    evaluated: bool = False
    jobs: list[JobDone] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        sets = {name: sorted(value) for name, value in vars(self).items() if isinstance(value, set)}
        return {**asdict(self), **sets, "phase": self.phase.value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Campaign":
        """Return what ``to_dict`` gave.

        Raises:
            InputError: it is something else.
        """
        try:
            found = {item.name: values[item.name] for item in fields(cls)}
            found["phase"] = Phase(found["phase"])
            found |= {name: set(found[name]) for name in ("crew", "known", "away")}
            found["jobs"] = [JobDone(**{**job, "sites": tuple(job["sites"])}) for job in found["jobs"]]
            return cls(**found)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"it is not the state of a campaign: {error!r}") from error
