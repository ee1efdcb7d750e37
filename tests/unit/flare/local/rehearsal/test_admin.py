from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nvflare.apis.fl_exception import FLCommunicationError
from nvflare.fuel.flare_api.api_spec import InternalError, JobNotRunning, NoConnection
from nvflare.fuel.flare_api.flare_api import Session

from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal import admin
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.record import Federation

LOST = NoConnection("cannot connect to server")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "RETRY_S", 0.0)


def one_after_the_other(*answers: Any) -> Callable[..., Any]:
    """Answer one question after the other; an exception is raised."""
    left = iter(answers)

    def answer(*_arguments: object, **_options: object) -> Any:
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    return answer


def console_of(**answers: Callable[..., Any]) -> Console:
    return Console(cast(Session, SimpleNamespace(**answers)), "lead")


def test_a_server_that_ends_before_it_answers_the_login_gave_no_answer(
    asleep: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = InternalError("Communication Error - please try later")
    monkeypatch.setattr(admin, "new_secure_session", one_after_the_other(ended))
    (asleep.kits / "admin@x" / "startup").mkdir(parents=True)
    said = f"no answer from the server at localhost:{asleep.port}: Communication Error"
    with pytest.raises(FederationError, match=said), admin.console(asleep, "project_admin"):
        pytest.fail("nobody is logged in")


def test_a_server_too_busy_for_a_login_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, session = FLCommunicationError("failed to challenge server"), SimpleNamespace()
    monkeypatch.setattr(admin, "new_secure_session", one_after_the_other(busy, busy, session, busy, busy, busy))
    assert admin.logged_in("lead", tmp_path, 1.0) is session
    with pytest.raises(FLCommunicationError):
        admin.logged_in("lead", tmp_path, 1.0)


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ([{"ge": {"round": 1}}], {"ge": {"round": 1}}),
        ([LOST, {"server": {"round": 1}}], {"server": {"round": 1}}),
        ([LOST, LOST], {}),
        ([JobNotRunning("it is over")], {}),
    ],
    ids=["everybody", "a silent site", "a silent server", "over"],
)
def test_a_site_that_says_nothing_is_not_a_lost_server(answers: list[Any], found: dict[str, Any]) -> None:
    waits: list[float | None] = []
    ask = one_after_the_other(*answers)
    person = console_of(show_stats=ask, set_timeout=waits.append, unset_timeout=lambda: waits.append(None))
    assert person.statistics("7") == found
    assert waits == [admin.STATISTICS_S, None]


def test_a_download_that_breaks_off_is_begun_again(tmp_path: Path) -> None:
    def place(_job_id: str, into: str) -> str:
        (Path(into) / "7").mkdir()
        return str(Path(into) / "7")

    broken = RuntimeError("runtime error encountered: error receiving file")
    tries = one_after_the_other(broken, broken, None, *[broken] * admin.N_TRIES)
    person = console_of(download_job_result=lambda *arguments: tries() or place(*arguments))
    assert person.download("7", tmp_path / "results") == tmp_path / "results" / "7"
    with pytest.raises(FederationError, match=r"the result of job 7 was not downloaded: .*error receiving file"):
        person.download("7", tmp_path / "results")
    full = console_of(download_job_result=one_after_the_other(RuntimeError("failed to unzip")))
    with pytest.raises(FederationError, match="the result of job 7 was not downloaded: failed to unzip"):
        full.download("7", tmp_path / "results")
    assert [item.name for item in (tmp_path / "results").iterdir()] == ["7"]
