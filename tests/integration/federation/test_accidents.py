"""Accidents of a running federation, as docs/operations.md lists them: one training in three jobs over mutual TLS.

A site comes while the first job runs, and then the server's disk is full. In the second job the site is too slow for a
round, and later it dies as a whole and comes back. The third one runs beside another job, which asks for a GPU that
one site does not offer; that site's disk is full for a round, and at last the server's job process is killed.
"""

import json
import re
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from med_duallora.boundary.lineage import Lineage
from med_duallora.engine import run_federation
from med_duallora.flare.jobs.export import read_job
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.admin import console
from med_duallora.flare.local.rehearsal.registration import registered_sites
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.server.artifact import load_adapter
from med_duallora.server.resume import SavedRound
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import SitePolicy
from tests.integration.harness import SITES, Ended, RunningFederation, abort_waiting, limit_files, round_of

FREE = SitePolicy.for_one_machine()
"""Of the sites in one process, as the federation's sites have it: jobs are as long as an interruption needs them."""
pytestmark = pytest.mark.flare

SAFE, UNLUCKY = SITES
EXPERIMENT = ("experiment=accidents", "train.local_epochs=10", "lora.rank_global=16")
"""An adapter of this rank is larger than the server's records of a short job."""
ALONE = "workflow.min_sites=1"
WAIT_S = 3
N_ROUNDS_OF_SECOND = 9
NO_ROOM_FOR_A_STATE = 40_000
"""Bytes: room for a site's logs of a short job, not for the tiny backbone's adapters and optimizer state."""


def everybody(record: dict[str, Any]) -> bool:
    return set(record["sites"]) == set(SITES)


def only_safe(record: dict[str, Any]) -> bool:
    return set(record["sites"]) == {SAFE}


@pytest.fixture(scope="module", autouse=True)
def whole_again(federation: RunningFederation) -> Iterator[None]:
    """Start the site again that a failed test may have left dead: the federation serves other tests too."""
    yield
    (process,) = [item for item in federation.federation.processes if item.name == UNLUCKY]
    if not processes.is_running(process, federation.federation.identity):
        federation.restart(UNLUCKY)


@dataclass
class First:
    """The job during which a site came, and then the server's disk was full."""

    ended: Ended
    came_after: int
    n_processes_of_late_site: int
    adapter_before: bytes


@pytest.fixture(scope="module")
def first(federation: RunningFederation) -> First:
    federation.log_out(UNLUCKY)
    pinned = f"backbone_sha256={federation.federation.backbone_sha256}"
    folder = federation.job(*EXPERIMENT, "train.n_rounds=1000", pinned, ALONE, name="accidents-1")
    job_id = federation.submit(folder)
    federation.wait_for_round(job_id, 0)
    federation.restart(UNLUCKY)
    came_after = federation.rounds(job_id)[-1]["round"]
    federation.wait_for_round(job_id, came_after + 2)
    n_processes = len(federation.working(UNLUCKY))
    with federation.held_in_training(SAFE):  # so that no round ends between the two
        adapter = (federation.server_directory(job_id) / "adapter_last.safetensors").read_bytes()
        limit_files(federation.job_process(federation.federation.server), len(adapter) - 1)
    return First(federation.end_of(job_id), came_after, n_processes, adapter)


@dataclass
class Second:
    """The job in which a site was too slow for a round, and later died and came back; and what it left at the end."""

    job_id: str
    too_slow_in: int
    back_in: int
    died_after: int
    listed_when_dead: set[str]
    registered: list[set[str]]
    adapter: Path
    sites: Path


@pytest.fixture(scope="module")
def second(federation: RunningFederation, first: First, tmp_path_factory: pytest.TempPathFactory) -> Second:
    stop_round = round_of(first.ended.adapter) + 1 + N_ROUNDS_OF_SECOND
    settings = (ALONE, f"workflow.wait_s={WAIT_S}", f"workflow.stop_round={stop_round}")
    job_id = federation.submit(federation.job(*settings, name="accidents-2", resume_from=first.ended.adapter))
    federation.wait_for_record(job_id, everybody)
    with federation.held_in_training(UNLUCKY):
        known = federation.rounds(job_id)[-1]["round"]
        too_slow_in = federation.wait_for_record(job_id, lambda _: True, known)["round"]
    back_in = federation.wait_for_record(job_id, everybody, too_slow_in)["round"]
    with federation.held_in_training(UNLUCKY):
        died_after = federation.rounds(job_id)[-1]["round"]
        federation.kill(UNLUCKY)  # first, so that nobody is left to tell the server about the job process
        federation.job_process(UNLUCKY).kill()
    with console(federation.federation) as lead:
        listed = set(lead.last_contacts())
        registered = [registered_sites(federation.federation, lead)]
        federation.restart(UNLUCKY)
        registered.append(registered_sites(federation.federation, lead))
    federation.wait_for_round(job_id, stop_round - 1)
    kept = tmp_path_factory.mktemp("second")
    unfinished = shutil.ignore_patterns(".partial-*")  # the evaluation is going on
    for site in SITES:
        shutil.copytree(federation.directory / "sites" / site, kept / site, ignore=unfinished)
    adapter = federation.copy_adapter(job_id, kept)
    return Second(job_id, too_slow_in, back_in, died_after, listed, registered, adapter, kept)


