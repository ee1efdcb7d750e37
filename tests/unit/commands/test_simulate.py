import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.cli import build_parser, main
from med_duallora.commands.simulate import _simulation
from med_duallora.flare.jobs.export import JobSpec, export_job
from med_duallora.flare.local import simulation as simulations
from med_duallora.server.artifact import adapter_manifest, save_adapter
from med_duallora.settings.config import JobConfig
from med_duallora.settings.workflow import WorkflowConfig
from med_duallora.support.files import sha256_of_file
from tests.unit.tiny import random_payload


def options(arguments: list[str]) -> argparse.Namespace:
    return build_parser().parse_args(arguments)


def test_every_site_takes_part_in_every_round(arguments: list[str], tiny_checkpoint: Path) -> None:
    found = _simulation(options(arguments))
    assert list(found.sites) == ["canon", "ge", "philips", "siemens"]
    assert (found.n_parallel, found.spec.workflow.min_sites, found.spec.with_code) == (4, 4, True)
    assert found.spec.job.train.n_rounds == 2
    assert found.spec.job.backbone_sha256 == sha256_of_file(tiny_checkpoint), "the job is about the given checkpoint"


def test_fewer_sites_and_fewer_at_a_time(arguments: list[str]) -> None:
    found = _simulation(options([*arguments, "--sites", "ge,canon", "--parallel-sites", "1"]))
    assert (list(found.sites), found.n_parallel, found.spec.workflow.min_sites) == (["ge", "canon"], 1, 2)


def test_a_minimum_of_sites_can_be_asked_for(arguments: list[str]) -> None:
    assert _simulation(options([*arguments, "--set", "workflow.min_sites=3"])).spec.workflow.min_sites == 3


def test_a_job_folder_can_be_run(arguments: list[str], tmp_path: Path) -> None:
    spec = JobSpec("mine", "", JobConfig(experiment="mine"), WorkflowConfig(wait_s=5))
    found = _simulation(options([*arguments, "--job", str(export_job(spec, tmp_path / "mine"))]))
    assert (found.spec.name, found.spec.job.experiment, found.spec.workflow.wait_s) == ("mine", "mine", 5)
    assert found.spec.job.train.n_rounds == 2, "--set comes after the folder"


