"""The ledger: what is appended can be verified, survives a crash and is not silently repaired after tampering."""

import json
import multiprocessing
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_audit import read_lines, verify
from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, Entry, described
from med_duallora.errors import LedgerError
from med_duallora.support.digest import content_digest
from med_duallora.support.locks import locked

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((1, 2), np.float32)}


def entry(round_index: int = 0, verdict: str = ALLOWED, **changes) -> Entry:
    values = {"job": "j1", "site": "ge", "task": "train", "kind": "tensors", "round_index": round_index}
    return Entry(**{**values, "verdict": verdict, "sha256": f"{round_index:064x}", **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "audit" / "egress_ledger.jsonl")
    for index in range(4):
        found.append(entry(index))
    return found


def test_an_entry_is_one_line_with_everything_an_auditor_asks_for(ledger: Ledger):
    ledger.append(entry(4, BLOCKED, reason="a tensor outside the contract", tensors=described(TENSORS), n_bytes=32))
    line = read_lines(ledger.path)[-1]
    assert line["n"] == 4 and line["job"] == "j1" and line["site"] == "ge" and line["task"] == "train"
    assert line["verdict"] == "blocked" and line["reason"] == "a tensor outside the contract"
    assert line["tensors"] == {"a": [[2, 3], "float32"], "b": [[1, 2], "float32"]} and line["n_bytes"] == 32
    assert line["time"].endswith("Z") and len(line["hash"]) == len(line["prev"]) == 64


def test_every_file_is_the_sites_alone(ledger: Ledger):
    for path in ledger.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


def test_an_untouched_ledger_is_intact(ledger: Ledger):
    found = verify(ledger.path)
    assert found.n_lines == 4 and found.problems == ()
    assert found.sha256 == read_lines(ledger.path)[-1]["hash"]


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (1, "a crash after one byte"),
        (40, "a crash in the middle of the line"),
        (-1, "a crash before the line's end"),
    ],
)
def test_a_torn_last_line_is_set_aside_and_said(ledger: Ledger, keep: int, reason: str, caplog):
    line = ledger.path.read_bytes().splitlines(keepends=True)[-1]
    with ledger.path.open("ab") as stream:
        stream.write(line[:keep])
    ledger.append(entry(4))
    lines = read_lines(ledger.path)
    assert [found["kind"] for found in lines[4:]] == ["ledger", "tensors"]
    assert "torn line" in lines[4]["reason"] and "torn line" in caplog.text
    assert verify(ledger.path).problems == ()
    assert (ledger.path.parent / "egress_ledger.jsonl.torn-0").read_bytes() == line[:keep]


def test_a_crash_between_the_line_and_the_head_is_recovered_and_said(ledger: Ledger, caplog):
    head = ledger.head_path.read_bytes()
    ledger.append(entry(4))
    ledger.head_path.write_bytes(head)
    ledger.append(entry(5))
    lines = read_lines(ledger.path)
    assert [found["kind"] for found in lines[4:]] == ["tensors", "ledger", "tensors"]
    assert "one line behind" in lines[5]["reason"] and "one line behind" in caplog.text
    assert verify(ledger.path).problems == ()


def test_a_crash_after_the_very_first_line_is_recovered(tmp_path: Path):
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.append(entry())
    ledger.head_path.unlink()
    ledger.append(entry(1))
    assert verify(ledger.path).problems == () and len(read_lines(ledger.path)) == 3


def _cut_last(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _forge(lines: list[bytes]) -> list[bytes]:
    return [*lines, lines[-1]]


def _two_more(lines: list[bytes]) -> list[bytes]:
    return [*lines, b'{"n": 4}\n', b'{"n": 5}\n']


def _forge_and_tear(lines: list[bytes]) -> list[bytes]:
    return [*lines, b'{"n": 4}\n', b'{"n"']


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_cut_last, "removed from its end"),
        (_forge, "not written by this program"),
        (_two_more, "not written by this program"),
        (_forge_and_tear, "not written by this program"),
    ],
)
def test_a_tampered_end_is_never_written_over(ledger: Ledger, change, message: str):
    ledger.path.write_bytes(b"".join(change(ledger.path.read_bytes().splitlines(keepends=True))))
    before = ledger.path.read_bytes()
    with pytest.raises(LedgerError, match=message):
        ledger.append(entry(9))
    assert ledger.path.read_bytes() == before