@dataclass
class Third:
    """Two jobs that ran while the second one was ending, how they began, and why one more did not."""

    resumed: Ended
    folder: Path
    adapter: Path
    full: dict[str, Any]
    back_in: int
    new: Ended
    new_folder: Path
    statuses: list[str]
    waits_because: str
    aborted_status: str


@pytest.fixture(scope="module")
def third(federation: RunningFederation, second: Second, tmp_path_factory: pytest.TempPathFactory) -> Third:
    folder = federation.job(ALONE, name="accidents-3", resume_from=second.adapter)
    new_folder = wishing_a_gpu(federation.job(*EXPERIMENT, "train.n_rounds=2", ALONE, name="accidents-new"))
    resumed, new = federation.submit(folder), federation.submit(new_folder)
    waiting = federation.submit(wishing_a_gpu(federation.job(*EXPERIMENT, name="accidents-waits")))
    # the new job has two rounds only, so that it is waited for first and never let go meanwhile
    with (
        console(federation.federation) as lead,
        federation.held_in_training(SAFE, jobs=(new,)),
        federation.held_in_training(SAFE, jobs=(resumed,)),
    ):
        statuses = [str(lead.job(job_id)["status"]) for job_id in (resumed, new)]
    begun = federation.wait_for_record(resumed, everybody)["round"]
    with federation.held_in_training(UNLUCKY, jobs=(resumed,)):  # no round ends meanwhile
        adapter = federation.copy_adapter(resumed, tmp_path_factory.mktemp("third"))
        limit_files(federation.job_process(UNLUCKY, resumed), NO_ROOM_FOR_A_STATE)
    full = federation.wait_for_record(resumed, lambda record: not everybody(record), begun)
    limit_files(federation.job_process(UNLUCKY, resumed), resource.RLIM_INFINITY)
    back_in = federation.wait_for_record(resumed, everybody, full["round"])["round"]
    federation.job_process(federation.federation.server, resumed).kill()
    with console(federation.federation) as lead:
        federation.until("a try to schedule", lambda: bool(lead.job(waiting).get("schedule_history")))
        waits_because = str(lead.job(waiting)["schedule_history"])
        abort_waiting(lead, waiting)
        aborted_status = str(lead.job(waiting)["status"])
    both = iter([federation.end_of(job_id) for job_id in (resumed, new)])
    return Third(
        next(both), folder, adapter, full, back_in, next(both), new_folder, statuses, waits_because, aborted_status
    )


def wishing_a_gpu(folder: Path) -> Path:
    """Let a job ask for a GPU at one site, whose kit offers none."""
    meta = json.loads((folder / "meta.json").read_text())
    meta["resource_spec"] = {UNLUCKY: {"num_of_gpus": 1, "mem_per_gpu_in_GiB": 1}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="module")
def second_ended(federation: RunningFederation, second: Second, third: Third) -> Ended:
    return federation.end_of(second.job_id)


def test_a_site_that_comes_late_gets_no_work_of_the_running_job(first: First) -> None:
    assert first.n_processes_of_late_site == 0
    assert first.ended.rounds[-1]["round"] > first.came_after, "the job went on"
    assert all(only_safe(record) for record in first.ended.rounds)


def test_a_full_disk_of_the_server_ends_the_job_and_leaves_the_older_adapter_whole(first: First) -> None:
    assert first.ended.job.status == "FINISHED:EXECUTION_EXCEPTION"
    assert first.ended.adapter.read_bytes() == first.adapter_before


def test_the_next_job_includes_the_late_site(second: Second, federation: RunningFederation) -> None:
    assert second.back_in
    assert "the local adapter starts from scratch" in federation.log(UNLUCKY, second.job_id)


def test_a_round_ends_without_a_site_that_is_too_slow(second: Second, second_ended: Ended) -> None:
    (record,) = [record for record in second_ended.rounds if record["round"] == second.too_slow_in]
    assert only_safe(record)
    assert record["seconds"] >= WAIT_S


