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

import logging
import os
from pathlib import Path

from med_duallora.boundary.ledger_entry import NOTED, Entry, Head, follows, line_hash, parsed_line, utc_now
from med_duallora.boundary.ledger_marker import CUT, check_marker, marker_of, read_head
from med_duallora.errors import LedgerError
from med_duallora.settings.config import SiteConfig
from med_duallora.support.files import atomic_path, canonical_json, write_json
from med_duallora.support.folders import unused
from med_duallora.support.locks import locked
from med_duallora.support.private import append_own, claim, open_own, own_size, private_folder

logger = logging.getLogger(__name__)


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
        if newline and not torn and (found := parsed_line(complete)) and follows(found, head):
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


def site_ledger(config: SiteConfig) -> Ledger:
    """Return the ledger that a site's configuration names, with its marker."""
    return Ledger(config.ledger_path, marker_of(config.ledger_path, config.state_dir))
