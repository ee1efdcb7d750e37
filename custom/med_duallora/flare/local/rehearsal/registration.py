"""When a federation is up: its processes run, its server answers, and its sites are registered there."""

import contextlib
import time
from collections.abc import Iterator

from med_duallora.errors import FederationError
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.admin import Console, console
from med_duallora.flare.local.rehearsal.record import Federation

LOGIN_S = 5.0
POLL_S = 0.5
LOG_TAIL = 5
START_PRECISION_S = 1.0
"""Of the moment when a process started: the kernel tells when the machine was booted in whole seconds."""


def wait_for_sites(federation: Federation, timeout_s: float) -> None:
    """Wait until the server answers and all sites are registered with it.

    Raises:
        FederationError: a process ended, or it took too long; names the log and its last lines.
    """
    deadline = time.monotonic() + timeout_s
    with _answering(federation, deadline) as server:
        while missing := set(federation.sites) - registered_sites(federation, server):
            _check_alive(federation)
            if time.monotonic() > deadline:
                name = min(missing)
                raise FederationError(
                    f"{', '.join(sorted(missing))} not registered within {timeout_s:.0f} s; {_tail(federation, name)}"
                )
            time.sleep(POLL_S)


def registered_sites(federation: Federation, person: Console) -> set[str]:
    """Return the sites whose present process is registered with the server.

    The server lists a site that was killed until its heartbeat has been missing for ten minutes, so being listed is
    not enough: the server must have heard from the site since this process started. Both have the same clock here.
    """
    started = {
        process.name: process.started
        for process in federation.processes
        if processes.is_running(process, federation.identity)
    }
    heard = person.last_contacts()
    return {site for site in started.keys() & heard.keys() if heard[site] > started[site] + START_PRECISION_S}


@contextlib.contextmanager
def _answering(federation: Federation, deadline: float) -> Iterator[Console]:
    """Log in as soon as the server answers."""
    with contextlib.ExitStack() as stack:
        while True:
            _check_alive(federation)
            try:
                person = stack.enter_context(console(federation, "lead", LOGIN_S))
                break
            except FederationError as error:
                if time.monotonic() > deadline:
                    raise FederationError(f"{error}; {_tail(federation, federation.server)}") from error
                time.sleep(POLL_S)
        yield person


def _check_alive(federation: Federation) -> None:
    for process in federation.processes:
        if not processes.is_running(process, federation.identity):
            raise FederationError(f"{process.name} (process {process.pid}) ended; {_tail(federation, process.name)}")


def _tail(federation: Federation, name: str) -> str:
    """Return where a log is, and its last lines."""
    log = federation.log(name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return f"its log {log} ends with:\n  " + "\n  ".join(lines[-LOG_TAIL:] or ["(nothing)"])
