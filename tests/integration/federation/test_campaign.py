"""A campaign in a real federation whose server dies, with all that it knew of the job, in the middle of a round.

The sites are held in a round's training meanwhile, so that the accident meets them there on any machine. The long
version, with more sites, rounds and kinds of faults that a seed chooses, is ``benchmarks/soak.py``.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.soak import command_of, fresh_sites, job_of, settings_of, states_of
from benchmarks.soak_judge import judged
from benchmarks.soak_replay import Watcher

from med_duallora.campaign.journal import Journal
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.report import read_run
from tests.integration.harness import PATIENCE_S, SITES, RunningFederation

pytestmark = pytest.mark.flare

EXPERIMENT = "campaign"
N_ROUNDS = 6
EPOCHS = 20
"""Long enough for a look at a round while it lasts."""


@dataclass
class Story:
    """A campaign that is over, and what is found of it."""

    out: Path
    found: dict[str, Any]

    def told(self, *kinds: str) -> list[dict[str, Any]]:
        return told(Journal(self.out), *kinds)


def told(journal: Journal, *kinds: str) -> list[dict[str, Any]]:
    return [event for event in journal.events() if event["event"] in kinds]


@contextlib.contextmanager
def held_after_a_round(federation: RunningFederation, journal: Journal) -> Iterator[None]:
    """Hold every site in the training of a round, when the campaign has the result of an earlier one."""
    federation.until("the job", lambda: bool(told(journal, "submitted")))
    job_id = str(told(journal, "submitted")[0]["job"])

    def is_copied() -> bool:
        return federation.rounds(job_id)[-1]["round"] in [event["round"] for event in told(journal, "round")]

    while True:
        with federation.held_in_training(*SITES):
            if federation.rounds(job_id):  # else it is the first one
                federation.until("the campaign's copy", is_copied)
                yield
                return


@pytest.fixture(scope="module")
def story(
    federation: RunningFederation,
    tiny_cohorts: dict[str, Path],
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    folder = tmp_path_factory.mktemp("campaign")
    journal = Journal(folder / "out")
    settings = settings_of(N_ROUNDS, len(SITES), tiny_checkpoint, EPOCHS, EXPERIMENT)
    watcher = Watcher({site: states_of(federation, site, EXPERIMENT) for site in SITES})
    with (folder / "log").open("w") as log, watcher.watching():
        command = command_of(federation.federation, journal.folder, settings)
        program = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with held_after_a_round(federation, journal):
                kill_the_server(federation)
            federation.restart(federation.federation.server)
            code = program.wait(PATIENCE_S)
        finally:
            program.kill()
            program.wait()
    sites = fresh_sites({site: tiny_cohorts[site] for site in SITES}, tiny_checkpoint, folder / "replay")
    return Story(journal.folder, judged(journal.folder, job_of(settings), sites, code, watcher.saved))


def kill_the_server(federation: RunningFederation) -> None:
    server = federation.federation.server
    worker = federation.job_process(server)
    federation.kill(server)  # first, so that nobody is left to tell of the job process
    worker.kill()


def test_all_rounds_are_done_and_nobody_intervened(story: Story) -> None:
    assert story.found["exit_code"] == 0, story.found["events"]
    assert story.found["every_round_once"] and story.found["rounds_done"] == N_ROUNDS
    first, second = story.told("submitted")
    assert first["first_round"] == 0 < second["first_round"]


def test_every_round_is_that_of_an_undisturbed_training(story: Story) -> None:
    assert story.found["rounds_trained_in_vain"] == story.found["rounds_without_a_site"] == 0
    assert story.found["replay_equal"], story.found
    assert N_ROUNDS - 1 in [event["round"] for event in story.told("round")], "the last one is among them"


def test_a_job_begins_when_the_one_before_is_over(story: Story, federation: RunningFederation) -> None:
    events = story.told("submitted", "ended")
    assert [event["event"] for event in events] == ["submitted", "ended"] * 2
    with console(federation.federation) as lead:
        named = {str(job["job_id"]) for job in lead.jobs() if str(job["name"]).startswith("campaign-")}
    assert named == {event["job"] for event in events}


def test_the_result_of_all_jobs_is_one_run_to_report_on(story: Story) -> None:
    assert [item.index for item in read_run(story.out / "result").rounds] == list(range(N_ROUNDS))


def test_nothing_of_it_is_left_running(story: Story, federation: RunningFederation) -> None:
    assert story.found["exit_code"] == 0
    federation.until("the job processes end", lambda: not federation.job_processes())
