"""The ledger of a site: one line for everything that left, or was kept from leaving.

A ledger is a JSONL file that only grows. Every line holds the hash of the line before it, and a small head file beside
it (``<ledger>.head``) holds the number of lines, the size and the hash of the last one. So an edit, a removal or a
reorder breaks the chain at a known line, and a cut tail disagrees with the head. Who can rewrite both files from some
line on can only be found by comparing with a noted hash (``ledger verify --noted``) or with the server's record of what
it received (``ledger match``); see docs/privacy.md.

A site also keeps a *marker* in its state directory: the same three facts, written after every line. A ledger that was
deleted, cut, replaced or rolled back together with its head contradicts the marker; then nothing is appended any more,
and nothing leaves. After a crash the ledger may be ahead of the marker, by lines that follow from the marked one.

Appending is safe for several processes (an advisory lock) and against a crash: a torn last line is set aside and said.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.errors import LedgerError
from med_duallora.settings.config import SiteConfig
from med_duallora.support.files import atomic_path, canonical_json, parsed_object, read_object, unused, write_json
from med_duallora.support.locks import locked
from med_duallora.support.private import append_own, claim, open_own, own_size, private_folder, refuse_link

logger = logging.getLogger(__name__)

START = "0" * 64
"""Stands for the line before the first one."""
ALLOWED, BLOCKED, NOTED = "allowed", "blocked", "noted"
"""Verdicts: it left; it was kept back; a remark about the ledger itself."""
KINDS = ("tensors", "metrics", "error", "event", "statistics", "message", "ledger", "export")
CUT = "the ledger was replaced or cut"
MAX_TEXT = 300
MAX_LINE = 1 << 20
"""Bytes in which the last line is looked for; one line of the widest contract is far shorter."""


@dataclass(frozen=True)
class Entry:
    """What is recorded of one payload.

    Args:
        job: FLARE's job id.
        site: name of the site.
        task: of the federation, or the name of the event.
        kind: ``tensors`` (a train reply), ``metrics`` (a validate reply), ``error`` (a reply without data), ``event``
            (one scalar of a fed event), ``statistics`` (numbers of an answer to show_stats), ``message`` (a message to
            the site that was refused), ``ledger`` (a remark about the ledger) or ``export`` (a file of its own model).
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


class Ledger:
    """One ledger file, opened for appending; several processes may append to the same one.

    Args:
        path: of the JSONL file; it and its head and lock file are created, mode 0600, with the first entry.
        marker: file that remembers the end elsewhere, written after every line; None: nothing does.
    """

    def __init__(self, path: Path, marker: Path | None = None) -> None:
        self.path = path
        self.marker = marker
        self.head_path = path.with_name(path.name + ".head")
        self._lock_path = path.with_name(path.name + ".lock")

    def append(self, entry: Entry) -> str:
        """Write one line, make it durable and return its hash.

        A torn last line, and a head that a crash left one line behind, are repaired and noted in a line of their own.

        Raises:
            LedgerError: the ledger cannot be written, or its end is not the one that was written last.
        """
        try:
            private_folder(self.path.parent)
            with locked(self._lock_path):
                head = self._closed(self._recovered_head(entry), entry)
                return self._write(head, entry).sha256
        except OSError as error:
            raise LedgerError(f"ledger {self.path} cannot be written: {error.strerror or error}") from error

    def check(self) -> None:
        """Compare the ledger with its marker, without writing.

        Raises:
            LedgerError: it was replaced or cut, or cannot be read.
        """
        if self.marker is None or not any(map(os.path.lexists, (self.marker, self.path, self.head_path))):
            return
        try:
            with locked(self._lock_path):
                check_marker(self.path, self.marker)
        except OSError as error:
            raise LedgerError(f"{CUT}: {self.path} cannot be read: {error.strerror or error}") from error

    def _write(self, head: Head, entry: Entry) -> Head:
        line = {"n": head.n_lines, "time": utc_now(), **entry.to_dict(), "prev": head.sha256}
        line["hash"] = line_hash(line)
        data = canonical_json(line).encode() + b"\n"
        append_own(self.path, data)
        written = Head(head.n_lines + 1, head.n_bytes + len(data), str(line["hash"]))
        write_json(self.head_path, vars(written), mode=0o600)
        if self.marker:
            write_json(self.marker, vars(written), mode=0o600)
        return written

    def _recovered_head(self, entry: Entry) -> Head:
        """Return the end to write at; repairs what a crash may leave, and refuses everything else."""
        if self.marker:
            check_marker(self.path, self.marker)
        head = read_head(self.head_path) or Head()
        n_bytes = own_size(self.path)
        if n_bytes == head.n_bytes:
            return head
        if n_bytes < head.n_bytes:
            raise LedgerError(
                f"ledger {self.path} has {n_bytes} bytes, but {head.n_bytes} were written: lines were removed from its "
                "end. Keep both files for the audit, move them aside, and a new ledger begins"
            )
        return self._repaired(head, entry)

    def _repaired(self, head: Head, entry: Entry) -> Head:
        with open_own(self.path) as stream:
            stream.seek(head.n_bytes)
            tail = stream.read()
        complete, newline, torn = tail.partition(b"\n")
        if newline and not torn and (found := _parsed(complete)) and _follows(found, head):
            behind = Head(head.n_lines + 1, head.n_bytes + len(tail), str(found["hash"]))
            return self._noted(behind, entry, "the head file was one line behind after a crash; the line is whole")
        if newline:
            raise LedgerError(
                f"ledger {self.path} holds lines after line {head.n_lines} that were not written by this program. "
                "Keep it for the audit, move it and its head file aside, and a new ledger begins"
            )
        aside = unused(self.path, "torn")
        with atomic_path(aside, 0o600) as partial:
            partial.write_bytes(tail)
        os.truncate(self.path, head.n_bytes)
        return self._noted(head, entry, f"a torn line of {len(tail)} bytes was set aside as {aside.name} after a crash")

    def _closed(self, head: Head, entry: Entry) -> Head:
        """Take the right to write the ledger from other accounts, and say so in it."""
        mode = claim(self.path)
        if not mode:
            return head
        return self._noted(head, entry, f"other accounts could write the ledger (mode {mode:o}); its mode is 600 now")

    def _noted(self, head: Head, entry: Entry, remark: str) -> Head:
        logger.warning("the egress ledger was repaired: %s", remark)
        return self._write(head, Entry(entry.job, entry.site, entry.task, "ledger", NOTED, remark))


