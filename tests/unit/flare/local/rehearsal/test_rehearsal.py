import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from nvflare.fuel.flare_api.api_spec import InternalError
from nvflare.fuel.flare_api.flare_api import Session

from med_duallora.cli import main
from med_duallora.cohorts.origin import Origin
from med_duallora.errors import CohortError, ConfigError, FederationError, KitError, UnfitError
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal import rehearsal
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.record import RECORD, Federation
from med_duallora.flare.local.rehearsal.rehearsal import Plan, down, up
from med_duallora.support.files import sha256_of_file
from tests.conftest import REPOSITORY

FLOORS = ("policy.min_subjects=3", "policy.min_train_subjects=6")
"""That the tiny cohorts reach."""


@pytest.fixture
def plan(tiny_cohorts: dict[str, Path], tmp_path: Path) -> Plan:
    return Plan(
        directory=tmp_path / "federation",
        project=REPOSITORY / "poc" / "project.yml",
        cohorts={"ge": tiny_cohorts["ge"]},
        timeout_s=1.0,
        site_settings=FLOORS,
    )


def test_a_site_with_too_few_training_subjects_is_not_started(plan: Plan) -> None:
    with pytest.raises(UnfitError, match=r"an adapter leaves this site only from 5 of each class on"):
        up(replace(plan, site_settings=()))


