from typing import Any

import pytest

from med_duallora.flare.local.rounds_shown import round_line, rounds_shown
from med_duallora.support import progress


def record(index: int, scores: dict[str, float | None], *refused: dict[str, str]) -> dict[str, Any]:
    sites = {
        site: {"metrics": {} if score is None else {"val_balanced_accuracy": score}} for site, score in scores.items()
    }
    return {"round": index, "seconds": 2.04, "sites": sites, "refused": list(refused)}


def test_a_round_is_one_line() -> None:
    line = round_line(record(2, {"ge": 0.75, "philips": 0.5}), 12)
    assert line == "round  3/12  val. balanced accuracy ge 0.75  philips 0.50  mean 0.625  2.0 s"


def test_a_site_without_a_score_and_a_refusal_are_shown() -> None:
    line = round_line(record(0, {"ge": None}, {"site": "canon", "reason": "late"}), 2)
    assert line == "round 1/2  val. balanced accuracy ge -  2.0 s  refused: canon: late"


def test_without_a_terminal_every_round_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = [record(0, {"ge": 0.5}), record(1, {"ge": 0.6})]
    with rounds_shown(2, range(2)) as show:
        show([])
        show(rounds[:1])
        show(rounds[:1])
        show(rounds)
    assert [line[:9] for line in capsys.readouterr().out.splitlines()] == ["round 1/2", "round 2/2"]


def test_without_a_terminal_silence_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    with rounds_shown(1, range(1)) as show:
        show([])
        show([record(0, {"ge": 0.5})])
        show([record(0, {"ge": 0.5})])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("training, ")
    assert lines[-1].startswith("evaluating, ")


def test_on_a_terminal_there_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with rounds_shown(2, range(2)) as show:
        show([record(0, {"ge": 0.5})])
        show([record(0, {"ge": 0.5}), record(1, {"ge": 0.6})])
    out = capsys.readouterr().out
    assert out.count("round 1/2") == 1
    assert "2/2" in out


def test_a_resumed_job_counts_its_own_rounds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    rounds = [record(2, {"ge": 0.5}), record(3, {"ge": 0.6})]
    with rounds_shown(4, range(2, 4)) as show:
        show(rounds[:1])
        show(rounds[:1])
        show(rounds)
        show(rounds)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0][:10].strip() for line in shown] == ["round 3/4", "training", "round 4/4", "evaluating"]
