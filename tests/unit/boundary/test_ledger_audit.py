"""Auditing: every way to change a ledger is found and located, and a match says what only one side knows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_audit import match, read_lines, verify
from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, Entry, line_hash
from med_duallora.errors import LedgerError
from med_duallora.support.files import canonical_json


def write(path: Path, n: int = 6, site: str = "ge", job: str = "j1", verdict: str = ALLOWED) -> Ledger:
    ledger = Ledger(path)
    for index in range(n):
        digest = f"{index:064x}"
        ledger.append(Entry(job, site, "train", "tensors", verdict, "", index, {}, 24, digest))
    return ledger


Lines = list[bytes]


def edited(lines: Lines, where: int, rehash: bool, **changes) -> Lines:
    line = {**json.loads(lines[where]), **changes}
    if rehash:
        line["hash"] = line_hash(line)
    return [*lines[:where], canonical_json(line).encode() + b"\n", *lines[where + 1 :]]


TAMPERING: list[tuple[str, Callable[[Lines], Lines], int, str]] = [
    ("a value edited", lambda x: edited(x, 2, False, verdict="blocked"), 3, "was edited"),
    ("one byte edited", lambda x: [*x[:2], x[2].replace(b"train", b"trein"), *x[3:]], 3, "was edited"),
    ("a value edited and its hash made to fit", lambda x: edited(x, 2, True, n_bytes=1), 4, "does not follow"),
    ("an extra key smuggled in", lambda x: edited(x, 2, False, note="x"), 3, "was edited"),
    ("blanks added", lambda x: [*x[:2], x[2].replace(b",", b", ", 1), *x[3:]], 3, "in other characters"),
    (
        "a key written twice",
        lambda x: [*x[:2], x[2].replace(b"{", b'{"task":"x",', 1), *x[3:]],
        3,
        "in other characters",
    ),
    (
        "a letter written as its number",
        lambda x: [*x[:2], x[2].replace(b"train", rb"tr\u0061in"), *x[3:]],
        3,
        "in other",
    ),
    ("other line ends", lambda x: [*x[:2], x[2][:-1] + b"\r\n", *x[3:]], 3, "in other characters"),
    ("a number that is not one", lambda x: [*x[:2], x[2].replace(b":24,", b":NaN,"), *x[3:]], 3, "not a JSON object"),
    ("an infinite number", lambda x: [*x[:2], x[2].replace(b":24,", b":1e999,"), *x[3:]], 3, "not a JSON object"),
    ("a line without end", lambda x: [*x[:2], b"[" * 10**5 + b"\n", *x[3:]], 3, "not a JSON object"),
    ("a line removed", lambda x: x[:2] + x[3:], 3, "lines are missing before it"),
    ("three lines removed", lambda x: x[:1] + x[4:], 2, "lines are missing before it"),
    ("the first line removed", lambda x: x[1:], 1, "lines are missing before it"),
    ("two lines swapped", lambda x: [*x[:2], x[3], x[2], *x[4:]], 3, "lines are missing before it"),
    ("a line doubled", lambda x: [*x[:3], x[2], *x[3:]], 4, "out of order"),
    ("a line made unreadable", lambda x: [*x[:2], b"\x00\xff\n", *x[3:]], 3, "not a JSON object"),
    ("a line that is not an object", lambda x: [*x[:2], b"17\n", *x[3:]], 3, "not a JSON object"),
    ("the tail cut", lambda x: x[:-2], 4, "2 are gone"),
    ("everything cut", lambda x: x[:0], 0, "6 are gone"),
    ("a torn last line", lambda x: [*x[:-1], x[-1][:30]], 6, "not finished"),
    ("lines added that chain on", lambda x: [*x, chained(x)], 7, "not known to the head"),
    ("a line replaced by one of another ledger", lambda x: [*x[:-1], chained(x[:-1])], 6, "not the one that the head"),
]


def chained(lines: Lines) -> bytes:
    last = json.loads(lines[-1])
    line = {**last, "n": last["n"] + 1, "prev": last["hash"], "reason": "forged"}
    line["hash"] = line_hash(line)
    return canonical_json(line).encode() + b"\n"


@pytest.mark.parametrize(("trick", "change", "where", "what"), TAMPERING, ids=[row[0] for row in TAMPERING])
def test_tampering_is_found_and_located(tmp_path: Path, trick: str, change, where: int, what: str):
    ledger = write(tmp_path / "l.jsonl")
    ledger.path.write_bytes(b"".join(change(ledger.path.read_bytes().splitlines(keepends=True))))
    problems = verify(ledger.path).problems
    assert any(found.line == where and what in found.what for found in problems), (trick, problems)


def test_a_missing_head_is_said(tmp_path: Path):
    ledger = write(tmp_path / "l.jsonl")
    ledger.head_path.unlink()
    (problem,) = verify(ledger.path).problems
    assert "a cut tail cannot be excluded" in str(problem)


def test_a_damaged_head_is_a_problem_not_a_crash(tmp_path: Path):
    ledger = write(tmp_path / "l.jsonl")
    ledger.head_path.write_text("{")
    (problem,) = verify(ledger.path).problems
    assert "damaged" in str(problem)


def test_a_ledger_rewritten_as_a_whole_is_found_by_a_noted_hash(tmp_path: Path):
    noted = verify(write(tmp_path / "old.jsonl").path).sha256
    grown = write(tmp_path / "old.jsonl", 2)
    assert verify(grown.path, noted).problems == ()
    rewritten = write(tmp_path / "new.jsonl", 8)
    (problem,) = verify(rewritten.path, noted).problems
    assert "rewritten or replaced" in str(problem)


def test_one_gap_is_one_problem(tmp_path: Path):
    ledger = write(tmp_path / "l.jsonl")
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert [found.line for found in verify(ledger.path).problems] == [3, 5]  # the gap, and the end against the head


@pytest.mark.parametrize("action", [verify, read_lines])
def test_a_ledger_that_is_not_there_is_an_error(tmp_path: Path, action):
    with pytest.raises(LedgerError, match="No such file"):
        action(tmp_path / "none.jsonl")


def test_reading_refuses_what_is_no_ledger(tmp_path: Path):
    (tmp_path / "l.jsonl").write_text("hello\n")
    with pytest.raises(LedgerError, match="line 1 is not a JSON object"):
        read_lines(tmp_path / "l.jsonl")


def line(content: str, **changes) -> dict:
    values = {"job": "j1", "site": "ge", "task": "train", "kind": "tensors", "verdict": "allowed", "round_index": 0}
    return {**values, "sha256": content, **changes}


MATCHES = [
    ("equal", [line("a"), line("b")], [line("b"), line("a")], (2, 0, 0)),
    ("lost on the way", [line("a"), line("b")], [line("a")], (1, 1, 0)),
    ("arrived, but never left by the ledger", [line("a")], [line("a"), line("b")], (1, 0, 1)),
    ("changed on the way", [line("a")], [line("x")], (0, 1, 1)),
    ("the same content twice", [line("a"), line("a")], [line("a")], (1, 1, 0)),
    ("received twice", [line("a")], [line("a"), line("a")], (1, 0, 1)),
    ("another round", [line("a")], [line("a", round_index=1)], (0, 1, 1)),
    ("another task", [line("a")], [line("a", task="validate")], (0, 1, 1)),
    ("blocked does not count as left", [line("a", verdict=BLOCKED)], [], (0, 0, 0)),
    ("blocked, and yet it arrived", [line("a", verdict=BLOCKED)], [line("a")], (0, 0, 1)),
    ("another site's entry", [line("a")], [line("a"), line("b", site="canon")], (1, 0, 0)),
    ("an older job of the site", [line("a"), line("z", job="j0")], [line("a")], (1, 0, 0)),
    ("replies without data hold nothing to compare", [line("", kind="error")], [], (0, 0, 0)),
    ("what the server refused still arrived", [line("a")], [line("a", verdict=BLOCKED)], (1, 0, 0)),
]


@pytest.mark.parametrize(("case", "ledger", "record", "counts"), MATCHES, ids=[row[0] for row in MATCHES])
def test_match(case: str, ledger: list, record: list, counts: tuple):
    found = match(ledger, record, "ge", job="j1")
    assert (found.n_matched, len(found.only_site), len(found.only_server)) == counts
    assert found.agrees == (counts[1] == counts[2] == 0)


def test_match_takes_its_jobs_from_the_servers_record():
    found = match([line("a"), line("z", job="j0")], [line("a")], "ge")
    assert found.agrees and found.n_matched == 1


def test_an_empty_record_proves_nothing():
    with pytest.raises(LedgerError, match="nothing to compare"):
        match([line("a")], [], "ge")
