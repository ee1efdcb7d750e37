"""What an auditor does with a ledger: verify its chain, and match it with the server's record of what arrived."""

import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.boundary.ledger_entry import ALLOWED, START, line_hash
from med_duallora.boundary.ledger_marker import check_marker, read_head
from med_duallora.errors import InputError, LedgerError
from med_duallora.support.files import canonical_json, parsed_object
from med_duallora.support.private import OTHERS_WRITE, open_own

Line = Mapping[str, Any]
COMPARED = ("tensors", "metrics", "event")
"""Kinds of entries that hold content and are therefore recorded on both sides."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a ledger.

    Args:
        line: number of the line in the file, from 1; 0 for the ledger as a whole.
        what: what is wrong there.
    """

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}" if self.line else self.what


@dataclass(frozen=True)
class Verification:
    """What a check of the chain found.

    Args:
        n_lines: complete lines that could be read.
        sha256: hash of the last line; note it down, and a later check can show that nothing before it was rewritten.
        problems: empty where the ledger is intact.
    """

    n_lines: int
    sha256: str
    problems: tuple[Problem, ...]


def read_lines(path: Path) -> list[Line]:
    """Return the entries of a ledger without checking its chain.

    Raises:
        LedgerError: there is no such file, or a line is not a JSON object.
    """
    found = []
    for number, text in _texts(path):
        line = _parsed(text)
        if line is None:
            raise LedgerError(f"ledger {path}: line {number} is not a JSON object; see ledger verify")
        found.append(line)
    return found


def verify(path: Path, noted: str = "", marker: Path | None = None) -> Verification:
    """Check every line of a ledger, its order and its end.

    Args:
        path: of the ledger.
        noted: hash of a line that was noted down earlier; it must still be there.
        marker: the site's marker of this ledger; None: there is nothing to compare with.

    Raises:
        LedgerError: there is no such file.
    """
    problems: list[Problem] = []
    previous, expected, seen = START, 0, set()
    for number, text in _texts(path):
        line = _parsed(text)
        if line is None:
            problems.append(Problem(number, "is damaged or was not finished (not a JSON object)"))
            previous, expected = "", expected + 1
            continue
        problems.extend(Problem(number, what) for what in _faults(line, expected, previous))
        if text != canonical_json(line).encode() + b"\n":
            problems.append(Problem(number, "was edited: this program writes the same content in other characters"))
        previous, expected = str(line.get("hash")), _next_number(line, expected)
        seen.add(previous)
    if noted and noted not in seen:
        problems.append(Problem(0, f"the noted line {noted} is not there: the ledger was rewritten or replaced"))
    n_lines = sum(1 for _ in _texts(path))
    problems.extend(_end_faults(path, n_lines, previous if n_lines else START))
    if marker:
        problems.extend(_marker_faults(path, marker))
    return Verification(n_lines, previous, tuple(problems))


def written_by_others(path: Path) -> str:
    """Return in a sentence that other accounts of this machine can write a ledger; empty where they cannot."""
    mode = stat.S_IMODE(path.lstat().st_mode)
    return f"other accounts can write it (mode {mode:o}): chmod 600 {path}" if mode & OTHERS_WRITE else ""


def _marker_faults(path: Path, marker: Path) -> Iterator[Problem]:
    try:
        check_marker(path, marker)
    except LedgerError as error:
        yield Problem(0, str(error))
    except OSError as error:
        yield Problem(0, f"its marker {marker} cannot be read: {error.strerror or error}")


def _faults(line: Line, expected: int, previous: str) -> Iterator[str]:
    number = line.get("n")
    if number != expected:
        how = "lines are missing before it" if isinstance(number, int) and number > expected else "it is out of order"
        yield f"has number {number}, expected {expected}: {how}"
    if line.get("hash") != line_hash(line):
        yield "was edited: its content does not give its hash"
    if number == expected and previous and line.get("prev") != previous:
        yield "does not follow from the line before it: that line or this one was replaced"


def _next_number(line: Line, expected: int) -> int:
    """Go on from the number that stands there, so that one gap is reported once."""
    number = line.get("n")
    return number + 1 if isinstance(number, int) and number >= expected else expected + 1


