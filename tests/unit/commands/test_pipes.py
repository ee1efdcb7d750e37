"""A pipe or device in a file's place: refused in a sentence, where reading would wait or go on without end."""

import os
from pathlib import Path

import pytest

from med_duallora.cli import main

INFO = Path("acdc") / "training" / "patient001" / "Info.cfg"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pipe, and an ACDC cohort whose facts are one."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    INFO.parent.mkdir(parents=True)
    os.mkfifo(INFO)
    Path("t.csv").write_text("subject,ed,es,label,vendor,centre\n")
    Path("cohort").mkdir()
    Path("cohort/cohort.csv").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("prepare --table pipe --out out", 2),
        ("prepare --table /dev/zero --out out", 2),
        ("prepare --table t.csv --label-map pipe --out out", 2),
        ("doctor cohort --site-config pipe --out page.html", 2),
        ("ledger verify pipe", 1),
        ("ledger show pipe", 1),
    ],
)
def test_a_pipe_is_refused(place: Path, capsys: pytest.CaptureFixture[str], command: str, code: int) -> None:
    assert main(command.split()) == code
    assert "pipe or device" in capsys.readouterr().err


def test_a_pipe_for_a_patients_facts_refuses_the_patient(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--acdc", "acdc", "--out", "out"]) == 1
    assert "pipe or device" in Path("out/refused.csv").read_text(encoding="utf-8")
