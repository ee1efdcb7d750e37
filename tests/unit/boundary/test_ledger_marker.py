"""The marker of a ledger: who deletes, cuts, replaces or rolls back the ledger is found, and a crash is not."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_audit import read_lines, verify
from med_duallora.boundary.ledger_entry import ALLOWED, Entry
from med_duallora.boundary.ledger_marker import CUT, check_marker, marker_of
from med_duallora.errors import LedgerError


def entry(number: int, **changes) -> Entry:
    values = {"job": "j1", "site": "ge", "task": "train", "kind": "tensors", "verdict": ALLOWED, **changes}
    return Entry(**values, round_index=number, sha256=f"{number:064x}")


def filled(place: Path, marker: Path | None, n_lines: int = 6, **changes) -> Ledger:
    ledger = Ledger(place, marker)
    for number in range(n_lines):
        ledger.append(entry(number, **changes))
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger of six lines, and beside it what it was after four."""
    place = tmp_path / "audit" / "egress_ledger.jsonl"
    ledger = filled(place, marker_of(place, tmp_path / "state"), 4)
    shutil.copytree(place.parent, tmp_path / "copy")
    for number in (4, 5):
        ledger.append(entry(number))
    return ledger


def both(ledger: Ledger) -> tuple[Path, Path]:
    return ledger.path, ledger.head_path


def delete(ledger: Ledger) -> None:
    for path in both(ledger):
        path.unlink()


def begin_anew(ledger: Ledger) -> None:
    delete(ledger)
    filled(ledger.path, None, 2)


def cut(ledger: Ledger, keep: int = 5) -> None:
    lines = ledger.path.read_bytes().splitlines(keepends=True)[:keep]
    last = json.loads(lines[-1])
    ledger.path.write_bytes(b"".join(lines))
    ledger.head_path.write_text(
        json.dumps({"n_lines": keep, "n_bytes": ledger.path.stat().st_size, "sha256": last["hash"]})
    )


def roll_back(ledger: Ledger) -> None:
    for path in both(ledger):
        shutil.copy(path.parents[1] / "copy" / path.name, path)


def roll_back_and_go_on(ledger: Ledger) -> None:
    roll_back(ledger)
    for number in range(9):
        Ledger(ledger.path).append(entry(number, task="validate"))


def replace(ledger: Ledger, n_lines: int = 6) -> None:
    delete(ledger)
    filled(ledger.path, None, n_lines, job="j2")


def remove_folder(ledger: Ledger) -> None:
    shutil.rmtree(ledger.path.parent)


def empty(ledger: Ledger) -> None:
    ledger.path.write_bytes(b"")
    ledger.head_path.unlink()


def forget(ledger: Ledger) -> None:
    assert ledger.marker
    ledger.marker.unlink()


REPLACED: list[tuple[str, Callable[[Ledger], None], str]] = [
    ("the ledger and its head deleted", delete, "6 lines were written, but 0 are there"),
    ("its whole folder deleted", remove_folder, "6 lines were written, but 0 are there"),
    ("deleted, and begun anew", begin_anew, "6 lines were written, but 2 are there"),
    ("emptied, the head deleted", empty, "6 lines were written, but 0 are there"),
    ("the last line cut, the head made to fit", cut, "6 lines were written, but 5 are there"),
    ("rolled back to an older copy", roll_back, "6 lines were written, but 4 are there"),
    ("rolled back, and continued beyond its length", roll_back_and_go_on, "line 6 is not the one that was written"),
    ("replaced by another of the same length", replace, "line 6 is not the one that was written"),
    ("replaced by a longer one", lambda found: replace(found, 20), "line 6 is not the one that was written"),
    ("the marker deleted", forget, "there is no marker of it"),
]


@pytest.mark.parametrize(("trick", "change", "what"), REPLACED, ids=[row[0] for row in REPLACED])
def test_a_ledger_that_is_not_the_remembered_one_takes_no_line(ledger: Ledger, trick: str, change, what: str):
    ledger.check()
    change(ledger)
    before = ledger.path.read_bytes() if ledger.path.exists() else None
    with pytest.raises(LedgerError, match=f"{CUT}.*{what}.*Nothing leaves this site"):
        ledger.append(entry(6))
    with pytest.raises(LedgerError, match=CUT):
        ledger.check()
    assert (ledger.path.read_bytes() if ledger.path.exists() else None) == before, trick
    if before is not None:
        problems = verify(ledger.path, marker=ledger.marker).problems
        assert any(CUT in str(problem) and what in str(problem) for problem in problems)


@pytest.mark.parametrize("change", [delete, cut, roll_back, replace])
def test_without_a_marker_nobody_would_know(ledger: Ledger, change: Callable[[Ledger], None]):
    change(ledger)
    Ledger(ledger.path).append(entry(6))
    assert verify(ledger.path).problems == ()


def test_the_first_line_makes_both(tmp_path: Path):
    place, marker = tmp_path / "a" / "l.jsonl", tmp_path / "b" / "state" / "l.jsonl.marker"
    ledger = Ledger(place, marker)
    ledger.check()
    assert not list(tmp_path.iterdir()), "looking writes nothing"
    ledger.append(entry(0))
    assert marker.read_bytes() == ledger.head_path.read_bytes()
    assert stat.S_IMODE(marker.stat().st_mode) == 0o600 and stat.S_IMODE(marker.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("n_behind", [1, 3])
def test_after_a_crash_the_ledger_may_be_ahead(ledger: Ledger, n_behind: int):
    assert ledger.marker
    remembered = ledger.marker.read_bytes()
    for number in range(n_behind):
        Ledger(ledger.path).append(entry(6 + number))
    assert ledger.marker.read_bytes() == remembered
    ledger.check()
    ledger.append(entry(9))
    assert len(read_lines(ledger.path)) == 7 + n_behind and verify(ledger.path, marker=ledger.marker).problems == ()
    assert ledger.marker.read_bytes() == ledger.head_path.read_bytes()


def test_a_crash_before_the_head_and_the_marker_is_repaired(ledger: Ledger):
    head = ledger.head_path.read_bytes()
    Ledger(ledger.path).append(entry(6))
    ledger.head_path.write_bytes(head)
    ledger.append(entry(7))
    assert [line["kind"] for line in read_lines(ledger.path)[-3:]] == ["tensors", "ledger", "tensors"]
    assert verify(ledger.path, marker=ledger.marker).problems == ()


def test_a_torn_line_is_set_aside_as_before(ledger: Ledger):
    with ledger.path.open("ab") as stream:
        stream.write(b'{"n":6,"time":"20')
    ledger.append(entry(6))
    assert read_lines(ledger.path)[-2]["kind"] == "ledger"
    assert verify(ledger.path, marker=ledger.marker).problems == ()


def test_a_line_is_not_released_before_the_marker_has_it(ledger: Ledger):
    """Where the marker cannot be written, the entry counts as not written, so its payload stays."""
    assert ledger.marker
    kept = ledger.marker.with_name("kept")
    ledger.marker.rename(kept)
    ledger.marker.mkdir()
    with pytest.raises(LedgerError):
        ledger.append(entry(6))
    ledger.marker.rmdir()
    kept.rename(ledger.marker)
    ledger.append(entry(6))


def test_a_damaged_marker_is_said(ledger: Ledger):
    assert ledger.marker
    ledger.marker.write_text("{")
    with pytest.raises(LedgerError, match="damaged"):
        check_marker(ledger.path, ledger.marker)
