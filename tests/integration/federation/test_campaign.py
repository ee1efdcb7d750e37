"""A campaign in a real federation: first a site's job process dies in the middle of a round, then the server does.

Each time the sites are held in a round's training, so that the accident meets them there on any machine. The long
version, with more sites, rounds and kinds of faults that a seed chooses, is ``benchmarks/soak.py``.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.soak import command_of, fresh_sites, job_of, judged, settings_of, states_of
from benchmarks.soak_replay import Watcher

from med_duallora.campaign.journal import Journal
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.report import read_run
from tests.integration.harness import PATIENCE_S, SITES, RunningFederation

pytestmark = pytest.mark.flare

EXPERIMENT = "campaign"
N_ROUNDS = 8
EPOCHS = 20
"""Long enough for a look at a round while it lasts."""


@dataclass
class Story:
    """A campaign that is over, and what is found of it."""

    out: Path
    found: dict[str, Any]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return told(self.out, kind)


def told(out: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in Journal(out).events() if event["event"] == kind]


@contextlib.contextmanager
def held_in_job(federation: RunningFederation, out: Path, number: int) -> Iterator[None]:
    """Hold every site in the training of a round of the campaign's n-th job, of which a round is kept already."""
    federation.until("a round of the next job", lambda: len(told(out, "submitted")) == number and kept_of_job(out))
    with federation.held_in_training(*SITES):
        yield


def kept_of_job(out: Path) -> bool:
    """Return whether a round of the last job is kept."""
    kinds = [event["event"] for event in Journal(out).events()]
    return "round" in kinds[max(place for place, kind in enumerate(kinds) if kind == "submitted") :]


@pytest.fixture(scope="module")
def story(
    federation: RunningFederation,
    tiny_cohorts: dict[str, Path],
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    folder = tmp_path_factory.mktemp("campaign")
    out = folder / "out"
    settings = settings_of(N_ROUNDS, len(SITES), tiny_checkpoint, EPOCHS, EXPERIMENT)
    watcher = Watcher({site: states_of(federation, site, EXPERIMENT) for site in SITES})
    with (folder / "log").open("w") as log, watcher.watching():
        program = subprocess.Popen(command_of(federation.federation, out, settings), stdout=log, stderr=log)
        try:
            disturb(federation, out)
            code = program.wait(PATIENCE_S)
        finally:
            program.kill()
            program.wait()
    sites = fresh_sites({site: tiny_cohorts[site] for site in SITES}, tiny_checkpoint, folder / "replay")
    return Story(out, judged(out, job_of(settings), sites, code, watcher.saved))


def disturb(federation: RunningFederation, out: Path) -> None:
    """Kill a site's job process, and then the server, each in the middle of a round."""
    with held_in_job(federation, out, 1):
        federation.job_process(SITES[1]).kill()
    with held_in_job(federation, out, 2):
        server = federation.federation.server
        worker = federation.job_process(server)
        federation.kill(server)  # first, so that nobody is left to tell of the job process
        worker.kill()
    federation.restart(federation.federation.server)


def test_all_rounds_are_done_and_nobody_intervened(story: Story) -> None:
    assert story.found["exit_code"] == 0, story.found["events"]
    assert story.found["every_round_once"] and story.found["rounds_done"] == N_ROUNDS
    assert next(event["first_round"] for event in story.told("submitted")) == 0
    assert len(story.told("submitted")) == 3, "one after each accident"


def test_every_round_is_that_of_an_undisturbed_training(story: Story) -> None:
    assert story.found["rounds_trained_in_vain"] == story.found["rounds_without_a_site"] == 0
    assert story.found["replay_equal"], story.found
    assert N_ROUNDS - 1 in [event["round"] for event in story.told("round")], "the last one is among them"


def test_a_job_begins_when_the_one_before_is_over(story: Story, federation: RunningFederation) -> None:
    events = [event for event in Journal(story.out).events() if event["event"] in ("submitted", "ended")]
    assert [event["event"] for event in events] == ["submitted", "ended"] * 3
    with console(federation.federation) as lead:
        named = {str(job["job_id"]) for job in lead.jobs() if str(job["name"]).startswith("campaign-")}
    assert named == {event["job"] for event in events}


def test_the_result_of_all_jobs_is_one_run_to_report_on(story: Story) -> None:
    assert [item.index for item in read_run(story.out / "result").rounds] == list(range(N_ROUNDS))


def test_nothing_of_it_is_left_running(story: Story, federation: RunningFederation) -> None:
    assert story.found["exit_code"] == 0
    federation.until("the job processes end", lambda: not federation.job_processes())
