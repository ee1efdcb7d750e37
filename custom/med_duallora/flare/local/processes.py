"""Processes of a federation: started, recognised beyond doubt, and gone when they are stopped.

Job processes run in sessions of their own, and outlive a killed parent. So every process of a federation, simulated or
rehearsed, carries its random identity in its environment, which its children inherit: nothing else is touched.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from med_duallora.errors import FederationError
from med_duallora.flare.local.interruptions import not_interrupted, signals_interrupt
from med_duallora.flare.local.rehearsal.record import StartedProcess
from med_duallora.settings.config import SITE_CONFIG_VARIABLE

MARK = "MED_DUALLORA_FEDERATION"
"""Environment variable that holds the identity of the federation a process belongs to."""
EXEC_S = 0.5
"""More than a process takes to replace its program by another, on a busy machine."""
START_TOLERANCE_S = 2.0
"""The kernel counts from boot in ticks, so the same process's start may be read with a small difference."""


def new_identity() -> str:
    """Return a text that no other federation has."""
    return secrets.token_hex(16)


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Find out before FLARE starts whether a port is taken: gRPC would share it with another server without a word.

    Raises:
        FederationError: somebody listens there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # connections of a server that has just ended wait for a minute; only a listener is in the way
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise FederationError(
                f"port {port} is in use ({error.strerror}); stop the program that listens there, or choose another "
                "port with --port in a new directory (the kits hold the port)"
            ) from error


def start(kit: Path, log: Path, identity: str) -> StartedProcess:
    """Start the server or client of a kit with the kit's own script, in a session of its own.

    Args:
        kit: startup kit of the server or of a site.
        log: takes what the process prints; it is extended.
        identity: of the federation.

    Raises:
        FederationError: the kit has no start script, or the process ended at once.
    """
    script = kit / "startup" / "sub_start.sh"
    if not script.is_file():
        raise FederationError(f"{kit} is not a startup kit of a server or site: {script} is missing")
    # this Python first, and a site's configuration from its kit only
    values = {name: value for name, value in os.environ.items() if name != SITE_CONFIG_VARIABLE}
    values["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), values.get("PATH", "")])
    # --once: the script becomes the FLARE process itself, instead of a watchdog that would start it again
    command = ["bash", str(script), "--once"]
    process = _launched(command, {**values, MARK: identity, "NVFLARE_SECURE_LOGGING": "1"}, log, kit)
    try:
        return StartedProcess(kit.name, process.pid, psutil.Process(process.pid).create_time())
    except psutil.NoSuchProcess:
        raise FederationError(f"{kit.name} ended at once; see {log}") from None


@contextlib.contextmanager
def supervised(command: Sequence[str], settings: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program inside the block; nothing that it started is left afterwards, however the block ends.

    Args:
        command: program and arguments.
        settings: environment variables besides this process's own.
        log: takes what the program prints; an older one goes.
    """
    identity = new_identity()
    log.unlink(missing_ok=True)
    with signals_interrupt():
        try:
            yield _launched(command, {**os.environ, **settings, MARK: identity}, log)
        finally:
            with not_interrupted():
                stop(identity)


def _launched(
    command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # no zombie while this program runs
    return process


def is_running(process: StartedProcess, identity: str) -> bool:
    """Return whether this very process runs; another one that got the same process id does not count."""
    deadline = time.monotonic() + EXEC_S
    try:
        found = psutil.Process(process.pid)
        while abs(found.create_time() - process.started) < START_TOLERANCE_S:
            if found.status() == psutil.STATUS_ZOMBIE:
                return False
            if _identity(found) == identity:
                return True
            if time.monotonic() > deadline:
                return False
            # at the moment when a process replaces its program its environment is empty, incomplete or not readable
            time.sleep(0.01)
    except psutil.NoSuchProcess:
        pass
    return False


def members(identity: str) -> list[psutil.Process]:
    """Return every running process of a federation, job processes and orphans included."""
    me = os.getpid()
    return [found for found in psutil.process_iter() if found.pid != me and _identity(found) == identity]


def stop(identity: str, grace_s: float = 10.0) -> list[int]:
    """End every process of a federation: ask, wait, then kill, until none is found.

    Returns:
        The process ids that were ended.

    Raises:
        FederationError: one is still there after it was killed.
    """
    ended: set[int] = set()
    for attempt in range(5):
        found = members(identity)
        if not found:
            return sorted(ended)
        ended.update(process.pid for process in found)
        _ask(found, psutil.Process.terminate if attempt == 0 else psutil.Process.kill)
        _, alive = psutil.wait_procs(found, timeout=grace_s)
        _ask(alive, psutil.Process.kill)
        psutil.wait_procs(alive, timeout=grace_s)
    left = ", ".join(str(process.pid) for process in members(identity))
    if left:
        raise FederationError(f"processes {left} did not end although they were killed")
    return sorted(ended)


def wait_until(what: str, done: Callable[[], bool], timeout_s: float, interval_s: float = 0.25) -> None:
    """Ask ``done`` again and again until it says yes.

    Raises:
        FederationError: it did not within ``timeout_s``; names ``what``.
    """
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise FederationError(f"{what} took longer than {timeout_s:.0f} s")
        time.sleep(interval_s)


def _identity(process: psutil.Process) -> str | None:
    try:
        values = process.environ()
        deadline = time.monotonic() + EXEC_S
        while not values and process.exe() and time.monotonic() < deadline:  # see is_running; kernel threads have none
            time.sleep(0.01)
            values = process.environ()
    except (psutil.Error, OSError):  # ended meanwhile, or somebody else's
        return None
    value: str | None = values.get(MARK)
    return value


def _ask(processes: list[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            action(process)