class Program:
    """In place of the simulator: does what ``work`` says."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.work = work

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def poll(self) -> int:
        return self.work()


def simulated(monkeypatch: pytest.MonkeyPatch, found: simulations.Simulation, n_rounds: int, code: int) -> None:
    def work() -> int:
        sites = {site: {"metrics": {}} for site in found.sites}
        rounds = [{"round": index, "seconds": 1.0, "refused": [], "sites": sites} for index in range(n_rounds)]
        found.server_directory.mkdir(parents=True)
        (found.server_directory / "round_metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rounds))
        if n_rounds == 2:
            (found.server_directory / "evaluation.json").write_text(json.dumps({"model": "last", "sites": sites}))
        return code

    monkeypatch.setattr("med_duallora.flare.local.processes.supervised", lambda *_: Program(work))


def test_a_run_is_shown_recorded_and_not_repeated(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated(monkeypatch, _simulation(options(arguments)), n_rounds=2, code=1)
    assert main(arguments) == 0, "the results are complete; the simulator's exit code does not count"
    out = capsys.readouterr().out
    assert "nvflare simulator " in out
    assert "round 2/2" in out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    assert main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_an_incomplete_run_fails_whatever_the_simulator_says(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated(monkeypatch, _simulation(options(arguments)), n_rounds=1, code=0)
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "1 of 2 rounds were finished; the trained adapter was not evaluated (exit code of the simulator: 0" in err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


def test_a_finished_run_is_never_wiped(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found, run = _simulation(options(arguments)), tmp_path / "run"
    simulated(monkeypatch, found, n_rounds=2, code=0)
    assert main(arguments) == 0
    (run / "cache" / "ge").mkdir(parents=True)
    before = {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = [*arguments, "--set", "train.seed=1"]
    capsys.readouterr()
    assert main(other) == 2
    error = capsys.readouterr().err
    assert "holds the results of 2 rounds of another configuration (another train.seed)" in error and "--fresh" in error
    assert {path.relative_to(run): path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main([*other, "--fresh"]) == 0
    previous = tmp_path / "run.previous-1"
    assert str(previous) in capsys.readouterr().out
    assert {path.relative_to(previous): path.read_bytes() for path in previous.rglob("*") if path.is_file()} == before
    assert json.loads((run / "run.json").read_text())["job"]["train"]["seed"] == 1
    assert (run / "cache" / "ge").is_dir(), "any run can use the feature cache"
    assert main([*other, "--fresh"]) == 0, "--fresh starts anew although this configuration has finished"
    assert (tmp_path / "run.previous-2" / "run.json").is_file()


def test_rounds_of_the_same_run_are_set_aside_when_it_was_broken_off(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _simulation(options(arguments))
    simulated(monkeypatch, found, n_rounds=1, code=1)
    assert main(arguments) == 1
    simulated(monkeypatch, found, n_rounds=2, code=0)
    assert main(arguments) == 0
    assert "was broken off; it is kept in" in capsys.readouterr().out
    kept = tmp_path / "run.previous-1" / "flare" / "server" / "simulate_job" / "app_server" / "round_metrics.jsonl"
    assert len(kept.read_text().splitlines()) == 1


@pytest.mark.parametrize("more", [[], ["--fresh"]], ids=["without", "with --fresh"])
def test_somebody_s_folder_is_neither_used_nor_moved(
    more: list[str], arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("...")
    assert main([*arguments, *more]) == 2
    assert "is not empty and holds no run" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.tex").is_file() and not (tmp_path / "run.previous-1").exists()


@pytest.fixture
def earlier(arguments: list[str], tmp_path: Path) -> Path:
    """A workspace with an adapter of round 2 of 4, and local states of two of the four sites."""
    job = JobConfig(experiment="old", backbone="cinema-tiny").with_overrides(["train.n_rounds=4"])
    contract = EgressContract.for_job(job)
    manifest = adapter_manifest(job, contract, round=1, lineage=Lineage.begin().to_list())
    workspace = tmp_path / "earlier"
    for site in ("ge", "canon"):
        (workspace / "state" / site / "old" / "run").mkdir(parents=True)
        (workspace / "state" / site / "old" / "run" / "state.safetensors").write_text(site)
    (workspace / "run.json").write_text("{}")
    return save_adapter(workspace / "flare" / "server", "adapter_last", random_payload(contract), manifest)


def test_a_run_goes_on_with_the_states_of_an_earlier_workspace(
    earlier: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    arguments = [*arguments[:-4], "--resume-from", str(earlier)]
    found = _simulation(options(arguments))
    assert (found.spec.job.experiment, found.spec.workflow.rounds(found.spec.job)) == ("old", range(2, 4))
    simulated(monkeypatch, found, n_rounds=2, code=0)
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "rounds 3 to 4 of 4" in shown.out
    assert "no local state of siemens in" in shown.err and "no local state of ge" not in shown.err
    for site in ("ge", "canon"):
        assert (tmp_path / "run" / "state" / site / "old" / "run" / "state.safetensors").read_text() == site
        assert (tmp_path / "earlier" / "state" / site / "old" / "run" / "state.safetensors").read_text() == site
    assert main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_states_can_be_anywhere(earlier: Path, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "earlier" / "run.json").unlink()
    states = ["--states", str(tmp_path / "earlier" / "state")]
    found = _simulation(options([*arguments[:-4], "--resume-from", str(earlier), *states]))
    assert found.states == tmp_path / "earlier" / "state"


def foreign(earlier: Path) -> list[str]:
    return ["--resume-from", str(earlier), "--set", "experiment=new"]


def no_workspace(earlier: Path) -> list[str]:
    (earlier.parents[2] / "run.json").unlink()
    return ["--resume-from", str(earlier)]


def no_states(earlier: Path) -> list[str]:
    return ["--resume-from", str(earlier), "--states", str(earlier.parent / "nowhere")]


def same_workspace(earlier: Path) -> list[str]:
    return ["--resume-from", str(earlier), "--workspace", str(earlier.parents[2])]


def states_alone(earlier: Path) -> list[str]:
    return ["--states", str(earlier.parent)]


def nowhere(earlier: Path) -> list[str]:
    return ["--resume-from", str(earlier.with_name("nowhere.safetensors"))]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (foreign, "belongs to another job: experiment was 'old', but is 'new' here"),
        (no_workspace, "lies in no workspace of simulate"),
        (no_states, "there is no folder"),
        (same_workspace, "what goes on needs a workspace of its own"),
        (states_alone, "--states is for --resume-from only"),
        (nowhere, "nowhere.safetensors"),
    ],
)
def test_a_wrong_resume_is_one_message(
    bad: Callable[[Path], list[str]], message: str, earlier: Path, arguments: list[str], capsys: Any
) -> None:
    assert main([*arguments[:-4], *bad(earlier)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
