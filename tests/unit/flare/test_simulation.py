import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from med_duallora.config import SITE_CONFIG_VARIABLE, JobConfig, SiteConfig
from med_duallora.errors import ConfigError, InputError
from med_duallora.flare.export import JobSpec
from med_duallora.flare.simulation import (
    Simulation,
    find_sites,
    finished_run,
    locked,
    logged_errors,
    mark_origin,
    problems,
    read_rounds,
    start_clean,
)


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


def test_every_prepared_cohort_is_a_site(tiny_cohorts: dict[str, Path]) -> None:
    data = tiny_cohorts["ge"].parent
    assert list(find_sites(data)) == ["canon", "ge", "philips", "siemens"]
    assert find_sites(data, ["siemens", "ge"]) == {"siemens": tiny_cohorts["siemens"], "ge": tiny_cohorts["ge"]}


def test_missing_cohorts_are_named(tiny_cohorts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no prepared cohort below"):
        find_sites(tmp_path)
    with pytest.raises(ConfigError, match=r"toshiba; there are canon, ge"):
        find_sites(tiny_cohorts["ge"].parent, ["ge", "toshiba"])


def test_the_printed_command_is_the_one_that_runs(simulation: Simulation) -> None:
    words = shlex.split(simulation.command_text())
    assert words[2:] == simulation.command()
    assert dict(word.split("=", 1) for word in words[:2]) == simulation.environment()
    assert words[3] == "simulator"
    assert words[-6:] == ["-c", "ge,canon", "-t", "2", "-l", "concise"]


def test_a_start_writes_what_every_site_reads(simulation: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    record = start_clean(simulation)
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, simulation.environment()[SITE_CONFIG_VARIABLE])
    for site in simulation.sites:
        assert SiteConfig.find(site) == simulation.site_config(site)
    assert (simulation.job_folder / "meta.json").is_file()
    assert json.loads((simulation.workspace / "run.json").read_text()) == record
    assert record["status"] == "started"


def test_a_start_keeps_nothing_of_an_older_run_but_the_cache(simulation: Simulation) -> None:
    first = start_clean(simulation)
    for name in ("state/ge", "flare", "report", "cache/ge", "site_config"):
        (simulation.workspace / name).mkdir(parents=True, exist_ok=True)
        (simulation.workspace / name / "old").write_text("old")
    second = start_clean(simulation)
    assert [path.parent.name for path in simulation.workspace.rglob("old")] == ["ge"]
    assert (simulation.workspace / "cache" / "ge" / "old").is_file()
    assert first["run_id"] != second["run_id"]


def test_a_new_workspace_is_used(simulation: Simulation) -> None:
    assert finished_run(simulation) is None
    simulation.workspace.mkdir()
    with locked(simulation.workspace):
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


def fewer_sites(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, sites={"ge": simulation.sites["ge"]})


def another_device(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, device="auto")


def another_backbone(simulation: Simulation) -> Simulation:
    return dataclasses.replace(simulation, backbone_checkpoint=None)


@pytest.mark.parametrize("change", [another_job, another_wait, fewer_sites, another_device, another_backbone])
def test_another_configuration_is_another_run(
    change: Callable[[Simulation], Simulation], simulation: Simulation
) -> None:
    start_clean(simulation)
    finish(simulation)
    say_finished(simulation)
    assert finished_run(change(simulation)) is None


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


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    (tmp_path / "round_metrics.jsonl").write_text('{"round": 0}\n{"rou')
    assert read_rounds(tmp_path) == [{"round": 0}]


def test_the_origin_of_the_data_is_noted_beside_the_scores(simulation: Simulation, tmp_path: Path) -> None:
    finish(simulation)
    mark_origin(simulation)
    where = simulation.server_directory / "evaluation.json"
    assert json.loads(where.read_text())["origin"] == {"phantoms": "none", "datasets": []}
    phantoms = tmp_path / "prepared" / "ge"
    phantoms.mkdir(parents=True)
    (tmp_path / "prepared" / "preparation.json").write_text('{"synthetic": true}')
    mark_origin(dataclasses.replace(simulation, sites={"ge": phantoms}))
    assert json.loads(where.read_text())["origin"] == {"phantoms": "all", "datasets": []}


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
        with locked(tmp_path):
            return None

    with locked(tmp_path), pytest.raises(InputError, match="another simulation is at work"):
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
