"""Ctrl-C and the like in the middle of a whole run: nothing stays behind."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from med_duallora.flare.federation import processes
from med_duallora.flare.federation.record import RECORD, Federation
from tests.integration.harness import PATIENCE_S, SETTINGS, SITE_SETTINGS, SITES

pytestmark = [pytest.mark.flare, pytest.mark.xdist_group("federation")]

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path) -> Iterator[Start]:
    """Start ``federation run`` with a job that would take very long."""
    running: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "med_duallora", "federation", "run", "--dir", str(tmp_path / "federation")]
        command += ["--data", str(tiny_cohorts[SITES[0]].parent), "--sites", ",".join(SITES)]
        command += ["--backbone-checkpoint", str(tiny_checkpoint), "--timeout", str(PATIENCE_S)]
        for setting in SITE_SETTINGS:
            command += ["--site-set", setting]
        for setting in (*SETTINGS, "train.n_rounds=1000"):
            command += ["--set", setting]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return running[0]

    yield begin
    for program in running:
        program.kill()
        program.communicate()
    if (tmp_path / "federation" / RECORD).is_file():
        processes.stop(Federation.read(tmp_path / "federation").identity)


def read_until(program: subprocess.Popen[str], text: str) -> str:
    """Read a program's output until a line holds a text."""
    assert program.stdout is not None
    seen = ""
    for line in program.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"it ended before it said {text!r}:\n{seen}")


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("started philips", signal.SIGTERM, id="while the federation comes up"),
        pytest.param(" of 1000", signal.SIGINT, id="in the middle of a round"),
    ],
)
def test_an_interrupted_run_leaves_nothing_running(moment: str, number: int, start: Start, tmp_path: Path) -> None:
    program = start()
    seen = read_until(program, moment)
    identity = Federation.read(tmp_path / "federation").identity
    assert processes.members(identity), seen
    program.send_signal(number)
    threading.Timer(0.5, program.send_signal, [number]).start()  # people press Ctrl-C twice
    rest, _ = program.communicate(timeout=PATIENCE_S)
    assert processes.members(identity) == [], seen + rest
    assert "federation down; nothing of it runs" in rest
    assert ("aborting job" in rest) == ("of 1000" in moment), rest
    assert program.returncode in (130, -number), seen + rest