def _end_faults(path: Path, n_lines: int, last: str) -> Iterator[Problem]:
    try:
        head = read_head(path.with_name(path.name + ".head"))
    except LedgerError as error:
        yield Problem(0, str(error))
        return
    if head is None:
        yield Problem(0, f"its head file {path.name}.head is missing: a cut tail cannot be excluded")
    elif n_lines < head.n_lines:
        yield Problem(n_lines, f"is the last one, but {head.n_lines} were written: {head.n_lines - n_lines} are gone")
    elif n_lines > head.n_lines:
        yield Problem(head.n_lines + 1, "and what follows is not known to the head file")
    elif last != head.sha256:
        yield Problem(n_lines, "is not the one that the head file names")


@dataclass(frozen=True)
class Match:
    """How a site's ledger and the server's record agree.

    Args:
        n_matched: entries with equal content on both sides.
        only_site: entries that left the site, but that the server did not record.
        only_server: entries that the server recorded, but that never left by the ledger. This must not happen.
    """

    n_matched: int
    only_site: tuple[Line, ...]
    only_server: tuple[Line, ...]

    @property
    def agrees(self) -> bool:
        """Return whether the two hold the same."""
        return not self.only_site and not self.only_server


def match(ledger: Sequence[Line], record: Sequence[Line], site: str, job: str = "") -> Match:
    """Compare what left a site with what the server recorded of it, by job, task, round and content.

    Args:
        ledger: the site's ledger.
        record: the server's record.
        site: whose entries of the record are compared.
        job: only this job; empty: every job that the server's record names.

    Raises:
        InputError: neither the ledger nor the server's record names this site.
        LedgerError: the server's record holds no job to compare.
    """
    jobs = {job} if job else {str(line.get("job")) for line in record}
    if not jobs:
        raise LedgerError("the server's record is empty: there is nothing to compare")
    # A site of which nothing arrived is only in its own ledger: that is what the comparison has to tell.
    known = sorted({str(line["site"]) for line in (*ledger, *record) if "site" in line})
    if known and site not in known:
        raise InputError(f"unknown site {site!r}: the ledger and the server's record name {', '.join(known)}")
    left = [line for line in ledger if line.get("verdict") == ALLOWED and _compared(line, jobs)]
    arrived = [line for line in record if line.get("site") == site and _compared(line, jobs)]
    at_site, at_server = Counter(map(_key, left)), Counter(map(_key, arrived))
    return Match((at_site & at_server).total(), _rest(left, at_site - at_server), _rest(arrived, at_server - at_site))


def _compared(line: Line, jobs: set[str]) -> bool:
    return line.get("kind") in COMPARED and str(line.get("job")) in jobs


def _key(line: Line) -> tuple[Any, ...]:
    return tuple(line.get(name) for name in ("job", "task", "kind", "round_index", "sha256"))


def _rest(lines: Sequence[Line], wanted: Counter[tuple[Any, ...]]) -> tuple[Line, ...]:
    found, left = [], Counter(wanted)
    for line in lines:
        if left[_key(line)] > 0:
            left[_key(line)] -= 1
            found.append(line)
    return tuple(found)


@dataclass(frozen=True)
class Answered:
    """How much a ledger says was answered.

    Args:
        evaluations: answers to validate tasks, each content once per job.
        rounds: rounds of all jobs whose adapter left.
    """

    evaluations: int
    rounds: int


def answered(path: Path) -> Answered:
    """Count what left by a ledger; there may be none yet, and a line that cannot be read is not counted.

    Raises:
        LedgerError: it is there and cannot be read.
    """
    if not path.exists():
        return Answered(0, 0)
    lines = [line for _, text in _texts(path) if (line := _parsed(text)) and line.get("verdict") == ALLOWED]
    left = {
        (line.get("kind"), str(line.get("job")), str(line.get("round_index")), str(line.get("sha256")))
        for line in lines
    }
    evaluations = {item for item in left if item[0] == "metrics"}
    return Answered(len(evaluations), len({item[1:3] for item in left if item[0] == "tensors"}))


def _texts(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open_own(path) as stream:
            yield from enumerate(stream, start=1)
    except OSError as error:
        raise LedgerError(f"ledger {path}: {error.strerror or error}") from error


def _parsed(text: bytes) -> Line | None:
    """Return a line that this program could have written, up to its spelling; None for anything else."""
    try:
        value = parsed_object(text)
        canonical_json(value)  # no line of ours holds infinities or NaN
    except (ValueError, RecursionError):
        return None
    return value if text.endswith(b"\n") else None
