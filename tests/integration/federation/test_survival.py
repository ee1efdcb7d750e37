"""One training that is interrupted three times and resumed as often in a provisioned federation, over mutual TLS.

The first job loses a site's job process by SIGKILL, the second one is aborted from the console in the middle of an
epoch, the third one loses the server by SIGKILL, the fourth one ends. What comes out must be what one undisturbed run
gives.
"""

import json
import re
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from med_duallora.boundary.lineage import Lineage
from med_duallora.cli import main
from med_duallora.engine import FederationResult, run_federation
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.support.files import sha256_of_file
from tests.integration.harness import PATIENCE_S, SITES, FinishedJob, RunningFederation, round_of

FREE = SitePolicy.for_one_machine()
"""Of the sites in one process, as the federation's sites have it: jobs are as long as an interruption needs them."""
pytestmark = pytest.mark.flare

EXPERIMENT = "survival"
N_ROUNDS = 12
LONG = (f"experiment={EXPERIMENT}", f"train.n_rounds={N_ROUNDS}", "train.local_epochs=30")
"""Enough rounds, and long enough, to be interrupted in their middle, also on a fast machine."""
STOPS_WITHIN_S = 2.0


@dataclass
class Story:
    """The four jobs, and the adapter that each of the first three left behind."""

    killed: FinishedJob
    killed_adapter: Path
    aborted: FinishedJob
    aborted_adapter: Path
    orphaned_id: str
    orphaned_adapter: Path
    finished: FinishedJob
    result: Path


@pytest.fixture(scope="module")
def story(federation: RunningFederation) -> Story:
    pinned = f"backbone_sha256={federation.federation.backbone_sha256}"
    first = federation.submit(federation.job(*LONG, pinned, name="first"))
    federation.wait_for_round(first, 0)
    federation.job_process(SITES[1]).kill()
    killed = federation.wait(first)
    killed_adapter = adapter_of(federation.fetch(first))

    second = federation.submit(federation.job(name="second", resume_from=killed_adapter))
    federation.wait_for_round(second, round_of(killed_adapter) + 1)
    abort_in_an_epoch(federation, second)
    aborted = federation.wait(second)
    aborted_adapter = adapter_of(federation.fetch(second))

    third = federation.submit(federation.job(name="third", resume_from=aborted_adapter))
    federation.wait_for_round(third, round_of(aborted_adapter) + 1)
    kill_the_server(federation)
    orphaned_adapter = federation.server_directory(third) / "adapter_last.safetensors"

    finished = federation.run(federation.job(name="fourth", resume_from=orphaned_adapter))
    result = federation.fetch(finished.job_id)
    return Story(killed, killed_adapter, aborted, aborted_adapter, third, orphaned_adapter, finished, result)


def kill_the_server(federation: RunningFederation) -> None:
    """Kill the server with its job process, start it again and wait until the sites have given up the job."""
    server = federation.federation.server
    job_process = federation.job_process(server)
    federation.kill(server)
    job_process.kill()
    federation.restart(server)
    processes.wait_until("the sites' job processes end", lambda: not federation.job_processes(), PATIENCE_S)


def adapter_of(result: Path) -> Path:
    return result / "workspace" / "app_server" / "adapter_last.safetensors"


def abort_in_an_epoch(federation: RunningFederation, job_id: str) -> None:
    """Abort a job while every site is between two steps of a round's training.

    FLARE's server waits two seconds for the sites' answers to an abort, which a site gives when its job process has
    ended; so the abort lies before the held job processes when this is over, and they take it first.
    """
    with console(federation.federation) as lead, federation.held_in_training(*SITES):
        lead.abort(job_id)


