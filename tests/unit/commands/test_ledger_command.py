"""``med-duallora ledger``: what an auditor types and reads."""

from pathlib import Path

import pytest

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, Entry
from med_duallora.boundary.ledger_marker import marker_of
from med_duallora.commands import ledger as command
from med_duallora.errors import LedgerError


def run(*arguments: object) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    options = parser.parse_args(["ledger", *map(str, arguments)])
    return options.run(options)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "egress_ledger.jsonl")
    found.append(
        Entry("j1", "ge", "train", "tensors", ALLOWED, "", 0, {"x.global_a": [[8, 64], "float32"]}, 2048, "a" * 64)
    )
    found.append(Entry("j2", "ge", "train", "tensors", BLOCKED, "a tensor outside the contract", 1))
    return found


def test_verify_prints_the_hash_to_note(ledger: Ledger, capsys):
    assert run("verify", ledger.path) == 0
    said = capsys.readouterr().out
    assert "intact, 2 lines" in said
    assert run("verify", ledger.path, "--noted", said.split()[-1]) == 0


def test_verify_says_where_it_is_broken(ledger: Ledger, capsys):
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b"2048", b"4096"))
    assert run("verify", ledger.path) == 1
    assert "line 1: was edited" in capsys.readouterr().err


def test_show_filters_and_lists_tensors(ledger: Ledger, capsys):
    assert run("show", ledger.path, "--blocked") == 0
    (said,) = capsys.readouterr().out.splitlines()
    assert "blocked" in said and "a tensor outside the contract" in said and "round 1" in said
    assert run("show", ledger.path, "--job-id", "j1", "--tensors") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "1 tensors, 2048 bytes" in first and second.split() == ["x.global_a", "float32", "8x64"]


def test_match_agrees_and_disagrees(ledger: Ledger, tmp_path: Path, capsys):
    record = Ledger(tmp_path / "received.jsonl")
    record.append(Entry("j1", "ge", "train", "tensors", ALLOWED, "", 0, {}, 2048, "a" * 64))
    assert run("match", ledger.path, record.path, "--site", "ge") == 0
    assert "1 entries agree" in capsys.readouterr().out
    record.append(Entry("j1", "ge", "train", "tensors", ALLOWED, "", 1, {}, 2048, "b" * 64))
    assert run("match", ledger.path, record.path, "--site", "ge") == 1
    assert "NEVER LEFT" in capsys.readouterr().err


def test_match_says_when_a_chain_is_broken(ledger: Ledger, tmp_path: Path, capsys):
    """An entry that was taken out of both files would match; the chains tell."""
    record = Ledger(tmp_path / "received.jsonl")
    record.append(Entry("j1", "ge", "train", "tensors", ALLOWED, "", 0, {}, 2048, "a" * 64))
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b"outside the", b"inside  the"))
    assert run("match", ledger.path, record.path, "--site", "ge") == 1
    said = capsys.readouterr()
    assert "line 2: was edited" in said.err and "1 entries agree, 0 only" in said.out
    record.head_path.unlink()
    run("match", ledger.path, record.path, "--site", "ge")
    assert "received.jsonl: its head file" in capsys.readouterr().err


def test_verify_compares_with_the_marker(tmp_path: Path, capsys):
    place, state = tmp_path / "audit" / "l.jsonl", tmp_path / "state"
    marked = Ledger(place, marker_of(place, state))
    marked.append(Entry("j1", "ge", "train", "tensors", ALLOWED))
    assert run("verify", place) == 0 and "not compared with the site's marker" in capsys.readouterr().out
    assert run("verify", place, "--state-dir", state) == 0
    assert "as the marker remembers it" in capsys.readouterr().out
    for path in (place, marked.head_path):
        path.unlink()
    with pytest.raises(LedgerError, match=r"the ledger was replaced or cut: .* is missing"):
        run("verify", place, "--state-dir", state)
    Ledger(place).append(Entry("j1", "ge", "validate", "metrics", ALLOWED))
    assert run("verify", place) == 0, "the new ledger's own chain is whole"
    assert run("verify", place, "--state-dir", state) == 1
    assert "the ledger was replaced or cut: line 1 is not the one that was written" in capsys.readouterr().err
