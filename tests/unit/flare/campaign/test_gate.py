"""What a campaign makes of FLARE's answers; the session is a stand-in."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    InternalError,
    InvalidJobDefinition,
    JobNotFound,
    JobNotRunning,
    NoConnection,
    SessionClosed,
    SubmitTokenConflict,
)

from med_duallora.campaign.look import JobSeen
from med_duallora.errors import FederationError, InputError
from med_duallora.flare.campaign import gate as module
from med_duallora.flare.campaign.gate import Gate, person_of


class Session:
    """FLARE's session: what it answers, and what it was asked."""

    def __init__(self) -> None:
        self.raises: dict[str, BaseException] = {}
        self.contacts = {"ge": 1.0, "philips": 1.0}
        self.rows: list[dict[str, str]] = [{"client_name": "ge", "job_id": "1", "status": "started"}]
        self.listed = [{"job_id": "1", "status": "RUNNING"}]
        self.asked: list[list[str]] = []
        self.answer: dict[str, Any] = {}
        self.hang: set[str] = set()
        self.n_answers = 1000
        self.n_closed = 0

    def _maybe(self, name: str) -> None:
        if name in self.raises:
            raise self.raises[name]

    def set_timeout(self, _: float) -> None:
        pass

    def close(self) -> None:
        self.n_closed += 1

    def get_system_info(self) -> SimpleNamespace:
        self._maybe("info")
        self.n_answers -= 1
        if self.n_answers < 0:
            raise NoConnection("cannot connect to server")
        clients = [SimpleNamespace(name=name, last_connect_time=heard) for name, heard in self.contacts.items()]
        jobs = [SimpleNamespace(job_id="1")]
        return SimpleNamespace(server_info=SimpleNamespace(start_time=5.0), client_info=clients, job_info=jobs)

    def list_jobs(self, **_: Any) -> list[dict[str, str]]:
        return self.listed

    def get_job_meta(self, job_id: str) -> dict[str, str]:
        raise JobNotFound(job_id)

    def get_client_job_status(self, names: list[str]) -> list[dict[str, str]]:
        self.asked.append(names)
        self._maybe("sites")
        if self.hang & set(names):
            raise NoConnection("cannot connect to server")
        return [row for row in self.rows if row["client_name"] in names]

    def submit_job(self, _folder: str, token: str) -> str:
        self._maybe("submit")
        return f"job of {token}"

    def abort_job(self, _: str) -> None:
        self._maybe("abort")

    def do_app_command(self, _job: str, _topic: str, _data: object) -> dict[str, Any]:
        self._maybe("adapter")
        return self.answer

    def download_job_result(self, job_id: str, into: str) -> str:
        self._maybe("download")
        (Path(into) / job_id / "workspace" / "app_server").mkdir(parents=True)
        return str(Path(into) / job_id)


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    (tmp_path / "kit" / "startup").mkdir(parents=True)
    admin = {"admin": {"username": "lead@research.example.org"}}
    (tmp_path / "kit" / "startup" / "fed_admin.json").write_text(json.dumps(admin))
    return tmp_path / "kit"


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    session = Session()

    def log_in(*_: object) -> Session:
        session._maybe("login")
        return session

    monkeypatch.setattr(module, "logged_in", log_in)
    monkeypatch.setattr(module, "ASK_S", 0.0)
    return session


@pytest.fixture
def gate(kit: Path, session: Session) -> Gate:
    return Gate(kit, "campaign-abc-")


def test_only_a_persons_kit_is_taken(kit: Path, tmp_path: Path) -> None:
    assert person_of(kit) == "lead@research.example.org"
    with pytest.raises(InputError, match="not the startup kit of a person"):
        Gate(tmp_path, "x")


def test_a_look_says_what_runs_where(gate: Gate, session: Session) -> None:
    session.rows.append({"client_name": "philips", "status": "no_jobs"})
    session.listed.append({"job_id": "2", "status": "SUBMITTED"})
    session.listed.append({"job_id": "3", "status": "FINISHED:ABORTED"})
    look = gate.look("1")
    assert look.answers and look.server_start == 5.0
    assert look.job == JobSeen("RUNNING", runs=True)
    assert look.others == {"2": JobSeen("SUBMITTED", runs=False)}
    assert look.sites == {"ge": {"1"}, "philips": frozenset()}


