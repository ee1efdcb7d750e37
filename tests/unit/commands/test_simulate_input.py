"""What would stop a simulation is found before anything starts, with what to do."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from med_duallora.backbone import packaged_checkpoint
from med_duallora.cli import build_parser, main
from med_duallora.commands.simulate import _simulation
from med_duallora.flare.local.simulation_checks import check_inputs
from med_duallora.support.files import sha256_of_file
from tests.conftest import write_tiny_cohort

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
    (["--set", "backbone=cinema-huge"], "backbone = 'cinema-huge', but it must be one of cinema-base, cinema-mini"),
    (["--set", "method=fedsgd"], "method = 'fedsgd', but it must be one of med-duallora, fedavg-lora"),
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
    assert "training needs both classes, and its train split has 6 normal (NOR) and 0 diseased subjects" in error
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


def test_scores_that_a_site_will_not_have_are_said_before_anything_starts(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, site in enumerate(("ge", "canon")):
        write_tiny_cohort(tmp_path / "data" / site, site, seed)
    table = tmp_path / "data" / "ge" / "cohort.csv"
    rows = [re.sub(r",DCM,1,", ",NOR,0,", row) if ",val," in row else row for row in table.read_text().splitlines()]
    table.write_text("\n".join([*rows, ""]))
    check_inputs(_simulation(build_parser().parse_args([*arguments, "--data", str(tmp_path / "data")])))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("ge will have no balanced accuracy in validation: its val split has ")
    assert "and 0 diseased subjects; the diseased ones lie elsewhere" in said
