import json
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.site_kit.job_check import job_settings
from tests.conftest import REPOSITORY


def test_a_job_is_exported_with_other_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["jobs", "export", "--out", str(tmp_path), "--job", "simulator"]
    assert main([*arguments, "--set", "train.n_rounds=3", "--set", "workflow.min_sites=2"]) == 0
    assert "self-contained" in capsys.readouterr().out
    server = json.loads((tmp_path / "simulator/app/config/config_fed_server.json").read_text())
    rounds = server["workflows"][0]["args"]
    assert (rounds["num_rounds"], rounds["min_clients"]) == (3, 2)
    assert (tmp_path / "simulator/app/custom/med_duallora/flare/site/learner.py").is_file()


def test_a_recipe_is_applied_below_single_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["jobs", "export", "--out", str(tmp_path), "--job", "production", "--set", "train.local_lr_factor=0.3"]
    assert main([*arguments, "--recipe", "paper"]) == 0
    assert capsys.readouterr().err == "", "a kit takes it as it is"
    job = job_settings(tmp_path / "production")
    assert (job.lora.head_policy, job.train.local_lr_factor) == ("local", 0.3), "wherever --set stands"


@pytest.mark.parametrize(
    ("setting", "key"), [("lora.head_policy=global", "head_leaves"), ("lora.rank_global=32", "max_rank")]
)
def test_what_a_fresh_kit_would_refuse_is_said_when_a_job_is_exported(
    setting: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["jobs", "export", "--out", str(tmp_path), "--job", "production"]
    assert main([*arguments, "--set", setting]) == 0, "a site may agree to more"
    said = capsys.readouterr().err
    assert "a site with the policy that site-kit writes would refuse it" in said and f"policy.{key}" in said


def test_an_unknown_job_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "export", "--out", str(tmp_path), "--job", "nothing"]) == 2
    assert "--job nothing: no known job; known are simulator" in capsys.readouterr().err


def test_the_committed_jobs_are_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "check", "--checkout", str(REPOSITORY)]) == 0
    assert "as the recipe gives them" in capsys.readouterr().out


def test_drift_fails_and_is_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "custom" / "med_duallora").mkdir(parents=True)
    assert main(["jobs", "check", "--checkout", str(tmp_path)]) == 1
    assert "meta.json is missing" in capsys.readouterr().err
    assert main(["jobs", "check", "--checkout", str(tmp_path), "--write"]) == 0
    assert main(["jobs", "check", "--checkout", str(tmp_path)]) == 0


def test_another_folder_is_bad_input(tmp_path: Path) -> None:
    assert main(["jobs", "check", "--checkout", str(tmp_path)]) == 2
