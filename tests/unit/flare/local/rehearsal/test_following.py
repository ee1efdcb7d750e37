from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal import following
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.following import abort_job, follow

NOW = datetime.now(timezone.utc)
ROUNDS = {"server": {"TrainingRounds": {"current_round": 8, "num_rounds": 12}}}

Start = Callable[..., Console]


class Server:
    """What a console sees of a server with one job.

    Args:
        started: when the job was started.
        server_started: when the server was.
        answers: to show_stats, one after the other; the job has finished after the last one.
    """

    def __init__(self, started: datetime | None, server_started: datetime, *answers: dict[str, Any]) -> None:
        self._record = {"job_id": "7", "start_time": started.isoformat()} if started else {"job_id": "7"}
        self._server_started = server_started
        self._answers: Iterator[dict[str, Any]] = iter(answers)
        self._n_left = len(answers)

    def job(self, _job_id: str) -> dict[str, Any]:
        return {**self._record, "status": "RUNNING" if self._n_left else "FINISHED:COMPLETED"}

    def statistics(self, _job_id: str) -> dict[str, Any]:
        if not self._n_left:
            return {}
        self._n_left -= 1
        return next(self._answers)

    def server_start(self) -> float:
        return self._server_started.timestamp()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FOLLOW_S", 0.0)


def stages(server: Server) -> list[str]:
    found: list[str] = []
    follow(cast(Console, server), "7", lambda progress: found.append(progress.stage), timeout_s=60.0)
    return list(dict.fromkeys(found))


def test_a_job_that_runs_for_long_tells_its_round_at_once() -> None:
    server = Server(NOW - timedelta(hours=1), NOW - timedelta(days=1), ROUNDS)
    assert stages(server) == ["round 9 of 12", "finished"]


def test_a_job_that_does_not_answer_yet_is_not_said_to_be_starting() -> None:
    server = Server(NOW - timedelta(hours=1), NOW - timedelta(days=1), {"server": "No reply"}, ROUNDS)
    assert stages(server) == ["running", "round 9 of 12", "finished"]


@pytest.mark.parametrize("started", [NOW + timedelta(hours=1), None], ids=["young", "FLARE tells no start"])
def test_a_young_job_is_not_asked_while_its_processes_start(
    started: datetime | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "QUIET_START_S", 0.05)
    assert stages(Server(started, NOW, ROUNDS)) == ["starting at the sites", "round 9 of 12", "finished"]


def test_a_job_that_ended_with_its_server_is_not_followed_for_ever() -> None:
    server = Server(NOW - timedelta(hours=1), NOW, {}, {}, {})
    with pytest.raises(FederationError, match=r"job 7 does not run: it ended when the server did.* --resume-from"):
        stages(server)


def test_a_job_whose_result_is_being_archived_is_followed_to_its_end() -> None:
    server = Server(NOW - timedelta(hours=1), NOW - timedelta(days=1), ROUNDS, {}, {})
    assert stages(server) == ["round 9 of 12", "finished"]


def test_a_job_that_takes_too_long_is_named() -> None:
    server = Server(NOW - timedelta(hours=1), NOW - timedelta(days=1), ROUNDS, ROUNDS)
    with pytest.raises(FederationError, match="job 7 is still RUNNING after 0 s: round 9 of 12"):
        follow(cast(Console, server), "7", lambda _: None, timeout_s=0.0)


class Clock:
    """Time that passes while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _seconds: float) -> None:
        self.now += 1.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "time", Clock())


class Scheduler:
    """What a console sees of a server that goes on with a job which it had begun to start, whatever it answered.

    Args:
        statuses: after each abort, those that are seen one after the other; the last one stays.
        runs: with which statuses the server has a process of it.
    """

    def __init__(self, *statuses: tuple[str, ...], runs: tuple[str, ...] = ()) -> None:
        self._coming = [list(item) for item in statuses]
        self._seen = self._coming.pop(0)
        self._runs = runs
        self.n_aborts = 0

    def job(self, _job_id: str) -> dict[str, Any]:
        return {"status": self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]}

    def has_processes(self, _job_id: str) -> bool:
        return self._seen[0] in self._runs

    def abort(self, _job_id: str) -> None:
        self.n_aborts += 1
        self._seen = self._coming.pop(0) if self._coming else self._seen


ABORTED = "FINISHED:ABORTED"


@pytest.mark.parametrize(
    ("server", "n_aborts"),
    [
        (Scheduler(("SUBMITTED",), (ABORTED,)), 1),
        (Scheduler(("SUBMITTED",), ("SUBMITTED",), (ABORTED,)), 2),
        (Scheduler(("DISPATCHED",), (ABORTED, ABORTED, "RUNNING"), (ABORTED,)), 2),
        (Scheduler(("RUNNING",), ("RUNNING",)), 1),
    ],
    ids=["waiting", "its record is overwritten", "it starts all the same", "running"],
)
@pytest.mark.usefixtures("clock")
def test_an_aborted_job_stays_aborted(server: Scheduler, n_aborts: int) -> None:
    abort_job(cast(Console, server), "7")
    assert server.n_aborts == n_aborts


@pytest.mark.usefixtures("clock")
def test_a_job_that_cannot_be_kept_from_starting_is_said() -> None:
    with pytest.raises(FederationError, match=r"FLARE calls it FINISHED:ABORTED, but the server .* federation down"):
        abort_job(cast(Console, Scheduler(("DISPATCHED",), (ABORTED,), runs=(ABORTED,))), "7")
