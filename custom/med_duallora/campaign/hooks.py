"""Who else is told of an event: a command that reads it, and a web address; neither stops or delays a campaign."""

import contextlib
import http.client
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from med_duallora.errors import InputError

COMMAND_S = 30.0
WEB_S = 10.0
LAST_S = 60.0
"""How long a campaign that is over waits until its last events are told."""
MAX_WAITING = 1000
"""More events than so many are not kept for a program that is slower than they come."""


@dataclass(frozen=True)
class Hooks:
    """Where events go besides the terminal and the log.

    Args:
        command: a program with arguments, as a shell splits them; it gets the event as JSON on its standard input, and
            its kind in the environment variable ``MED_DUALLORA_EVENT``. No shell reads it. Empty: none.
        address: gets the same JSON by POST. Empty: none.

    Raises:
        InputError: the command cannot be split or names no program that is there, or the address is not one of http
            or https.
    """

    command: str = ""
    address: str = ""
    _running: list["subprocess.Popen[bytes]"] = field(default_factory=list, init=False, repr=False, compare=False)
    _starting: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _closed: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.command:
            _check_command(self.command)
        if self.address:
            _check_address(self.address)

    def tell(self, event: Mapping[str, Any]) -> list[str]:
        """Pass an event on; return what went wrong, one sentence each."""
        text = json.dumps(dict(event))
        failures = [self._run(text, str(event.get("event", ""))) if self.command else ""]
        failures.append(self._post(text) if self.address and not self._closed.is_set() else "")
        return [failure for failure in failures if failure]

    def _run(self, text: str, kind: str) -> str:
        words = shlex.split(self.command)
        where: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            with self._starting:  # so that none begins behind the back of ``close``
                if self._closed.is_set():
                    return ""
                # a session of its own: what it started in turn ends with it, and Ctrl-C is the campaign's alone
                program = subprocess.Popen(
                    words, env={**os.environ, "MED_DUALLORA_EVENT": kind}, start_new_session=True, **where
                )
                self._running.append(program)
        except OSError as error:
            return f"--on-event {words[0]}: {error.strerror or error}"
        try:
            program.communicate(text.encode(), COMMAND_S)
            if self._closed.is_set():  # it may be ``close`` that ended it
                return ""
        except subprocess.TimeoutExpired:
            _kill(program)
            program.communicate()
            return f"--on-event {words[0]} did not end in {COMMAND_S:.0f} s and was killed"
        finally:
            self._running.remove(program)
        return f"--on-event {words[0]} ended with exit code {program.returncode}" if program.returncode else ""

    def close(self) -> None:
        """Kill the program that is being told, with everything that it started, and start no other one."""
        with self._starting:
            self._closed.set()
            for program in tuple(self._running):
                _kill(program)

    def _post(self, text: str) -> str:
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address, text.encode(), kind, method="POST")  # noqa: S310, see above
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=WEB_S):
                return ""
        except (OSError, ValueError, http.client.HTTPException) as error:  # urllib's own errors are of the first kind
            return f"--webhook: {error!r}" if isinstance(error, http.client.HTTPException) else f"--webhook: {error}"


def _kill(program: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        os.killpg(program.pid, signal.SIGKILL)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address that sends its callers elsewhere is an error: they would ask there, and tell nothing."""

    def redirect_request(self, *_: object) -> None:
        return None


def _check_command(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--on-event {command!r}: {error}") from error
    if not words:
        raise InputError("--on-event names no program")
    if shutil.which(words[0]) is None:
        raise InputError(
            f"--on-event: {words[0]} is not a program that can be run; no shell reads the command, so write a path in "
            "full, and quote a path with blanks inside the command's own quotes"
        )


def _check_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # the port is not a number
        usable = False
    if not usable or not address.isascii() or any(sign.isspace() or not sign.isprintable() for sign in address):
        raise InputError(f"--webhook {address!r} is not an address that begins with http:// or https://")
    if parts.username is not None:
        raise InputError("--webhook holds a name or password, which are not sent; use an address with a token in it")


class Messenger:
    """Tells events one after the other, in a thread of its own, so that a program that hangs delays nothing.

    Args:
        hooks: that are told.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._events: queue.Queue[Mapping[str, Any]] = queue.Queue(MAX_WAITING)
        self._failures: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._told = threading.Condition()
        self._n_waiting = 0
        if hooks.command or hooks.address:
            threading.Thread(target=self._work, daemon=True).start()

    def tell(self, event: Mapping[str, Any]) -> None:
        """Pass an event on as soon as those before it are."""
        if not (self._hooks.command or self._hooks.address):
            return
        try:
            with self._told:
                self._events.put_nowait(dict(event))
                self._n_waiting += 1
        except queue.Full:
            self._failures.put(f"an event is not told: {MAX_WAITING} others wait")

    def failures(self) -> list[str]:
        """Return what went wrong since the last call."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._failures.get_nowait())
        return found

    def finish(self, seconds: float = LAST_S) -> list[str]:
        """Wait until everything is told, but no longer than so; return what went wrong since the last call.

        No program that was told runs afterwards.
        """
        with self._told:
            all_told = self._told.wait_for(lambda: self._n_waiting == 0, seconds)
            left = self._n_waiting
        self._hooks.close()
        return self.failures() + ([] if all_told else [f"{left} events are not told: the hooks are too slow"])

    def _work(self) -> None:
        while True:
            event = self._events.get()
            for failure in self._hooks.tell(event):
                self._failures.put(failure)
            with self._told:
                self._n_waiting -= 1
                self._told.notify_all()