def test_a_late_answer_is_in_no_later_round_and_the_site_takes_part_again(second: Second, second_ended: Ended) -> None:
    received = [json.loads(line) for line in (second_ended.server / "received.jsonl").read_text().splitlines()]
    answered = [line["round_index"] for line in received if (line["site"], line["task"]) == (UNLUCKY, "train")]
    assert answered == [record["round"] for record in second_ended.rounds if UNLUCKY in record["sites"]]
    assert second.too_slow_in < second.back_in
    assert second.too_slow_in not in answered
    assert second.back_in in answered


def test_rounds_go_on_without_a_site_that_died(second: Second, second_ended: Ended) -> None:
    after = [record for record in second_ended.rounds if record["round"] > second.died_after]
    assert after
    assert all(only_safe(record) for record in after)


def test_a_dead_site_is_not_registered_although_flare_lists_it(second: Second) -> None:
    assert second.listed_when_dead == set(SITES)
    assert second.registered == [{SAFE}, set(SITES)]


def test_the_job_of_a_site_that_came_back_ends_as_abnormal_and_its_result_is_complete(second_ended: Ended) -> None:
    assert second_ended.job.status == "FINISHED:ABNORMAL"
    assert len(second_ended.rounds) == N_ROUNDS_OF_SECOND
    assert set(json.loads((second_ended.server / "evaluation.json").read_text())["sites"]) == {SAFE}


def test_a_site_that_came_back_goes_on_with_its_own_last_state(third: Third, federation: RunningFederation) -> None:
    assert everybody(third.resumed.rounds[0])
    assert "starts from scratch" not in federation.log(UNLUCKY, third.resumed.job.job_id)


def test_a_full_disk_of_a_site_costs_its_part_of_the_round(third: Third, federation: RunningFederation) -> None:
    assert only_safe(third.full)
    (refused,) = third.full["refused"]
    assert refused["site"] == UNLUCKY
    # the ledger, which has the earlier jobs of the session as well, may be at the limit before the state is
    assert re.fullmatch("the site answered (EXECUTION_EXCEPTION|TASK_RESULT_FILTER_ERROR)", refused["reason"])
    assert "the site's local state cannot be written" in federation.log(UNLUCKY, third.resumed.job.job_id)
    assert third.back_in > third.full["round"]


def test_a_killed_job_process_of_the_server_loses_no_finished_round(third: Third) -> None:
    assert third.resumed.job.status == "FINISHED:EXECUTION_EXCEPTION"
    saved = SavedRound.read(third.resumed.adapter)
    assert saved.round_index >= third.back_in - 1
    saved.check(read_job(third.folder)[0])


def test_two_jobs_run_at_once_at_one_site(third: Third, federation: RunningFederation) -> None:
    assert third.statuses == ["RUNNING", "RUNNING"]
    assert third.new.job.status == COMPLETED
    lineages = [Lineage.from_list(load_adapter(job.adapter)[1]["lineage"]) for job in (third.resumed, third.new)]
    assert not {run.run_id for run in lineages[0].runs} & {run.run_id for run in lineages[1].runs}
    for lineage in lineages:
        folder = federation.directory / "sites" / SAFE / "state" / "accidents" / lineage.run_id
        assert (folder / "state.safetensors").is_file()


def test_jobs_at_once_give_what_each_gives_alone(
    third: Third, second: Second, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path
) -> None:
    def sites(*names: str) -> dict[str, SiteConfig]:
        own = {site: second.sites / site for site in names}
        return {
            site: SiteConfig(tiny_cohorts[site], place / "state", place / "cache", tiny_checkpoint, "cpu", policy=FREE)
            for site, place in own.items()
        }

    begin, stop_round = SavedRound.read(second.adapter), round_of(third.adapter) + 1
    job, _ = read_job(third.folder)
    same(third.adapter, run_federation(job, sites(*SITES), resume_from=begin, stop_round=stop_round).global_state)
    job, _ = read_job(third.new_folder)
    same(third.new.adapter, run_federation(job, sites(SAFE)).global_state)


def same(adapter: Path, expected: dict[str, np.ndarray]) -> None:
    found, _ = load_adapter(adapter)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_job_that_asks_for_a_gpu_is_given_to_the_sites_that_need_none(third: Third) -> None:
    assert len(third.new.rounds) == 2
    assert all(only_safe(record) for record in third.new.rounds)


def test_a_job_that_asks_for_a_gpu_waits_where_too_few_sites_are_left(third: Third) -> None:
    assert "not enough sites have enough resources (ok sites 1 < min sites 2)" in third.waits_because
    assert third.aborted_status == "FINISHED:ABORTED"
