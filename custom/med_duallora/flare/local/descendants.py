"""One child process and everything it starts: followed while it runs, and gone afterwards."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

POLL_S = 0.25
GRACE_S = 10.0


class ProcessFamily:
    """A started program with all its descendants, also those that moved to sessions of their own.

    Args:
        command: program and arguments.
        environment: added to this process's environment.
        log: file that takes the program's output.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as stream:
            self._root = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._members: dict[int, psutil.Process] = {}
        self._look()

    def wait(self, on_poll: Callable[[], None]) -> int:
        """Return the program's exit code; ``on_poll`` is called several times a second until then."""
        while self._root.poll() is None:
            self._look()
            on_poll()
            time.sleep(POLL_S)
        return self._root.returncode

    def stop(self) -> None:
        """End what is still there: ask, wait, then kill. Only processes of this family are touched."""
        self._look()
        # the program reaps its own children when it is interrupted, so it goes first
        if self._root.poll() is None:
            self._root.send_signal(signal.SIGINT)
        self._gone(GRACE_S)
        for process in self._alive():
            _quietly(process.terminate)
        self._gone(GRACE_S / 2)
        for process in self._alive():
            _quietly(process.kill)
        self._gone(GRACE_S)
        self._root.wait()

    def _look(self) -> None:
        try:
            root = psutil.Process(self._root.pid)
            for process in (root, *root.children(recursive=True)):
                self._members.setdefault(process.pid, process)
        except psutil.NoSuchProcess:
            return

    def _alive(self) -> list[psutil.Process]:
        # psutil compares creation times, so a reused process id is never taken for a member
        return [process for process in self._members.values() if _is_alive(process)]

    def _gone(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._root.poll()
            if not self._alive():
                return
            time.sleep(POLL_S)


@contextmanager
def family(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[ProcessFamily]:
    """Start a program, and leave nothing of it running however the block ends."""
    with _sigterm_interrupts():
        started = ProcessFamily(command, environment, log)
        try:
            yield started
        finally:
            started.stop()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C inside the block, so that it is cleaned up too; only the main thread gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _quietly(action: Callable[[], None]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
