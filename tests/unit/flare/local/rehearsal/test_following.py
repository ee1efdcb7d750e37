from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import pytest

from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal import following
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.following import follow

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
