"""What the federation showed at one moment, and what a campaign may be told to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

ENDED = "FINISHED"
"""How every status of a job begins that FLARE calls the end of it."""
NOT_STARTED = ("SUBMITTED", "APPROVED")
BEING_SENT = "DISPATCHED"


@dataclass(frozen=True)
class JobSeen:
    """A job at the server.

    Args:
        status: FLARE's word; empty where the server knows no such job.
        runs: whether the server has a process of it, whatever the status says.
    """

    status: str = ""
    runs: bool = False

    @property
    def ended(self) -> bool:
        """Return whether FLARE calls it ended and nothing of it runs at the server."""
        return self.status.startswith(ENDED) and not self.runs


@dataclass(frozen=True)
class Look:
    """The federation at one moment.

    Args:
        answers: whether the server did; else nothing below says anything.
        server_start: when the server's process started, seconds since the epoch by its clock.
        job: the campaign's present job.
        others: the campaign's other jobs that FLARE does not call ended, or that run, by id.
        sites: every site that answered -> ids of the jobs that it has a process of.
    """

    answers: bool
    server_start: float = 0.0
    job: JobSeen = field(default_factory=JobSeen)
    others: Mapping[str, JobSeen] = field(default_factory=dict)
    sites: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def present(self) -> frozenset[str]:
        """Return the sites that answered."""
        return frozenset(self.sites)

    def working(self, job_id: str) -> frozenset[str]:
        """Return the sites that have a process of a job."""
        return frozenset(site for site, jobs in self.sites.items() if job_id in jobs)


@dataclass(frozen=True)
class Submit:
    """Submit the next job; with the same token, FLARE takes a second try for the same submission."""

    token: str


@dataclass(frozen=True)
class Abort:
    """Ask FLARE to abort a job."""

    job_id: str


@dataclass(frozen=True)
class Collect:
    """Download what a job left."""

    job_id: str


Order = Submit | Abort | Collect
