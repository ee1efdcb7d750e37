import io
import sys

import pytest

from med_duallora.support import progress
from med_duallora.support.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_item_passes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([3, 1, 2], "subjects")) == [3, 1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("subjects: 3 done in ")
    assert len(err.splitlines()) == 1, "short work is one plain line in a log"


def test_nothing_to_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([], "subjects")) == []
    assert capsys.readouterr().err.startswith("subjects: 0 done")


@pytest.mark.parametrize(
    ("total", "expected"), [(None, "rounds: 1/?"), (3, "rounds: 1/3")], ids=["length unknown", "length given"]
)
def test_long_work_reports_now_and_then(
    total: int | None, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    assert list(track((number for number in range(3)), "rounds", total)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == expected
    assert len(lines) == 4


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(track([1, 2], "subjects")) == [1, 2]
    assert "subjects: 100%" in terminal.getvalue()


def test_an_error_in_the_work_is_not_hidden() -> None:
    def failing() -> object:
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(track(failing(), "subjects"))
