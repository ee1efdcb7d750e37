import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from med_duallora.flare.local.descendants import family

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children here do not listen; do not wait for them."""
    monkeypatch.setattr("med_duallora.flare.local.descendants.GRACE_S", 0.5)


def command(seconds: float) -> list[str]:
    return [sys.executable, "-c", PARENT, str(seconds)]


def child_of(log: Path) -> psutil.Process:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        text = log.read_text()
        if text.endswith("\n"):
            return psutil.Process(int(text))
        time.sleep(0.02)
    raise AssertionError("the program did not start")


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_program_s_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    program = "import os, sys; print(os.environ['WHO']); sys.exit(3)"
    polls: list[int] = []
    with family([sys.executable, "-c", program], {"WHO": "me"}, tmp_path / "log") as processes:
        assert processes.wait(lambda: polls.append(1)) == 3
    assert (tmp_path / "log").read_text() == "me\n"


def test_an_interrupt_ends_the_whole_family(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), family(command(60), {}, log) as processes:
        child = child_of(log)

        def interrupted() -> None:
            raise KeyboardInterrupt

        processes.wait(interrupted)
    assert gone(child), "a descendant in a session of its own was left"


def test_a_request_to_terminate_ends_the_family_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt), family(command(60), {}, log) as processes:
        child = child_of(log)
        processes.wait(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert gone(child)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_outlives_the_program_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with family(command(1), {}, log) as processes:
        child = child_of(log)
        assert processes.wait(lambda: None) == 0
        assert not gone(child)
    assert gone(child)


def test_it_works_outside_the_main_thread(tmp_path: Path) -> None:
    codes: list[int] = []

    def work() -> None:
        with family([sys.executable, "-c", "pass"], {}, tmp_path / "log") as processes:
            codes.append(processes.wait(lambda: None))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert codes == [0]
