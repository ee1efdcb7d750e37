import io
import sys

import pytest

from med_duallora.support import progress
from med_duallora.support.progress import display, track


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
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    assert list(track((number for number in range(3)), "rounds", total)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == expected
    assert len(lines) == 4


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert list(track([1, 2], "subjects")) == [1, 2]
    assert "2/2" in terminal.getvalue()
    assert "subjects: 2 done in " in terminal.getvalue().splitlines()[-1], "the bar goes, the line stays"


def test_what_is_printed_beside_a_bar_goes_where_it_went(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard error is a terminal, standard output a file."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    for item in track(["a result"], "subjects"):
        print(item)
    assert capsys.readouterr().out == "a result\n"
    assert "a result" not in terminal.getvalue()


def test_lines_that_stay_are_shown_as_they_are_written() -> None:
    for stream in (io.StringIO(), Terminal()):
        with display(stream) as show:
            show("now", news=["round 1 [red]"])
        assert "round 1 [red]" in stream.getvalue()


def test_without_a_terminal_where_the_work_is_comes_with_its_stage_and_after_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    with display(stream) as show:
        show("starting")
        show("first", stage="training", picture="a picture")
        show("second", stage="training")
        show("third", stage="evaluation", news=["trained"])
        monkeypatch.setattr(progress, "QUIET_S", 0.0)
        show("fourth", stage="evaluation")
    assert stream.getvalue().splitlines() == ["first", "trained", "third", "fourth"]


def test_an_error_in_the_work_is_not_hidden() -> None:
    def failing() -> object:
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(track(failing(), "subjects"))
