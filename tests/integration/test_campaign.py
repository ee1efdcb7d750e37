"""A campaign in a real federation while processes die, a network is cut and its own program is killed.

The long version, with more sites, rounds and seeds, is ``benchmarks/soak.py``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.soak import OF_ITSELF, Fault, command_of, fresh_sites, job_of, judged, settings_of, soak

from med_duallora.campaign.journal import Journal
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.report import read_run
from tests.integration.harness import SITES, RunningFederation

pytestmark = pytest.mark.flare

N_ROUNDS = 6
FAULTS = (
    Fault(-1, 0.0, OF_ITSELF, ""),
    Fault(0, 0.0, "job", SITES[1]),
    Fault(1, 0.0, "network", SITES[0]),
    Fault(2, 0.0, "server", ""),
)
CUT_S = 5.0


@dataclass
class Story:
    """A campaign that is over, and what is found of it."""

    out: Path
    found: dict[str, Any]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in Journal(self.out).events() if event["event"] == kind]


@pytest.fixture(scope="module")
def story(
    federation: RunningFederation,
    tiny_cohorts: dict[str, Path],
    tiny_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Story:
    folder = tmp_path_factory.mktemp("campaign")
    settings = settings_of(N_ROUNDS, 1, tiny_checkpoint, epochs=15, experiment="campaign")
    command = command_of(federation.federation, folder / "out", settings)
    code = soak(federation, FAULTS, command, folder / "out", CUT_S)
    sites = fresh_sites({site: tiny_cohorts[site] for site in SITES}, tiny_checkpoint, folder / "replay")
    return Story(folder / "out", judged(folder / "out", job_of(settings), sites, code))


def test_all_rounds_are_done_and_nobody_intervened(story: Story) -> None:
    assert story.found["exit_code"] == 0, story.found["events"]
    assert story.found["rounds_done"] == N_ROUNDS
    assert story.found["every_round_once"]


def test_every_round_is_that_of_a_training_without_a_fault(story: Story) -> None:
    assert story.found["equal_where_it_must_be"]
    assert story.found["rounds_equal"] == story.found["rounds_compared"]
    assert N_ROUNDS - 1 in [event["round"] for event in story.told("round")], "the last one is among them"


def test_what_ended_a_job_is_followed_by_another_and_nothing_else_is(story: Story) -> None:
    """The campaign's own death may fall between FLARE's answer and the note of it; then the same job is told twice."""
    jobs = dict.fromkeys(event["job"] for event in story.told("submitted"))
    assert len(jobs) == 3, "after the job process and after the server"
    assert len(story.told("started")) + len(story.told("continued")) == 2


def test_no_two_jobs_of_a_campaign_ran_at_once(story: Story, federation: RunningFederation) -> None:
    events = [event for event in Journal(story.out).events() if event["event"] in ("submitted", "ended")]
    told = list(dict.fromkeys((event["event"], event["text"].split()[1]) for event in events))
    jobs = list(dict.fromkeys(job for _, job in told))
    assert told == [(kind, job) for job in jobs for kind in ("submitted", "ended")]
    with console(federation.federation) as lead:
        named = {str(job["job_id"]) for job in lead.jobs() if str(job["name"]).startswith("campaign-")}
    assert named == set(jobs)


def test_the_result_of_all_jobs_is_one_run_to_report_on(story: Story) -> None:
    assert read_run(story.out / "result")


def test_nothing_of_it_is_left_running(story: Story, federation: RunningFederation) -> None:
    assert story.found["exit_code"] == 0
    federation.until("the job processes end", lambda: not federation.job_processes())
