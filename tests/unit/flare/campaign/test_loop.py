"""A campaign's loop, with a federation that exists in memory: what is on disk when, and what a person reads."""

import itertools
import time
from pathlib import Path
from typing import cast

import pytest

from med_duallora.campaign.hooks import Hooks
from med_duallora.campaign.journal import Journal
from med_duallora.campaign.look import JobSeen, Look
from med_duallora.campaign.rules import Rules
from med_duallora.campaign.state import Campaign, Phase
from med_duallora.flare.campaign.gate import Gate
from med_duallora.flare.campaign.loop import Loop, summary
from med_duallora.flare.campaign.wanted import Wanted
from med_duallora.flare.wire.running_adapter import RunningAdapter
from med_duallora.server.rundir import add_round, read_rounds
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import read_object
from tests.unit.campaign.test_journal import adapter_of

SETTINGS = ("backbone=cinema-tiny", "train.n_rounds=2", "experiment=test", "workflow.min_sites=1")
RULES = Rules(n_rounds=2, min_sites=1, patience_s=60, max_attempts=2, give_up_s=1000)


class Federation:
    """One job after the other; the first one dies in its second round."""

    def __init__(self, job: JobConfig, scratch: Path) -> None:
        self.person, self.may_copy = "lead", True
        self.job, self.scratch = job, scratch
        self.tokens: dict[str, str] = {}
        self.looks: dict[str, int] = {}
        self.folders: list[Path] = []
        self.aborted: list[str] = []
        self.archives = True

    def look(self, job_id: str) -> Look:
        n = self.looks[job_id] = self.looks.get(job_id, 0) + 1
        runs = bool(job_id) and n < 10
        status = "RUNNING" if runs else "FINISHED:EXECUTION_EXCEPTION" if job_id == "job-1" else "FINISHED:COMPLETED"
        site = frozenset([job_id] if runs else [])
        return Look(True, 1.0, JobSeen(status if job_id else "", runs), {}, {"ge": site})

    def submit(self, folder: Path, token: str) -> str:
        self.folders.append(folder)
        return self.tokens.setdefault(token, f"job-{len(self.tokens) + 1}")

    def abort(self, job_id: str) -> str:
        self.aborted.append(job_id)
        return ""

    def adapter(self, job_id: str, after: int) -> RunningAdapter | None:
        if job_id != "job-1" or after >= 0:
            return None
        return RunningAdapter(*adapter_of(self.job, 0, self.scratch / "sent"), [{"round": 0, "sites": {"ge": {}}}])

    def download(self, job_id: str, into: Path) -> Path | None:
        if not self.archives:
            return None
        server = into / job_id / "workspace" / "app_server"
        server.mkdir(parents=True, exist_ok=True)
        last = 0 if job_id == "job-1" else 1
        tensors, manifest = adapter_of(self.job, last, self.scratch / "left")
        (server / "adapter_last.safetensors").write_bytes(tensors)
        (server / "adapter_last.json").write_bytes(manifest)
        add_round(server, {"round": last, "sites": {"ge": {}}})
        if last:
            (server / "evaluation.json").write_text("{}")
        return into / job_id


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is some seconds later, and nobody sleeps."""
    ticks = itertools.count(0, 3)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "campaign")


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    job = JobConfig().with_overrides([item for item in SETTINGS if not item.startswith("workflow.")])
    return Federation(job, tmp_path)


def loop_of(
    campaign: Campaign,
    federation: Federation,
    journal: Journal,
    said: list[str] | None = None,
    hooks: Hooks = Hooks(),  # noqa: B008, frozen
) -> Loop:
    say = (said if said is not None else []).append
    gate = cast(Gate, federation)
    return Loop(
        campaign, RULES, wanted=Wanted("production", SETTINGS), gate=gate, journal=journal, hooks=hooks, say=say
    )


def test_a_job_that_dies_is_resumed_from_the_round_that_was_copied(
    federation: Federation, journal: Journal, clock: None
) -> None:
    said: list[str] = []
    campaign = Campaign("abc", "digest")
    assert loop_of(campaign, federation, journal, said).run()
    assert [job.last_round for job in campaign.jobs] == [0, 1]
    assert campaign.evaluated
    server = read_object(federation.folders[-1] / "app" / "config" / "config_fed_server.json")
    (rounds,) = [item for item in server["workflows"] if item["id"] == "rounds"]
    assert (rounds["args"]["start_round"], rounds["args"]["num_rounds"]) == (1, 1)
    assert read_object(federation.folders[-1] / "meta.json")["name"] == "campaign-abc-2"
    kinds = [event["event"] for event in journal.events()]
    assert kinds == ["started", "submitted", "round", "ended", "submitted", "round", "ended", "done"]
    assert len(said) == len(kinds)
    assert [record["round"] for record in read_rounds(journal.folder / "result")] == [0, 1]
    assert journal.read() == campaign
    assert read_object(journal.folder / "summary.json") == {**summary(campaign), "jobs": read_jobs(campaign)}


def read_jobs(campaign: Campaign) -> list[dict[str, object]]:
    return [{**vars(job), "sites": list(job.sites)} for job in campaign.jobs]


def test_the_token_is_on_disk_before_the_job_is_on_its_way(
    federation: Federation, journal: Journal, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(folder: Path, token: str) -> str:
        Federation.submit(federation, folder, token)  # FLARE has it
        raise Killed

    monkeypatch.setattr(federation, "submit", killed)
    with pytest.raises(Killed):
        loop_of(Campaign("abc", "digest"), federation, journal).run()
    monkeypatch.undo()
    ticks = itertools.count(0, 3)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    again = journal.read()
    assert again is not None and again.phase is Phase.SUBMITTING
    assert loop_of(again, federation, journal).run()
    assert list(federation.tokens.values()) == ["job-1", "job-2"], "none of them twice"


def test_a_damaged_adapter_is_said_and_its_round_is_done_again(
    federation: Federation, journal: Journal, clock: None
) -> None:
    campaign = Campaign("abc", "digest", round_index=0, token="t")
    assert loop_of(campaign, federation, journal).run()
    assert [event["event"] for event in journal.events()][:2] == ["damaged", "continued"]


def test_a_campaign_that_gave_up_tries_again_when_it_is_started_again(
    federation: Federation, journal: Journal, clock: None
) -> None:
    federation.archives = False
    vars(federation)["adapter"] = lambda *_: None
    campaign = Campaign("abc", "digest")
    assert not loop_of(campaign, federation, journal).run()
    assert campaign.phase is Phase.GAVE_UP
    federation.archives = True
    assert loop_of(campaign, federation, journal).run()


def test_a_person_without_the_right_is_told_once(federation: Federation, journal: Journal, clock: None) -> None:
    def refused(*_: object) -> None:
        federation.may_copy = False

    vars(federation)["adapter"] = refused
    assert loop_of(Campaign("abc", "digest"), federation, journal).run()
    assert [event["event"] for event in journal.events()].count("no-copies") == 1


def test_a_hook_that_fails_stops_nothing(federation: Federation, journal: Journal, clock: None) -> None:
    loop = loop_of(Campaign("abc", "digest"), federation, journal, hooks=Hooks(address="http://127.0.0.1:1/"))
    assert loop.run()
    kinds = [event["event"] for event in journal.events()]
    assert kinds.count("hook") == len(kinds) - kinds.count("hook"), "every other event could not be told"


def test_a_program_killed_at_the_very_end_leaves_the_result_to_the_next_one(
    federation: Federation, journal: Journal, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last result is on the disk, and not in the memory of the program that fetched it."""

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as death:
        death.setattr(journal, "finish", killed)
        with pytest.raises(Killed):
            loop_of(Campaign("abc", "digest"), federation, journal).run()
    again = journal.read()
    assert again is not None and again.phase is Phase.DONE
    assert loop_of(again, federation, journal).run()
    assert (journal.folder / "result" / "evaluation.json").is_file()


def test_a_download_that_fails_is_tried_again(federation: Federation, journal: Journal, clock: None) -> None:
    """The connection is lost while the result of the last job is fetched; FLARE still has it."""
    whole, tries = federation.download, itertools.count()
    vars(federation)["download"] = lambda *job: None if next(tries) in (1, 2) else whole(*job)
    campaign = Campaign("abc", "digest")
    assert loop_of(campaign, federation, journal).run()
    assert campaign.evaluated
    assert (journal.folder / "result" / "evaluation.json").is_file()
