"""What a running job says about itself through FLARE's statistics, and how a terminal shows it."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from med_duallora.flare.local.rehearsal.verdict import waits_because
from med_duallora.measures import MEASURES, STATEMENTS, Kind, Measure, Statement
from med_duallora.support.progress import display

GROUP = "med_duallora"
"""Under this name our components answer FLARE's show_stats, at the server and at the sites."""
ROUNDS = "TrainingRounds"


@dataclass(frozen=True)
class JobProgress:
    """A job at one moment.

    Args:
        job_id: FLARE's id.
        name: the job's name.
        status: FLARE's status, e.g. ``RUNNING``.
        round_index: the running round, from 0; None before the first.
        n_rounds: rounds of the whole training; None before the first.
        stop_round: the job ends before this round; None before the first.
        workflow: what the server is doing: ``rounds``, ``evaluation``, or empty.
        server: the server's own statistics.
        sites: each site's statistics; empty for a site that has not started the job.
        reason: why a submitted job is not started; empty where nothing holds it up.
        starting: whether its processes are still starting; else, it may be in any round that it has not told yet.
    """

    job_id: str
    name: str
    status: str
    round_index: int | None = None
    n_rounds: int | None = None
    stop_round: int | None = None
    workflow: str = ""
    server: Mapping[str, Any] = field(default_factory=dict)
    sites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reason: str = ""
    starting: bool = True

    @property
    def finished(self) -> bool:
        """Return whether nothing will happen any more."""
        return self.status.startswith(("FINISHED", "FAILED", "ABANDONED"))

    @property
    def stage(self) -> str:
        """Return in a few words what is going on."""
        if self.finished:
            return "finished"
        if self.status == "SUBMITTED":
            return f"waiting to be scheduled{': ' * bool(self.reason)}{self.reason}"
        if self.round_index is None or self.n_rounds is None:
            return "starting at the sites" if self.starting else "running"
        if self.workflow == "evaluation" or self.round_index >= (self.stop_round or self.n_rounds):
            return "evaluating at the sites"
        return f"round {self.round_index + 1} of {self.n_rounds}"


def read_progress(job: Mapping[str, Any], statistics: Mapping[str, Any] | None) -> JobProgress:
    """Put together what FLARE's job record and the answers to show_stats say.

    Args:
        job: FLARE's record of the job.
        statistics: target -> component -> values, as show_stats returns them; empty where nobody answered, None
            where nobody was asked because the job's processes are starting.
    """
    answers = {name: _mapping(answer) for name, answer in (statistics or {}).items()}
    server = answers.pop("server", {})
    rounds = _mapping(server.get(ROUNDS))
    ours = _mapping(server.get(GROUP))
    # FLARE counts the rounds of this job alone, which are fewer where it continues another one
    count = rounds.get("num_rounds")
    start = ours.pop("start_round", 0)
    return JobProgress(
        job_id=str(job.get("job_id", "")),
        name=str(job.get("name", "")),
        status=str(job.get("status", "")),
        round_index=rounds.get("current_round"),
        n_rounds=ours.pop("n_rounds", count),
        stop_round=None if count is None else start + count,
        workflow=str(_mapping(server.get("ServerRunner")).get("workflow") or ""),
        server=ours,
        sites={name: _mapping(answer.get(GROUP)) for name, answer in sorted(answers.items())},
        reason=waits_because(job),
        starting=statistics is None or bool(server),
    )


def line(progress: JobProgress) -> str:
    """Return a moment as one line."""
    sites = []
    for site, values in progress.sites.items():
        numbers = [f"{MEASURES[name].column} {_text(name, values[name])}" for name in ("train_loss",) if name in values]
        sites.append(" ".join([site, str(values.get("phase", "starting")), *numbers]))
    return f"{progress.status}: {progress.stage}" + (f" ({'; '.join(sites)})" if sites else "")


def table(progress: JobProgress, seconds: float) -> RenderableType:
    """Return a moment as a table: a row per site."""
    head = Text(f"{progress.name} {progress.job_id}  {progress.status}  {progress.stage}  {seconds:.0f} s")
    given = {"phase", *(name for site in progress.sites.values() for name in site)}
    columns = {name: about.column for name, about in _told().items() if about.column and name in given}
    sites = Table("site", *columns.values())
    for site, values in progress.sites.items():
        sites.add_row(site, *(_text(name, values.get(name, "-")) for name in columns))
    known = progress.server
    words = {name: about.server_word for name, about in _told().items() if about.server_word and name in known}
    server = ", ".join(f"{says} {_text(name, known[name])}" for name, says in words.items())
    return Group(head, sites, Text(f"server: {server}")) if progress.sites else head


@contextmanager
def shown() -> Iterator[Callable[[JobProgress], None]]:
    """Give what shows one moment after the other: a live table on a terminal, a line per change elsewhere."""
    started = time.monotonic()
    with display(sys.stdout) as show:

        def follow(progress: JobProgress) -> None:
            stage, picture = f"{progress.status} {progress.stage}", table(progress, time.monotonic() - started)
            show(line(progress), stage=stage, picture=picture)

        yield follow


def _told() -> dict[str, Statement | Measure]:
    """Return what sites and server may say of themselves, in words and in numbers."""
    return {**STATEMENTS, **MEASURES}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _text(name: str, value: Any) -> str:
    """Return a value as people read it: rounds count from one."""
    if name in MEASURES and MEASURES[name].kind is Kind.ROUND and isinstance(value, int | float):
        return str(int(value) + 1)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
