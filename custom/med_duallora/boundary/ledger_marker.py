"""Where a ledger ends: its head file, and the marker by which a site finds out that it was replaced or cut."""

import os
from pathlib import Path

from med_duallora.boundary.ledger_entry import Head, follows, line_hash, parsed_line
from med_duallora.errors import LedgerError
from med_duallora.support.files import read_object
from med_duallora.support.private import open_own, own_size, refuse_link

CUT = "the ledger was replaced or cut"
MAX_LINE = 1 << 20
"""Bytes in which the last line is looked for; one line of the widest contract is far shorter."""


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
    last = parsed_line(before.rstrip(b"\n").rpartition(b"\n")[2])
    if not last or (last.get("n"), last.get("hash"), line_hash(last)) != (
        remembered.n_lines - 1,
        remembered.sha256,
        remembered.sha256,
    ):
        return f"line {remembered.n_lines} is not the one that was written"
    for text in after.split(b"\n")[:-1]:  # what follows the last line break was torn by a crash
        line = parsed_line(text)
        if not line or not follows(line, remembered):
            return f"line {remembered.n_lines + 1} does not follow from the one that was written before it"
        remembered = Head(remembered.n_lines + 1, remembered.n_bytes + len(text) + 1, str(line["hash"]))
    return ""