@pytest.fixture(scope="module")
def undisturbed(
    story: Story, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> FederationResult:
    """The same training in one process, without an interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    sites = {
        site: SiteConfig(
            tiny_cohorts[site], folder / site, folder / "cache" / site, tiny_checkpoint, "cpu", policy=FREE
        )
        for site in SITES
    }
    manifest = load_adapter(story.killed_adapter)[1]
    return run_federation(JobConfig.from_dict(manifest["job"]), sites)


def test_a_killed_job_process_fails_the_job_and_loses_no_finished_round(story: Story) -> None:
    assert story.killed.status.startswith("FINISHED:") and story.killed.status != COMPLETED
    assert round_of(story.killed_adapter) >= 0


def test_an_abort_ends_the_job_and_loses_no_finished_round(story: Story) -> None:
    assert story.aborted.status == "FINISHED:ABORTED"
    assert round_of(story.killed_adapter) < round_of(story.aborted_adapter) < N_ROUNDS - 1


def test_a_killed_server_loses_no_finished_round(story: Story) -> None:
    assert round_of(story.aborted_adapter) < round_of(story.orphaned_adapter) < N_ROUNDS - 1


def test_a_job_that_died_with_its_server_is_not_watched_for_ever(
    federation: RunningFederation, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["federation", "monitor", "--workspace", str(federation.directory), story.orphaned_id]) == 1
    error = capsys.readouterr().err
    assert f"job {story.orphaned_id} does not run: it ended when the server did" in error


def moment(line: str) -> datetime:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f")


@pytest.mark.parametrize("site", SITES)
def test_the_learner_stops_soon_after_an_abort(site: str, federation: RunningFederation, story: Story) -> None:
    log = federation.federation.kit(site) / story.aborted.job_id / "log.txt"
    lines = log.read_text().splitlines()
    told = next(line for line in lines if "Received command to abort job" in line)
    stopped = next(line for line in lines if "training stopped because the job was" in line)
    assert (moment(stopped) - moment(told)).total_seconds() < STOPS_WITHIN_S


def test_the_resumed_jobs_complete_the_training(story: Story) -> None:
    assert story.finished.status == COMPLETED
    server = story.result / "workspace" / "app_server"
    rounds = [json.loads(line)["round"] for line in (server / "round_metrics.jsonl").open()]
    assert rounds == list(range(round_of(story.orphaned_adapter) + 1, N_ROUNDS))
    seen = [re.fullmatch(rf"round (\d+) of {N_ROUNDS}", moment.stage) for moment in story.finished.moments]
    # terminals count from one; whether a look falls into a short round is a matter of luck
    assert all(int(stage[1]) >= rounds[0] + 1 for stage in seen if stage)


def test_three_interruptions_change_no_bit_of_the_global_adapter(story: Story, undisturbed: FederationResult) -> None:
    adapter, _ = load_adapter(adapter_of(story.result))
    assert set(adapter) == set(undisturbed.global_state)
    for name, value in undisturbed.global_state.items():
        np.testing.assert_array_equal(adapter[name], value, err_msg=name)


def test_three_interruptions_change_no_score_of_the_local_adapters(story: Story, undisturbed: FederationResult) -> None:
    found = json.loads((story.result / "workspace" / "app_server" / "evaluation.json").read_text())
    for site, scores in undisturbed.evaluation.items():
        assert found["sites"][site] == pytest.approx(scores, abs=1e-6), "the site rounds what it tells"


def test_all_jobs_are_about_the_same_checkpoint(story: Story, tiny_checkpoint: Path) -> None:
    for adapter in (story.killed_adapter, story.aborted_adapter, story.orphaned_adapter, adapter_of(story.result)):
        assert load_adapter(adapter)[1]["backbone_sha256"] == sha256_of_file(tiny_checkpoint)


@pytest.mark.parametrize("site", SITES)
def test_every_run_has_its_own_private_state(site: str, federation: RunningFederation, story: Story) -> None:
    lineage = Lineage.from_list(load_adapter(adapter_of(story.result))[1]["lineage"])
    assert len(lineage.runs) == 4
    experiment = federation.directory / "sites" / site / "state" / EXPERIMENT
    assert {folder.name for folder in experiment.iterdir()} == {run.run_id for run in lineage.runs}
    for path in experiment.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path.name
    assert not list(federation.federation.kit(site).rglob("state*.safetensors")), "none is in a job's run directory"


def test_a_foreign_adapter_is_refused_before_anything_is_submitted(
    federation: RunningFederation, story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["federation", "submit", "--workspace", str(federation.directory), "--set", "experiment=another"]
    assert main([*command, "--resume-from", str(story.aborted_adapter)]) == 2
    error = capsys.readouterr().err
    assert "belongs to another job: experiment was 'survival', but is 'another' here" in error
    assert len(error.splitlines()) == 1
