"""Who else is told of an event: a command that reads it, and a web address; neither can stop a campaign."""

import json
import os
import shlex
import subprocess
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from med_duallora.errors import InputError

COMMAND_S = 30.0
WEB_S = 10.0


@dataclass(frozen=True)
class Hooks:
    """Where events go besides the terminal and the log.

    Args:
        command: a program with arguments, as a shell splits them; it gets the event as JSON on its standard input, and
            its kind in the environment variable ``MED_DUALLORA_EVENT``. Empty: none.
        address: gets the same JSON by POST. Empty: none.

    Raises:
        InputError: the command cannot be split, or the address is not one of http or https.
    """

    command: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise InputError(f"--on-event {self.command!r}: {error}") from error
        if self.command and not words:
            raise InputError("--on-event names no program")
        parts = urlsplit(self.address)
        if self.address and (parts.scheme not in ("http", "https") or not parts.netloc):
            raise InputError(f"--webhook {self.address!r} is not an address that begins with http:// or https://")

    def tell(self, event: Mapping[str, Any]) -> list[str]:
        """Pass an event on; return what went wrong, one sentence each."""
        text = json.dumps(dict(event))
        failures = [self._run(text, str(event.get("event", ""))) if self.command else ""]
        failures.append(self._post(text) if self.address else "")
        return [failure for failure in failures if failure]

    def _run(self, text: str, kind: str) -> str:
        words = shlex.split(self.command)
        try:
            ended = subprocess.run(
                words,
                input=text.encode(),
                env={**os.environ, "MED_DUALLORA_EVENT": kind},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"--on-event {words[0]}: {error}"
        return f"--on-event {words[0]} ended with exit code {ended.returncode}" if ended.returncode else ""

    def _post(self, text: str) -> str:
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address, text.encode(), kind, method="POST")  # noqa: S310, see above
        try:
            with urllib.request.urlopen(request, timeout=WEB_S):  # noqa: S310, see above
                return ""
        except (OSError, ValueError) as error:  # urllib's own errors are of the first kind
            return f"--webhook: {error}"
