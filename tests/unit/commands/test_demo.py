from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.cli import build_parser, main
from med_duallora.commands import demo, phantom, prepare, report, simulate
from med_duallora.errors import CohortError, UnfitError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Namespace]:
    """Replace what the steps do; what they are asked for is kept."""
    found: list[Namespace] = []

    def note(options: Namespace) -> int:
        found.append(options)
        return 0

    for command in (phantom, prepare, simulate, report):
        monkeypatch.setattr(command, "run", note)
    return found


def test_every_step_takes_what_the_one_before_it_wrote(
    calls: list[Namespace], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert [call.command for call in calls] == ["phantom", "prepare", "simulate", "report"]
    first, second, third, fourth = calls
    assert (second.acdc, second.mnms) == (first.out / "acdc", first.out / "mnms")
    assert third.data == second.out
    assert fourth.run_directory == third.workspace
    lines = capsys.readouterr().out.splitlines()
    simulate = f"$ med-duallora simulate --data {tmp_path}/prepared --workspace {tmp_path}/run"
    assert simulate in lines, "with the default recipe and the default policy"
    assert lines[-1].endswith(f"open {tmp_path / 'run' / 'report' / 'report.html'}")


def test_settings_reach_their_steps(calls: list[Namespace], tmp_path: Path) -> None:
    arguments = ["--seed", "3", "--n-per-vendor", "6", "--set", "train.n_rounds=2", "--set", "lora.rank_local=4"]
    assert main(["demo", "--out", str(tmp_path), *arguments]) == 0
    assert (calls[0].seed, calls[0].n_per_vendor) == (3, 6)
    assert (calls[2].recipe, calls[2].assignments) == (None, ["train.n_rounds=2", "lora.rank_local=4"])


def test_a_recipe_reaches_the_federation(calls: list[Namespace], tmp_path: Path) -> None:
    assert main(["demo", "--out", str(tmp_path), "--recipe", "paper"]) == 0
    assert (calls[2].recipe, calls[2].assignments) == ("paper", [])


@pytest.mark.parametrize(
    ("end", "code", "reason"),
    [
        (lambda _: 1, 1, "a refused subject or a failed run must not look like success"),
        (lambda _: (_ for _ in ()).throw(CohortError("no cohort")), 2, "bad input keeps its code"),
    ],
)
def test_a_failed_step_ends_the_demo(  # noqa: PLR0917
    end: Callable[[Namespace], int],
    code: int,
    reason: str,
    calls: list[Namespace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(prepare, "run", end)
    assert main(["demo", "--out", str(tmp_path)]) == code, reason
    assert [call.command for call in calls] == ["phantom"]
    out, err = capsys.readouterr()
    assert "finished" not in out
    assert err.startswith(("demo: step 2, prepare, failed with exit code 1", "med-duallora demo: no cohort"))


def test_every_printed_command_is_one_that_the_command_line_takes(tmp_path: Path) -> None:
    options = Namespace(
        out=tmp_path, seed=1, n_per_vendor=8, recipe="paper", assignments=["train.n_rounds=2"], fresh=False
    )
    for arguments in demo.steps(options).values():
        assert build_parser().parse_args(arguments).command == arguments[0]


def test_too_few_phantoms_are_said_by_the_option_that_makes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unfit(_: Namespace) -> int:
        raise UnfitError("canon-1 cannot run this job", "canon-1 cannot run this job")

    monkeypatch.setattr(phantom, "run", unfit)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--n-per-vendor", "20"]) == 2
    assert "give at least 32, and another --out" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "demo"), "--n-per-vendor", "32"]) == 2
    assert "canon-1 cannot run this job" in capsys.readouterr().err