def read_head(path: Path) -> Head | None:
    """Return the content of a head file; None where there is none (LedgerError where it is damaged)."""
    try:
        values = read_object(path, open_own)
        head = Head(values["n_lines"], values["n_bytes"], values["sha256"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerError(f"the ledger's head file {path} is damaged") from error
    if type(head.n_lines) is not int or type(head.n_bytes) is not int or type(head.sha256) is not str:
        raise LedgerError(f"the ledger's head file {path} is damaged")
    return head


def marker_of(ledger: Path, state_dir: Path) -> Path:
    """Return the file in a site's state directory that remembers where its ledger ends."""
    return state_dir / f"{ledger.name}.marker"


def site_ledger(config: SiteConfig) -> Ledger:
    """Return the ledger that a site's configuration names, with its marker."""
    return Ledger(config.ledger_path, marker_of(config.ledger_path, config.state_dir))


def check_marker(path: Path, marker: Path) -> None:
    """Compare the end of a ledger with what its marker remembers.

    Raises:
        LedgerError: the ledger is missing, shorter, another one, or there is a ledger, but no marker.
        OSError: a file cannot be read, or is a link.
    """
    refuse_link(path)
    remembered = read_head(marker)
    exists = any(map(os.path.lexists, (path, path.with_name(path.name + ".head"))))
    if remembered is None and not exists:
        return
    found = "there is no marker of it in the state directory" if remembered is None else _difference(path, remembered)
    if found:
        raise LedgerError(
            f"{CUT}: {found}. Nothing leaves this site. Keep {path}, its head file and {marker} for the audit; once "
            "all three are moved aside, a new ledger begins"
        )


def _difference(path: Path, remembered: Head) -> str:
    """Return how a ledger differs from the one that is remembered; empty: it is that one, or that one continued."""
    head = read_head(path.with_name(path.name + ".head")) or Head()
    n_bytes = own_size(path)
    if min(n_bytes, head.n_bytes) < remembered.n_bytes or head.n_lines < remembered.n_lines:
        n_lines = head.n_lines if n_bytes else 0
        return f"{remembered.n_lines} lines were written, but {n_lines} are there"
    with open_own(path) as stream:
        stream.seek(max(0, remembered.n_bytes - MAX_LINE))
        before = stream.read(min(remembered.n_bytes, MAX_LINE))
        after = stream.read()
    last = _parsed(before.rstrip(b"\n").rpartition(b"\n")[2])
    if not last or (last.get("n"), last.get("hash"), line_hash(last)) != (
        remembered.n_lines - 1,
        remembered.sha256,
        remembered.sha256,
    ):
        return f"line {remembered.n_lines} is not the one that was written"
    for text in after.split(b"\n")[:-1]:  # what follows the last line break was torn by a crash
        line = _parsed(text)
        if not line or not _follows(line, remembered):
            return f"line {remembered.n_lines + 1} does not follow from the one that was written before it"
        remembered = Head(remembered.n_lines + 1, remembered.n_bytes + len(text) + 1, str(line["hash"]))
    return ""


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        return parsed_object(line)
    except ValueError:
        return None


def _follows(line: Mapping[str, Any], head: Head) -> bool:
    found = (line.get("n"), line.get("prev"), line.get("hash"))
    return found == (head.n_lines, head.sha256, line_hash(line))


def utc_now() -> str:
    """Return the present time in UTC as ISO 8601 with milliseconds and a final Z."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
