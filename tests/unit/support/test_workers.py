"""Processes of a pool: one thread each, and none stays behind."""

import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from med_duallora.support.workers import KEPT_MEMORY, ONE_THREAD, workers

DEADLINE_S = 60
POOL = """
import sys, time
from pathlib import Path
from med_duallora.support.workers import workers

def work(name):
    import os
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with workers(2) as pool:
        list(pool.map(work, "ab"))
"""


def threads(_: int) -> list[str | None]:
    return [os.environ.get(name) for name in ONE_THREAD]


def page_faults(n_times: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_times):
        arrays = [np.ones(1_000_000) for _ in range(4)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the variables are glibc's")
def test_the_memory_of_arrays_serves_the_next_ones() -> None:
    assert all(name not in os.environ for name in KEPT_MEMORY)
    with workers(1) as pool:
        pool.submit(page_faults, 1).result()
        assert pool.submit(page_faults, 20).result() < 20 * 4 * 8_000_000 / resource.getpagesize() / 10


def test_processes_use_one_thread_each_and_the_caller_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONE_THREAD[0], "7")
    monkeypatch.delenv(ONE_THREAD[1], raising=False)
    with workers(1) as pool:
        assert pool.submit(threads, 0).result() == ["1"] * len(ONE_THREAD)
    assert threads(0)[:2] == ["7", None]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is needed")
def test_processes_end_with_their_parent_even_where_it_was_killed(tmp_path: Path) -> None:
    script, at_work = tmp_path / "pool.py", tmp_path / "at_work"
    script.write_text(POOL)
    at_work.mkdir()
    parent = subprocess.Popen([sys.executable, script, at_work])
    try:
        until(lambda: len(list(at_work.iterdir())) == 2, "both processes are at work")
        children = [psutil.Process(int(path.name)) for path in at_work.iterdir()]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
        assert not alive
    finally:
        for process in [parent, *(psutil.Process(int(path.name)) for path in at_work.iterdir() if _runs(path))]:
            process.kill()
        parent.wait()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _runs(path: Path) -> bool:
    return psutil.pid_exists(int(path.name))
