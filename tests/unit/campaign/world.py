"""A federation that exists in a test's memory: what happens to it is written by the test, second by second."""

from dataclasses import dataclass, field
from typing import Any

from med_duallora.campaign.look import Abort, Collect, JobSeen, Look, Order, Submit
from med_duallora.campaign.machine import Machine
from med_duallora.campaign.rules import Rules
from med_duallora.campaign.state import Campaign

SITES = ("ge", "philips", "siemens")
RULES = Rules(n_rounds=4, min_sites=2, patience_s=60.0, max_attempts=3, give_up_s=1000.0)


@dataclass
class Job:
    """One of FLARE's jobs."""

    status: str = "RUNNING"
    runs: bool = True
    sites: set[str] = field(default_factory=set)
    archived: bool = True
    stubborn: bool = False

    def end(self, status: str) -> None:
        self.status, self.runs, self.sites = status, False, set()


class World:
    """A server, its sites and jobs, and a campaign that sees them once a second."""

    def __init__(self, campaign: Campaign | None = None, rules: Rules = RULES) -> None:
        self.now = 0.0
        self.server_start: float | None = 1.0
        self.sites = set(SITES)
        self.jobs: dict[str, Job] = {}
        self.by_token: dict[str, str] = {}
        self.orders: list[Order] = []
        self.events: list[tuple[str, str]] = []
        self.begin(campaign or Campaign("abc", "command"), rules)

    def begin(self, campaign: Campaign, rules: Rules = RULES) -> None:
        """Start the campaign's program, also again after it was killed."""
        self.campaign = campaign
        self.machine = Machine(campaign, rules, self._tell)

    def _tell(self, kind: str, text: str, **_: Any) -> None:
        self.events.append((kind, text))

    def look(self) -> Look:
        if self.server_start is None:
            return Look(answers=False)
        present = self.campaign.job_id
        seen = {job_id: JobSeen(job.status, job.runs) for job_id, job in self.jobs.items()}
        running = {site: frozenset(name for name, job in self.jobs.items() if site in job.sites) for site in self.sites}
        return Look(
            True,
            self.server_start,
            seen.get(present, JobSeen()),
            {job_id: job for job_id, job in seen.items() if job_id != present and not job.ended},
            running,
        )

    def second(self) -> Order | None:
        """Let the campaign look once and carry out its order."""
        look = self.look()
        order = self.machine.step(look, self.now)
        self.now += 1.0
        if order is not None:
            self.orders.append(order)
        if isinstance(order, Submit):
            self.machine.submitted(self.submit(order.token))
        elif isinstance(order, Abort):
            job = self.jobs[order.job_id]
            if not job.stubborn:
                job.end("FINISHED:ABORTED")
        elif isinstance(order, Collect) and self.jobs[order.job_id].archived and not self.jobs[order.job_id].runs:
            self.machine.collected(look, evaluated=self.machine.complete)
        return order

    def submit(self, token: str) -> str:
        if token not in self.by_token:
            self.by_token[token] = f"job-{len(self.jobs)}"
            self.jobs[self.by_token[token]] = Job(sites=set(self.sites))
        return self.by_token[token]

    def seconds(self, n: int) -> None:
        for _ in range(n):
            self.second()

    def until_job(self, job_id: str, limit: int = 2000) -> Job:
        """Go on until the campaign's present job is this one."""
        for _ in range(limit):
            if self.campaign.job_id == job_id:
                return self.jobs[job_id]
            self.second()
        raise AssertionError(f"{job_id} did not come: {self.events}")

    def until_over(self, limit: int = 3000) -> str:
        for _ in range(limit):
            if self.machine.over:
                return self.campaign.phase.value
            self.second()
        raise AssertionError(f"it does not end: {self.events}")

    def round(self, index: int) -> None:
        """Let the present job end a round, and the campaign take its result."""
        self.machine.kept(index, self.jobs[self.campaign.job_id].sites)

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def submissions(self) -> int:
        return len(self.by_token)
