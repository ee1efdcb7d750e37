import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from med_duallora.artifact import adapter_manifest, save_adapter
from med_duallora.backbone import packaged_checkpoint
from med_duallora.cli import build_parser, main
from med_duallora.commands.simulate import _simulation
from med_duallora.config import JobConfig
from med_duallora.egress import EgressContract
from med_duallora.files import sha256_of_file
from med_duallora.flare import simulation as simulations
from med_duallora.flare.export import JobSpec, export_job
from med_duallora.flare.workflow import WorkflowConfig
from med_duallora.lineage import Lineage
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import random_payload


@pytest.fixture
def arguments(tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    data = tiny_cohorts["ge"].parent
    places = ["--data", str(data), "--workspace", str(tmp_path / "run"), "--backbone-checkpoint", str(tiny_checkpoint)]
    return ["simulate", *places, "--set", "backbone=cinema-tiny", "--set", "train.n_rounds=2"]


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


BAD = [
    (["--parallel-sites", "5"], "--parallel-sites 5, but it must be between 1 and the number of sites, 4"),
    (["--parallel-sites", "0"], "--parallel-sites 0"),
    (["--site-set", "n_threads=0"], "n_threads = 0, but it must be between 1 and 1024"),
    (["--site-set", "colour=red"], "colour"),
    (["--sites", "toshiba"], "toshiba"),
    (["--job", "nowhere"], "no such job folder, and no known job; there are simulator"),
    (["--backbone-checkpoint", "nowhere"], "backbone checkpoint nowhere does not exist"),
    (["--backbone-checkpoint", "."], "is a directory"),
    (["--log-config", "loud"], "--log-config loud: it must be concise"),
    (["--sites", "ge,ge"], "site ge is named twice"),
    (["--set", "train.rounds=2"], "unknown setting 'train.rounds'; did you mean train.n_rounds?"),
    (["--set", "n_rounds=2"], "unknown setting 'n_rounds'; did you mean train.n_rounds?"),
    (["--set", "min_sites=2"], "unknown setting 'min_sites'; did you mean workflow.min_sites?"),
    (["--set", "train.n_rounds=999999999999999999999"], "train.n_rounds = 999999999999999999999, but"),
    (["--set", "train.lr=1e9"], "train.lr = 1000000000.0, but it must be above 0 and at most 1"),
    (["--set", "train.lr=1e400"], "train.lr = inf, but it must be a finite number"),
    (["--set", "train.lr=1" + "0" * 400], "but it must be a finite number"),
    (["--set", "train.seed=-1"], "train.seed = -1, but it must be between 0 and"),
    (
        ["--set", "lora.targets=q,k"],
        'write \'lora.targets=["q","k"]\'; it must be one or more of q, kv, proj, fc1, fc2',
    ),
    (["--set", "lora=" + "[" * 100_000], "'lora' is a group of settings"),
    (["--set", "workflow.wait_s=1e9"], "workflow.wait_s = 1000000000.0, but it must be a whole number"),
    (["--set", "workflow.wait_s=1000000000"], "workflow.wait_s = 1000000000, but it must be between 0 and"),
    (["--set", "backbone=cinema-huge"], "cinema-huge"),
    (["--data", "nowhere"], "no prepared cohort below nowhere"),
    (["--device", "tpu"], "device = 'tpu'"),
]


@pytest.mark.parametrize(("more", "message"), BAD, ids=[" ".join(row[0])[:60] for row in BAD])
def test_bad_input_is_found_before_anything_starts(
    more: list[str], message: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *more]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "run.json").exists()


def test_another_backbone_than_the_job_s_is_found_before_anything_starts(
    arguments: list[str], tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--set", f"backbone_sha256={'a' * 64}"]) == 2
    error = capsys.readouterr().err
    assert f"the job pins the checkpoint {'a' * 64}, but" in error and sha256_of_file(tiny_checkpoint) in error
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_cohort_of_a_site_is_not_the_folder_of_sites(
    arguments: list[str], tiny_cohorts: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_cohorts["ge"].parent
    assert main([*arguments, "--data", str(data / "ge")]) == 2
    expected = (
        f"is itself a prepared cohort, of one site; give the folder that holds it: --data {tiny_cohorts['ge'].parent}"
    )
    assert expected in capsys.readouterr().err


def test_a_site_with_one_class_is_found_before_anything_starts(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, site in enumerate(("ge", "canon")):
        write_tiny_cohort(tmp_path / "data" / site, site, seed)
    table = tmp_path / "data" / "ge" / "cohort.csv"
    table.write_text(re.sub(r",DCM,1,", ",NOR,0,", table.read_text()))
    assert main([*arguments, "--data", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert (
        "ge cannot train, which needs both classes: its train split has 6 normal (NOR) and 0 diseased subjects" in error
    )
    assert "the whole cohort has no diseased one" in error and "--sites canon runs without it" in error
    assert "seed" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"\0" * 1000, b"\x80\x04pickle", b""], ids=["zeros", "a pickle", "empty"])
def test_a_checkpoint_of_other_bytes_is_found_before_anything_starts(
    content: bytes, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(content)
    assert main([*arguments, "--backbone-checkpoint", str(tmp_path / "weights.safetensors")]) == 2
    assert "is not a safetensors file or is cut off" in capsys.readouterr().err


def test_a_checkpoint_of_another_backbone_names_that_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = str(packaged_checkpoint("cinema-mini"))
    assert main([*arguments, "--backbone-checkpoint", mini]) == 2
    assert "does not fit the backbone cinema-tiny. It fits the backbone cinema-mini" in capsys.readouterr().err
    save_file({"layer.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    assert main([*arguments, "--backbone-checkpoint", str(tmp_path / "other.safetensors")]) == 2
    assert "fits none of the backbones cinema-base, cinema-mini, cinema-tiny" in capsys.readouterr().err


def test_a_broken_cohort_is_found_before_anything_starts(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "ge").mkdir(parents=True)
    (tmp_path / "data" / "ge" / "cohort.csv").write_text("subject\n")
    assert main([*arguments, "--data", str(tmp_path / "data")]) == 2
    assert "lacks the column" in capsys.readouterr().err


class Processes:
    """In place of the simulator: does what ``work`` says."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.work = work

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def wait(self, on_poll: Callable[[], None]) -> int:
        on_poll()
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

    def family(*_: Any) -> Processes:
        return Processes(work)

    monkeypatch.setattr("med_duallora.flare.processes.family", family)


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
