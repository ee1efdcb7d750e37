import dataclasses
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from med_duallora.errors import InputError
from med_duallora.flare.jobs.export import JobSpec
from med_duallora.flare.local.detour import Detour
from med_duallora.flare.local.simulation import (
    Simulation,
    check_nothing_is_lost,
    finished_run,
    logged_errors,
    problems,
    start_clean,
)
from med_duallora.flare.local.workspace import held
from med_duallora.settings.config import SITE_CONFIG_VARIABLE, JobConfig, SiteConfig


@pytest.fixture
def simulation(tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tiny_job: JobConfig, tmp_path: Path) -> Simulation:
    sites = {site: tiny_cohorts[site] for site in ("ge", "canon")}
    spec = JobSpec("a-job", "", tiny_job)
    return Simulation(tmp_path / "run", spec, sites, 2, "cpu", tiny_checkpoint)


def finish(simulation: Simulation, n_rounds: int = 2, sites: tuple[str, ...] = ("ge", "canon")) -> None:
    """What the simulated server writes."""
    folder = simulation.server_directory
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "round_metrics.jsonl").write_text("".join(f'{{"round": {index}}}\n' for index in range(n_rounds)))
    (folder / "evaluation.json").write_text(json.dumps({"model": "last", "sites": {site: {} for site in sites}}))


def say_finished(simulation: Simulation) -> None:
    path = simulation.workspace / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "finished"}))


def test_the_printed_command_is_the_one_that_runs(simulation: Simulation) -> None:
    words = shlex.split(simulation.command_text())
    assert words[2:] == simulation.command()
    assert dict(word.split("=", 1) for word in words[:2]) == simulation.environment()
    assert words[3] == "simulator"
    assert words[-6:] == ["-c", "ge,canon", "-t", "2", "-l", "concise"]


def test_by_a_detour_the_command_names_the_links_alone(simulation: Simulation, tmp_path: Path) -> None:
    by = Detour(Path("/link"), Path("/env/bin/python"), {Path("/link"): tmp_path / "run 1"})
    words = shlex.split(simulation.command_text(by))
    assert words[:4] == ["ln", "-s", str(tmp_path / "run 1"), "/link;"]
    assert words[6:10] == ["/env/bin/python", "-m", "nvflare.cli", "simulator"]
    assert not any(str(tmp_path) in word for word in words[4:])


def test_a_start_writes_what_every_site_reads(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    record = start_clean(simulation)
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, simulation.environment()[SITE_CONFIG_VARIABLE])
    for site in simulation.sites:
        assert SiteConfig.find(site) == simulation.site_config(site)
    assert (simulation.job_folder / "meta.json").is_file()
    assert json.loads((simulation.workspace / "run.json").read_text()) == record
    assert record["status"] == "started"


def test_a_start_keeps_nothing_but_the_cache_of_a_run_that_finished_no_round(simulation: Simulation) -> None:
    first = start_clean(simulation)
    for name in ("state/ge", "flare", "report", "cache/ge", "site_config"):
        (simulation.workspace / name).mkdir(parents=True, exist_ok=True)
        (simulation.workspace / name / "old").write_text("old")
    second = start_clean(simulation)
    assert [path.parent.name for path in simulation.workspace.rglob("old")] == ["ge"]
    assert (simulation.workspace / "cache" / "ge" / "old").is_file()
    assert first["run_id"] != second["run_id"]


def test_a_start_never_removes_results(simulation: Simulation) -> None:
    start_clean(simulation)
    finish(simulation, n_rounds=1)
    with pytest.raises(InputError, match="holds the results of 1 round;"):
        start_clean(simulation)
    assert (simulation.server_directory / "round_metrics.jsonl").is_file()


def test_nothing_is_lost_where_nothing_was_done(simulation: Simulation) -> None:
    assert not check_nothing_is_lost(simulation)
    start_clean(simulation)
    assert not check_nothing_is_lost(another_job(simulation)), "it was started, and no round was finished"


def test_a_new_workspace_is_used(simulation: Simulation) -> None:
    assert finished_run(simulation) is None
    simulation.workspace.mkdir()
    with held(simulation.workspace):
        assert finished_run(simulation) is None


def test_somebody_s_folder_is_left_alone(simulation: Simulation) -> None:
    simulation.workspace.mkdir()
    (simulation.workspace / "thesis.tex").write_text("...")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        finished_run(simulation)


