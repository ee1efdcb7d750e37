"""One line of a site's ledger: what is recorded of a payload, how it is hashed, and the end that it makes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

import numpy as np

from med_duallora.support.files import canonical_json, parsed_object

START = "0" * 64
"""Stands for the line before the first one."""
ALLOWED, BLOCKED, NOTED = "allowed", "blocked", "noted"
"""Verdicts: it left; it was kept back; a remark about the ledger itself."""
KINDS = ("tensors", "metrics", "error", "event", "statistics", "message", "ledger", "export")
MAX_TEXT = 300


@dataclass(frozen=True)
class Entry:
    """What is recorded of one payload.

    Args:
        job: FLARE's job id.
        site: name of the site.
        task: of the federation, or the name of the event.
        kind: ``tensors`` (a train reply), ``metrics`` (a validate reply), ``error`` (a reply without data), ``event``
            (one scalar of a fed event), ``statistics`` (numbers of an answer to show_stats), ``message`` (a message to
            the site that was refused), ``ledger`` (a remark about the ledger) or ``export`` (a file made of the site's
            own model at its terminal).
        verdict: ``allowed``, ``blocked`` or ``noted``.
        reason: why it was blocked, or the remark; never a value of the payload.
        round_index: the round, where there is one.
        tensors: ``[shape, dtype]`` by tensor name.
        n_bytes: bytes of the tensors alone, without framing.
        sha256: digest of the content, see ``content_digest``; empty for what was blocked before it could be read.
    """

    job: str
    site: str
    task: str
    kind: str
    verdict: str
    reason: str = ""
    round_index: int | None = None
    tensors: Mapping[str, Any] = field(default_factory=dict)
    n_bytes: int = 0
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind = {self.kind!r}, but it must be one of {', '.join(KINDS)}")
        if self.verdict not in (ALLOWED, BLOCKED, NOTED):
            raise ValueError(f"verdict = {self.verdict!r}, but it must be {ALLOWED}, {BLOCKED} or {NOTED}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; texts are cut at 300 characters."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["tensors"] = dict(self.tensors)
        return {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in values.items()}


def described(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return ``[shape, dtype]`` by name, as an entry holds it."""
    return {name: [list(value.shape), str(value.dtype)] for name, value in tensors.items()}


def line_hash(line: Mapping[str, Any]) -> str:
    """Return the hash of a ledger line: of everything in it but the hash itself."""
    content = {name: value for name, value in line.items() if name != "hash"}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


@dataclass(frozen=True)
class Head:
    """The end of a ledger as its head file knows it.

    Args:
        n_lines: number of complete lines.
        n_bytes: size of the file up to there.
        sha256: hash of the last line; zeros for an empty ledger.
    """

    n_lines: int = 0
    n_bytes: int = 0
    sha256: str = START


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of a ledger; None where it is not one."""
    try:
        return parsed_object(line)
    except ValueError:
        return None


def follows(line: Mapping[str, Any], head: Head) -> bool:
    """Return whether a line is whole and the next one after an end."""
    found = (line.get("n"), line.get("prev"), line.get("hash"))
    return found == (head.n_lines, head.sha256, line_hash(line))


def utc_now() -> str:
    """Return the present time in UTC as ISO 8601 with milliseconds and a final Z."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
