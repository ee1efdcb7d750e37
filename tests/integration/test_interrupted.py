"""Ctrl-C and the like in the middle of a whole run: nothing stays behind."""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.record import RECORD, Federation
from tests.integration.harness import PATIENCE_S, SETTINGS, SITE_SETTINGS, SITES
from tests.integration.programs import med_duallora, read_until, repeated, running

pytestmark = pytest.mark.flare

SITE = SITES[0]
"""One is enough: what must not stay behind are its parent, its job process, and the two of the server."""

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path) -> Iterator[Start]:
    """Start ``federation run`` with a job that would take very long."""
    stack = contextlib.ExitStack()

    def begin() -> subprocess.Popen[str]:
        command = med_duallora("federation", "run", "--workspace", tmp_path / "federation")
        command += ["--data", str(tiny_cohorts[SITE].parent), "--sites", SITE]
        command += ["--backbone-checkpoint", str(tiny_checkpoint), "--timeout", str(PATIENCE_S)]
        command += repeated("--site-set", SITE_SETTINGS)
        command += repeated("--set", (*SETTINGS, "train.n_rounds=1000"))
        return stack.enter_context(running(command))

    with stack:
        yield begin
    if (tmp_path / "federation" / RECORD).is_file():
        processes.stop(Federation.read(tmp_path / "federation").identity)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param(f"started {SITE}", signal.SIGTERM, id="while the federation comes up"),
        pytest.param(" of 1000", signal.SIGINT, id="in the middle of a round"),
    ],
)
def test_an_interrupted_run_leaves_nothing_running(moment: str, number: int, start: Start, tmp_path: Path) -> None:
    program = start()
    seen = read_until(program, moment)
    identity = Federation.read(tmp_path / "federation").identity
    assert processes.members(identity), seen
    program.send_signal(number)
    for later in (0.02, 0.5):  # people press Ctrl-C more than once
        threading.Timer(later, program.send_signal, [number]).start()
    rest, _ = program.communicate(timeout=PATIENCE_S)
    assert processes.members(identity) == [], seen + rest
    assert "federation down; nothing of it runs" in rest
    assert ("aborting job" in rest) == ("of 1000" in moment), rest
    assert program.returncode in (130, -number), seen + rest