def test_a_damaged_record_is_said(simulation: Simulation) -> None:
    simulation.workspace.mkdir()
    (simulation.workspace / "run.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        finished_run(simulation)


def test_a_finished_run_is_not_repeated(simulation: Simulation) -> None:
    record = start_clean(simulation)
    finish(simulation)
    assert finished_run(simulation) is None, "it did not say that it finished"
    say_finished(simulation)
    found = finished_run(simulation)
    assert found is not None
    assert found["run_id"] == record["run_id"]
    assert finished_run(dataclasses.replace(simulation, n_parallel=1)) is not None, "it changes no result"
    (simulation.server_directory / "evaluation.json").unlink()
    assert finished_run(simulation) is None, "its results are gone"


def another_job(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, spec=simulation.spec.with_overrides(["train.seed=1"]))


def another_wait(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, spec=simulation.spec.with_overrides(["workflow.wait_s=1"]))


def another_clip(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, spec=simulation.spec.with_overrides(["workflow.screening.clip=0"]))


def fewer_sites(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, sites={"ge": simulation.sites["ge"]})


def another_device(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, device="auto")


def another_backbone(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, backbone_checkpoint=None)


CHANGES = [
    (another_job, "another train.seed"),
    (another_wait, "another workflow.wait_s"),
    (another_clip, "another workflow.screening.clip"),
    (fewer_sites, "another sites or cohorts"),
    (another_device, "another device"),
    (another_backbone, "another backbone checkpoint"),
]


@pytest.mark.parametrize(("change", "difference"), CHANGES, ids=[row[1] for row in CHANGES])
def test_results_of_another_configuration_are_never_in_the_way_of_a_start(
    change: Callable[[Simulation], Simulation], difference: str, simulation: Simulation
) -> None:
    start_clean(simulation)
    finish(simulation)
    say_finished(simulation)
    assert finished_run(change(simulation)) is None
    with pytest.raises(
        InputError, match=re.escape(f"2 rounds of another configuration ({difference}). Choose")
    ) as told:
        check_nothing_is_lost(change(simulation))
    assert "--fresh, which moves that run to run.previous-N" in str(told.value)


def test_rounds_of_a_run_that_was_broken_off_are_kept_too(simulation: Simulation) -> None:
    start_clean(simulation)
    finish(simulation, n_rounds=1)
    (simulation.server_directory / "evaluation.json").unlink()
    assert check_nothing_is_lost(simulation), "the same configuration: set aside without a question"
    with pytest.raises(InputError, match=r"holds 1 finished round of another configuration \(another train.seed\)"):
        check_nothing_is_lost(another_job(simulation))


def test_a_record_of_an_older_version_is_refused_likewise(simulation: Simulation) -> None:
    start_clean(simulation)
    finish(simulation)
    (simulation.workspace / "run.json").write_text('{"status": "finished", "fingerprint": "0"}')
    with pytest.raises(InputError, match="does not say in which respect"):
        check_nothing_is_lost(simulation)


def test_damaged_results_are_no_traceback(simulation: Simulation) -> None:
    finish(simulation)
    for text in ("[]", "{", "[" * 10_000):
        (simulation.server_directory / "evaluation.json").write_text(text)
        assert problems(simulation) == ["the trained adapter was not evaluated"]
    (simulation.server_directory / "round_metrics.jsonl").write_text("{\n")
    assert "0 of 2 rounds were finished" in problems(simulation)


def test_a_changed_cohort_is_another_run(simulation: Simulation, tmp_path: Path) -> None:
    folder = tmp_path / "ge"
    folder.mkdir()
    table = (simulation.sites["ge"] / "cohort.csv").read_text()
    (folder / "cohort.csv").write_text(table)
    one = dataclasses.replace(simulation, sites={"ge": folder}).fingerprint()
    (folder / "cohort.csv").write_text(table.replace(",val,", ",test,"))
    assert dataclasses.replace(simulation, sites={"ge": folder}).fingerprint() != one


def test_complete_results_have_no_problem(simulation: Simulation) -> None:
    finish(simulation)
    assert problems(simulation) == []


@pytest.mark.parametrize(
    ("n_rounds", "sites", "expected"),
    [
        (1, ("ge", "canon"), "1 of 2 rounds were finished"),
        (2, ("ge",), "no evaluation from canon"),
        (2, (), "no evaluation from canon, ge"),
    ],
)
def test_incomplete_results_are_named(
    n_rounds: int, sites: tuple[str, ...], expected: str, simulation: Simulation
) -> None:
    finish(simulation, n_rounds, sites)
    assert problems(simulation) == [expected]


def test_no_results_at_all_are_named(simulation: Simulation) -> None:
    assert problems(simulation) == ["0 of 2 rounds were finished", "the trained adapter was not evaluated"]


def test_a_damaged_file_of_rounds_is_left_out(simulation: Simulation) -> None:
    finish(simulation)
    assert len(simulation.finished_rounds()) == 2
    (simulation.server_directory / "round_metrics.jsonl").write_text('{"round": 0}\n{"rou\n')
    assert simulation.finished_rounds() == []


def log(simulation: Simulation, name: str, *lines: str) -> None:
    path = simulation.workspace / "flare" / name / "error_log.txt"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"2026-01-01 00:00:00,000 - {line}\n" for line in lines))


def test_a_site_s_own_words_come_first(simulation: Simulation) -> None:
    log(simulation, "server", "ServerRunner - ERROR - [identity=server] - Aborting current RUN")
    failed = "DualLoRALearner - ERROR - [identity=ge, run=1] - initialisation failed: CohortError"
    log(simulation, "ge", failed, "DualLoRALearner - ERROR - [identity=ge] - training refused")
    assert logged_errors(simulation) == ["ge: initialisation failed: CohortError"]


def test_without_them_flare_s_first_errors_are_shown(simulation: Simulation) -> None:
    log(simulation, "server", "ServerRunner - ERROR - [wf=rounds] - no clients", "ServerRunner - ERROR - [x] - again")
    assert logged_errors(simulation) == ["server: no clients"]


def test_without_logs_there_is_nothing_to_show(simulation: Simulation) -> None:
    assert logged_errors(simulation) == []


def test_two_simulations_do_not_share_a_workspace(tmp_path: Path) -> None:
    def second() -> Any:
        with held(tmp_path):
            return None

    with held(tmp_path), pytest.raises(InputError, match="another simulation is at work"):
        second()
    second()


def test_threads_do_not_depend_on_how_many_sites_work_at_a_time(simulation: Simulation) -> None:
    slower = dataclasses.replace(simulation, n_parallel=1)
    assert slower.site_config("ge") == simulation.site_config("ge")


def test_settings_of_the_sites_can_be_changed(simulation: Simulation) -> None:
    changed = dataclasses.replace(simulation, site_settings=("n_threads=3", "policy.min_subjects=2"))
    config = changed.site_config("ge")
    assert (config.n_threads, config.policy.min_subjects) == (3, 2)
    assert config.data_dir == simulation.site_config("ge").data_dir
    assert changed.fingerprint() != simulation.fingerprint(), "another run"
