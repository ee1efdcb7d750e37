import subprocess
import sys
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.flare.jobs.export import JOBS, export_job
from tests.conftest import REPOSITORY


def test_the_page_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    """``med-duallora config check --write`` brings docs/settings.md up to date."""
    assert main(["config", "check", "--checkout", str(REPOSITORY)]) == 0
    assert "docs/settings.md is as the code gives it" in capsys.readouterr().out


def test_drift_is_found_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    assert main(["config", "check", "--checkout", str(tmp_path)]) == 1
    assert "config check --write" in capsys.readouterr().err
    assert main(["config", "check", "--checkout", str(tmp_path), "--write"]) == 0
    assert (tmp_path / "docs" / "settings.md").read_bytes() == (REPOSITORY / "docs" / "settings.md").read_bytes()
    with (tmp_path / "docs" / "settings.md").open("a") as page:
        page.write("x")
    assert main(["config", "check", "--checkout", str(tmp_path)]) == 1


def test_only_a_checkout_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--checkout", str(tmp_path)]) == 2
    assert "is not a checkout" in capsys.readouterr().err


def test_markdown_is_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--markdown"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scope", "there", "not_there"),
    [
        ("job", "train.n_rounds", "workflow.wait_s"),
        ("workflow", "workflow.wait_s", "device"),
        ("site", "device", "method"),
    ],
)
def test_one_scope_can_be_shown(scope: str, there: str, not_there: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--scope", scope]) == 0
    keys = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  " and line[2:3].strip()}
    assert there in keys and not_there not in keys


def test_the_values_of_a_recipe_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--recipe", "paper"]) == 0
    shown = capsys.readouterr().out
    assert "local  (default: shared)" in shown.replace('"', "") and "cache_budget_mb" not in shown
    assert main(["config", "show", "--recipe", "paper", "--scope", "site"]) == 2


def test_the_values_of_a_job_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--job", "production"]) == 0
    shown = capsys.readouterr().out
    assert "1800  (default: 600)" in shown and "cache_budget_mb" not in shown
    folder = export_job(JOBS["production"].with_overrides(["train.n_rounds=33"]), tmp_path / "mine")
    assert main(["config", "show", "--job", str(folder)]) == 0
    assert "33  (default: 12)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--job", "nowhere"], "no known job; known are simulator"),
        (["show", "--job", "poc", "--scope", "site"], "--job has no site settings"),
        (["show", "--markdown", "--job", "poc"], "--markdown prints the whole page"),
        (["explain", "train.n_round"], "did you mean train.n_rounds?"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_setting_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "backbone_checkpoint"]) == 0
    assert "pretrained/cinema.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "one of med-duallora, fedavg-lora"),
        (["show", "--scope", "site"], "device"),
        (["explain", "workflow.wait_s"], "600"),
        (["explain", "method"], "one of med-duallora, fedavg-lora"),
        (["explain", "aggregation"], "factors"),
        (["explain", "backbone"], "one of cinema-base, cinema-mini"),
    ],
)
def test_reading_about_a_setting_waits_for_nothing_heavy(arguments: list[str], words: str) -> None:
    """Importing FLARE and torch takes seconds, which a list of settings does not need; its limits are there without."""
    program = (
        "import sys; from med_duallora.cli import main; assert main(sys.argv[1:]) == 0; "
        "sys.exit(', '.join(sorted({'nvflare', 'torch', 'sklearn'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "config", *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""
    assert words in " ".join(done.stdout.split())