def test_an_unusable_cohort_is_found_before_anything_is_made(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(CohortError):
        up(replace(plan, cohorts={"ge": tmp_path}))
    assert not plan.directory.exists()


def test_a_site_without_project_entry_is_refused(plan: Plan, tiny_cohorts: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="no site 'toshiba'"):
        up(replace(plan, cohorts={"toshiba": tiny_cohorts["ge"]}))


def test_a_site_of_any_name_is_added_to_the_project_of_the_checkout(
    plan: Plan, tiny_cohorts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    cohorts = {"st-olav": tiny_cohorts["ge"], "site-2": tiny_cohorts["canon"]}
    federation = up(replace(plan, cohorts=cohorts, own_sites=True))
    assert federation.sites == ("st-olav", "site-2")
    kit = federation.kit("st-olav")
    assert json.loads((kit / "local/med_duallora_site.json").read_text())["data_dir"] == str(tiny_cohorts["ge"])


def test_a_site_that_could_run_no_job_is_not_started(plan: Plan) -> None:
    said: list[str] = []
    with pytest.raises(UnfitError, match=r"site configuration .*: device = 'cuda:99', but this machine has"):
        up(replace(plan, site_settings=(*FLOORS, "device=cuda:99")), said.append)
    assert not [text for text in said if text.startswith("started ")]


def test_a_server_of_an_earlier_layout_is_not_started(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    federation = up(plan)
    resources = federation.kit(federation.server) / "local" / "resources.json"
    resources.write_text(resources.read_text().replace("med_duallora.flare.server.", "med_duallora.flare."))
    with pytest.raises(KitError, match=r"earlier layout .*run again `med-duallora server-kit"):
        up(plan)


def test_a_first_start_that_is_broken_off_leaves_no_keys(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rehearsal, "install_server", interrupted)
        with pytest.raises(KeyboardInterrupt):
            up(plan)
    assert list(plan.directory.iterdir()) == []
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    assert up(plan).sites == ("ge",), "the directory can be used"


def test_status_of_a_federation_that_was_never_started_says_so(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    up(plan)
    assert main(["federation", "status", "--workspace", str(plan.directory)]) == 1
    assert "no process of it was started yet; `med-duallora federation up`" in capsys.readouterr().err


@pytest.mark.parametrize("again", [False, True], ids=["new directory", "a federation is there"])
def test_run_with_an_input_error_says_nothing_but_the_error(
    again: bool, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = next(iter(plan.cohorts.values())).parent
    if again:
        with monkeypatch.context() as patched:
            patched.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
            up(plan)
    command = ["federation", "run", "--workspace", str(plan.directory), "--data", str(data), "--sites", "ge"]
    assert main([*command, "--site-set", "device=abacus"]) == 2
    said = capsys.readouterr()
    assert "federation down" not in said.out
    assert len(said.err.splitlines()) == 1


def test_what_was_started_is_stopped_when_it_does_not_come_up(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_federation: Federation, _timeout_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rehearsal, "wait_for_sites", interrupted)
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        up(plan, said.append)
    assert len([text for text in said if text.startswith("started ")]) == 2
    federation = Federation.read(plan.directory)
    assert len(federation.processes) == 2
    assert processes.members(federation.identity) == []


def test_kits_are_made_once_per_directory(
    plan: Plan, tiny_cohorts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    first = up(plan)
    assert up(plan) == first
    with pytest.raises(ConfigError, match="holds a federation of ge; its kits cannot be used for canon"):
        up(replace(plan, cohorts={"canon": tiny_cohorts["canon"]}))
    with pytest.raises(ConfigError, match=f"hold port {first.port}"):
        up(replace(plan, port=first.port + 1))
    assert not (first.kits.parent / "prod_01").exists()


def test_the_checkpoint_that_the_sites_got_is_recorded(
    plan: Plan, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    for checkpoint, expected in ((tiny_checkpoint, sha256_of_file(tiny_checkpoint)), (None, "")):
        up(replace(plan, backbone_checkpoint=checkpoint))
        assert Federation.read(plan.directory).backbone_sha256 == expected


def test_whether_the_cohorts_are_phantoms_is_asked_at_every_start(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    for phantoms in ("all", "none"):
        monkeypatch.setattr(rehearsal, "origin_of", lambda _cohorts, answer=phantoms: Origin(answer))
        up(plan)
        assert Federation.read(plan.directory).origin == {"phantoms": phantoms, "datasets": []}


def test_run_leaves_a_federation_alone_that_runs_already(
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    sleeping_kit: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    federation = up(plan)
    data = next(iter(plan.cohorts.values())).parent
    try:
        processes.start(sleeping_kit(), tmp_path / "log", federation.identity)
        processes.wait_until("starting", lambda: len(processes.members(federation.identity)) == 2, 60, 0.02)
        assert main(["federation", "run", "--workspace", str(plan.directory), "--data", str(data)]) == 1
        assert "runs already" in capsys.readouterr().err
        assert len(processes.members(federation.identity)) == 2
    finally:
        processes.stop(federation.identity)


def test_a_running_federation_is_not_started_again(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, sleeping_kit: Callable[..., Path], tmp_path: Path
) -> None:
    monkeypatch.setattr(rehearsal, "_started", lambda federation, _timeout_s, _say: federation)
    federation = up(plan)
    try:
        processes.start(sleeping_kit(), tmp_path / "log", federation.identity)
        # a process shows whose it is once it has replaced its parent's image
        processes.wait_until("starting", lambda: bool(processes.members(federation.identity)), 10, 0.02)
        with pytest.raises(FederationError, match=r"runs already .*federation down"):
            up(plan)
    finally:
        processes.stop(federation.identity)


def test_down_ends_everything_and_may_be_repeated(asleep: Federation) -> None:
    assert len(down(asleep, polite=False)) == 4
    assert down(asleep) == []


def test_down_without_a_server_that_answers_still_ends_everything(
    asleep: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(*_arguments: object) -> None:
        raise FederationError("no answer")

    monkeypatch.setattr(rehearsal, "console", no_answer)
    monkeypatch.setattr(rehearsal, "POLITE_S", 0.1)
    said: list[str] = []
    assert len(down(asleep, say=said.append)) == 4
    assert said == ["the server could not be shut down through the console: no answer"]


def test_down_ends_everything_although_nobody_listens(asleep: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(_text: str) -> None:
        raise BrokenPipeError

    def no_answer(*_arguments: object) -> None:
        raise FederationError("no answer")

    monkeypatch.setattr(rehearsal, "console", no_answer)
    assert len(down(asleep, say=closed)) == 4
    assert processes.members(asleep.identity) == []


def test_a_killed_parent_leaves_nothing_behind(asleep: Federation) -> None:
    for process in asleep.processes:
        os.kill(process.pid, signal.SIGKILL)
    assert (asleep.directory / RECORD).is_file()
    down(Federation.read(asleep.directory), polite=False)
    assert processes.members(asleep.identity) == []


class DeadJobs:
    """The console session of a server that was killed and started again: it lists a job that it cannot abort.

    Args:
        identity: of the federation that it ends when it is asked to.
    """

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.status = {"dead": "RUNNING", "alive": "RUNNING"}
        self.n_shutdowns = 0

    def list_jobs(self, detailed: bool) -> list[dict[str, str]]:
        assert detailed
        return [{"job_id": job_id, "status": status} for job_id, status in self.status.items()]

    def abort_job(self, job_id: str) -> None:
        if job_id == "dead":
            raise InternalError("server internal error: the job is not running")
        self.status[job_id] = "FINISHED:ABORTED"

    def shutdown(self, target: str, sites: list[str], wait: bool) -> None:
        assert (target, sites, wait) == ("all", [], False)
        self.n_shutdowns += 1
        processes.stop(self.identity)


def said_by_polite_down(asleep: Federation, session: DeadJobs, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """End a federation through the console, without a signal, and return what was said."""

    @contextlib.contextmanager
    def logged_in(*_arguments: object) -> Iterator[Console]:
        yield Console(cast(Session, session), "admin@x")

    monkeypatch.setattr(rehearsal, "console", logged_in)
    said: list[str] = []
    assert down(asleep, say=said.append) == [], "nothing had to be ended by a signal"
    assert session.n_shutdowns == 1
    return said


def test_a_job_that_cannot_be_aborted_does_not_keep_the_federation_from_shutting_down(
    asleep: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_by_polite_down(asleep, DeadJobs(asleep.identity), monkeypatch)
    assert said == ["job dead is not aborted: server internal error: the job is not running", "aborting job alive"]


def test_a_question_that_fails_does_not_keep_the_federation_from_shutting_down(
    asleep: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dumb(DeadJobs):
        def list_jobs(self, detailed: bool) -> list[dict[str, str]]:
            assert detailed
            raise InternalError("the job store is broken")

    said = said_by_polite_down(asleep, Dumb(asleep.identity), monkeypatch)
    assert said == ["jobs may still run while the federation shuts down: the job store is broken"]


def test_a_second_interrupt_at_once_does_not_keep_run_from_stopping_its_federation(
    asleep: Federation,
    monkeypatch: pytest.MonkeyPatch,
    tiny_cohorts: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    read = Federation.read

    def interrupted(*_arguments: object) -> None:
        monkeypatch.setattr(Federation, "read", interrupted_again)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    def interrupted_again(directory: Path) -> Federation:
        """The first thing that ``run`` does for its end."""
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        return read(directory)

    monkeypatch.setattr(rehearsal, "refuse_running", lambda _federation: None)
    monkeypatch.setattr(rehearsal, "up", interrupted)
    monkeypatch.setattr(rehearsal, "_ask_to_end", lambda *_arguments: None)
    data = tiny_cohorts["siemens"].parent
    command = ["federation", "run", "--workspace", str(asleep.directory), "--data", str(data), "--sites", "siemens"]
    assert main(command) == 130
    assert processes.members(asleep.identity) == []
    said = capsys.readouterr()
    assert "please wait" in said.err
    assert "federation down; nothing of it runs" in said.out