def test_a_removed_head_is_not_taken_for_a_crash(ledger: Ledger):
    ledger.head_path.unlink()
    with pytest.raises(LedgerError, match="not written by this program"):
        ledger.append(entry(9))


@pytest.mark.parametrize("content", ["", "[]", '{"n_lines": 1}', '{"n_lines": "1", "n_bytes": 0, "sha256": ""}'])
def test_a_damaged_head_is_said(ledger: Ledger, content: str):
    ledger.head_path.write_text(content)
    with pytest.raises(LedgerError, match=r"head file .* is damaged"):
        ledger.append(entry(9))


def test_a_ledger_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be written"):
        Ledger(tmp_path / "file" / "l.jsonl").append(entry())


def _append_many(path: Path, site: str) -> None:
    for index in range(15):
        Ledger(path).append(entry(index, site=site))


def test_several_processes_share_one_ledger(tmp_path: Path):
    path = tmp_path / "l.jsonl"
    processes = [
        multiprocessing.get_context("fork").Process(target=_append_many, args=(path, site)) for site in ("a", "b", "c")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = verify(path)
    assert found.n_lines == 45 and found.problems == ()
    rounds = {site: [line["round_index"] for line in read_lines(path) if line["site"] == site] for site in "abc"}
    assert all(found == list(range(15)) for found in rounds.values())


def test_a_process_killed_while_it_writes_leaves_a_ledger_that_goes_on(tmp_path: Path):
    path = tmp_path / "l.jsonl"
    Ledger(path).append(entry())

    def dies_in_the_middle() -> None:
        with locked(tmp_path / "l.jsonl.lock"), path.open("ab") as stream:
            stream.write(b'{"half a li')
            stream.flush()
            os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=dies_in_the_middle)
    process.start()
    process.join(60)
    assert process.exitcode == 9
    Ledger(path).append(entry(1))
    assert verify(path).problems == () and len(read_lines(path)) == 3


def test_texts_are_cut_so_that_a_ledger_holds_no_payload():
    found = entry(reason="x" * 10_000).to_dict()
    assert len(found["reason"]) == 300


@pytest.mark.parametrize(
    ("changes", "message"), [({"kind": "image"}, "kind = 'image'"), ({"verdict": "maybe"}, "verdict = 'maybe'")]
)
def test_an_entry_of_an_unknown_sort_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        entry(**changes)


FACTS = {"round": 1, "weight": 14.0}


@pytest.mark.parametrize(
    ("tensors", "facts", "reason"),
    [
        ({**TENSORS, "a": TENSORS["a"] + np.float32(1e-7)}, FACTS, "another value"),
        ({**TENSORS, "a": TENSORS["a"].reshape(3, 2)}, FACTS, "another shape"),
        ({**TENSORS, "a": TENSORS["a"].astype(np.float64)}, FACTS, "another dtype"),
        ({"c": TENSORS["a"], "b": TENSORS["b"]}, FACTS, "another name"),
        ({"a": TENSORS["a"]}, FACTS, "a tensor less"),
        (TENSORS, {**FACTS, "weight": 15.0}, "another weight"),
        (TENSORS, {**FACTS, "round": 2}, "another round"),
    ],
)
def test_the_digest_changes_with_everything_in_the_payload(tensors: dict, facts: dict, reason: str):
    assert content_digest(tensors, facts) != content_digest(TENSORS, FACTS), reason


def test_the_digest_does_not_depend_on_the_order_or_the_memory_layout():
    reordered = {"b": TENSORS["b"], "a": np.asfortranarray(TENSORS["a"])}
    assert content_digest(reordered, dict(reversed(FACTS.items()))) == content_digest(TENSORS, FACTS)


def test_the_digest_is_a_number_that_others_can_compute():
    # made by hand: sha256 of '["a","float32",[1]]\n' + four bytes of 1.0 + '{}'
    import hashlib

    by_hand = hashlib.sha256(b'["a","float32",[1]]\n' + b"\x00\x00\x80\x3f" + b"{}").hexdigest()
    assert content_digest({"a": np.ones(1, np.float32)}, {}) == by_hand


def test_a_line_is_plain_json(ledger: Ledger):
    for text in ledger.path.read_text().splitlines():
        assert isinstance(json.loads(text), dict)