def test_a_silent_site_is_asked_again_once_the_server_heard_from_it(gate: Gate, session: Session) -> None:
    session.rows.append({"client_name": "philips", "status": "no_reply"})
    assert set(gate.look("1").sites) == {"ge"}
    gate.look("1")
    session.contacts["philips"] = 2.0
    gate.look("1")
    assert session.asked == [["ge", "philips"], ["ge"], ["ge", "philips"]]


def test_no_site_that_answers_is_no_fault(gate: Gate, session: Session) -> None:
    session.raises["sites"] = InternalError("no responses from clients")
    look = gate.look("1")
    assert look.answers and not look.sites


@pytest.mark.parametrize("error", [NoConnection("gone"), SessionClosed("another server"), RuntimeError("starting")])
def test_a_lost_server_is_logged_in_to_again(error: Exception, gate: Gate, session: Session) -> None:
    assert gate.look("1").answers
    session.raises["info"] = error
    assert not gate.look("1").answers
    assert session.n_closed == 1
    session.raises = {"login": NoConnection("not yet")}
    assert not gate.look("1").answers
    session.raises = {}
    assert gate.look("1").answers


def test_a_job_that_the_server_does_not_know_is_nothing(gate: Gate) -> None:
    assert gate.look("7").job == JobSeen()


def test_a_wrong_kit_is_said_at_the_start_and_an_absent_server_is_not(gate: Gate, session: Session) -> None:
    session.raises["login"] = NoConnection("gone")
    gate.check()
    session.raises["login"] = AuthenticationError("who?")
    with pytest.raises(FederationError, match="does not accept lead@research"):
        gate.check()


def test_a_submission_gives_one_job_per_token(gate: Gate, session: Session, tmp_path: Path) -> None:
    assert gate.submit(tmp_path, "t") == "job of t"
    session.raises["submit"] = SubmitTokenConflict("known", "job of before")
    assert gate.submit(tmp_path, "t") == "job of before"
    session.raises["submit"] = SessionClosed("gone")
    assert gate.submit(tmp_path, "t") == ""
    session.raises["submit"] = InvalidJobDefinition("no such class")
    with pytest.raises(FederationError, match="no such class"):
        gate.submit(tmp_path, "t")


def test_a_site_too_silent_for_flare_is_not_a_silent_server(gate: Gate, session: Session) -> None:
    session.contacts["canon"] = 1.0
    session.hang = {"philips"}
    look = gate.look("1")
    assert look.answers and set(look.sites) == {"ge"}
    assert session.asked == [["ge", "philips", "canon"], ["ge"], ["philips"], ["canon"]]
    gate.look("1")
    assert session.asked[4:] == [["ge"]], "who is silent is not asked again before the server heard from it"


def test_a_server_that_falls_silent_takes_no_site_with_it(gate: Gate, session: Session) -> None:
    session.hang = {"ge"}
    session.n_answers = 1
    assert not gate.look("1").answers
    assert session.asked == [["ge", "philips"]]


def test_an_abort_that_is_refused_is_said(gate: Gate, session: Session) -> None:
    assert gate.abort("1") == ""
    session.raises["abort"] = JobNotRunning("it is over")
    assert gate.abort("1") == "it is over"
    session.raises["abort"] = SessionClosed("gone")
    assert gate.abort("1") == "gone"


def test_what_was_archived_is_downloaded(gate: Gate, session: Session, tmp_path: Path) -> None:
    assert gate.download("1", tmp_path / "results") == tmp_path / "results" / "1"
    for error in (InternalError("not yet"), SessionClosed("gone")):
        session.raises["download"] = error
        assert gate.download("1", tmp_path / "results") is None


def test_a_person_without_the_right_asks_once(gate: Gate, session: Session) -> None:
    session.raises["adapter"] = JobNotRunning("not yet")
    assert gate.adapter("1", -1) is None and gate.may_copy
    session.raises["adapter"] = AuthorizationError("no")
    assert gate.adapter("1", -1) is None
    assert not gate.may_copy
    session.raises = {}
    session.answer = {"nonsense": 1}
    assert gate.adapter("1", -1) is None
