"""Attacks by symbolic links: a file of the site that leads elsewhere is neither read nor written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from med_duallora.errors import LedgerError, StateError
from med_duallora.site.state import SiteStateStore
from tests.attacks.site_files import (
    ENTRY,
    OWNER,
    entries_of,
    ledger_of,
    save_states,
    site_model,
    state_of,
    subjects_of,
)

ELSEWHERE = b"what lies elsewhere\n"


def linked(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def link_ledger(place: Path, target: Path) -> None:
    """A ledger that is not begun yet would be made wherever the site's account can write."""
    target.unlink()
    linked(ledger_of(place).path, target)
    ledger_of(place).append(ENTRY)


def link_begun_ledger(place: Path, target: Path) -> None:
    """The ledger that was begun here goes on in a file elsewhere, which another account can write."""
    ledger = ledger_of(place)
    ledger.append(ENTRY)
    target.write_bytes(ledger.path.read_bytes())
    linked(ledger.path, target)
    ledger.append(ENTRY)


def link_beside(suffix: str) -> Callable[[Path, Path], None]:
    def attack(place: Path, target: Path) -> None:
        ledger = ledger_of(place)
        ledger.append(ENTRY)
        path = ledger.path.with_name(ledger.path.name + suffix) if suffix != ".marker" else ledger.marker
        assert path
        if path.exists():
            target.write_bytes(path.read_bytes())
        linked(path, target)
        ledger.append(ENTRY)

    return attack


def link_lock_to_nowhere(place: Path, target: Path) -> None:
    """A lock that is made by following the link would be a new file of the site's account anywhere."""
    target.unlink()
    linked(ledger_of(place).path.with_name("egress_ledger.jsonl.lock"), target)
    ledger_of(place).append(ENTRY)


def link_run(place: Path, target: Path) -> None:
    """States of this run would lie in a folder of somebody else."""
    target.unlink()
    target.mkdir()
    linked(place / "state" / "experiment" / "run", target)
    SiteStateStore(place / "state" / "experiment" / "run", OWNER).save(state_of(0))


def link_experiment(place: Path, target: Path) -> None:
    target.unlink()
    SiteStateStore(target / "run", OWNER).save(state_of(5))
    linked(place / "state" / "experiment", target)
    SiteStateStore(place / "state" / "experiment" / "run", OWNER).latest()


def link_state_lock(place: Path, target: Path) -> None:
    target.unlink()
    linked(place / "state" / "experiment" / "run" / ".lock", target)
    with SiteStateStore(place / "state" / "experiment" / "run", OWNER).locked():
        pass


LINKS: list[tuple[str, Callable[[Path, Path], None]]] = [
    ("the ledger, before it is begun, to a place elsewhere", link_ledger),
    ("a ledger that was begun, to a copy that others can write", link_begun_ledger),
    ("the head of the ledger", link_beside(".head")),
    ("the marker of the ledger", link_beside(".marker")),
    ("the lock of the ledger", link_beside(".lock")),
    ("the lock of the ledger to a file that is not there", link_lock_to_nowhere),
    ("the folder of a run's states", link_run),
    ("the folder of an experiment's states", link_experiment),
    ("the lock of the states", link_state_lock),
]


@pytest.mark.parametrize(("what", "attack"), LINKS, ids=[row[0] for row in LINKS])
def test_a_link_is_refused_with_a_sentence(what: str, attack, tmp_path: Path):
    target = tmp_path / "elsewhere"
    target.write_bytes(ELSEWHERE)
    with pytest.raises((LedgerError, StateError), match="symbolic link"):
        attack(tmp_path / "site", target)
    if target.is_file():
        assert target.stat().st_mode & 0o777 == 0o644, "not even its mode was touched"


def test_a_torn_line_is_not_set_aside_through_a_link(tmp_path: Path):
    ledger = ledger_of(tmp_path)
    ledger.append(ENTRY)
    with ledger.path.open("ab") as stream:
        stream.write(b"torn")
    linked(ledger.path.with_name(ledger.path.name + ".torn-0"), tmp_path / "elsewhere")
    ledger.append(ENTRY)
    assert not (tmp_path / "elsewhere").exists()


def test_a_state_is_not_read_through_a_link(tmp_path: Path):
    """The state that another experiment of the site saved, say; the one before it serves."""
    store = SiteStateStore(tmp_path / "experiment" / "run", OWNER)
    other = SiteStateStore(tmp_path / "experiment" / "other", OWNER)
    for round_index in range(2):
        store.save(state_of(round_index))
    other.save(state_of(9))
    linked(store.directory / "state.safetensors", other.directory / "state.safetensors")
    found = store.latest()
    assert found and found.round_index == 0


def test_nor_are_features(tmp_path: Path, tiny_checkpoint: Path, tiny_cohorts):
    """Not even where the file behind the link is the right one: who owns it can change it while it is read."""
    model = site_model(tmp_path / "site", tiny_checkpoint)
    model.source.batch(subjects_of(tiny_cohorts, 1), [0])
    (entry,) = entries_of(model)
    shutil.move(entry, tmp_path / "elsewhere")
    linked(entry, tmp_path / "elsewhere")
    site_model(tmp_path / "site", tiny_checkpoint).source.batch(subjects_of(tiny_cohorts, 1), [0])
    assert not entry.is_symlink() and (tmp_path / "elsewhere").exists()


def test_a_folder_of_the_cache_does_not_lead_to_the_states(tmp_path: Path, tiny_checkpoint: Path):
    """Whoever can write in the cache had the site delete its states, as the least recently used entries."""
    model = site_model(tmp_path / "site", tiny_checkpoint)
    store = SiteStateStore(tmp_path / "site" / "state_dir" / "attack" / "run", OWNER)
    store.save(state_of(0))
    os.utime(store.directory / "state.safetensors", (0, 0))
    linked(model.cache.directory / "zz", store.directory)
    model.cache.budget_bytes = 2000
    for name in "ab":
        model.cache.store(name * 64, {"tokens": torch.zeros(200)})
    assert store.latest() is not None


def test_the_secret_is_not_a_link(tmp_path: Path, tiny_checkpoint: Path):
    """A secret that another account chose would let it seal what it likes."""
    (tmp_path / "chosen").write_bytes(bytes(32))
    linked(tmp_path / "site" / "state_dir" / "site.secret", tmp_path / "chosen")
    with pytest.raises(StateError, match="symbolic link"):
        site_model(tmp_path / "site", tiny_checkpoint)


def test_a_folder_above_may_be_a_link(tmp_path: Path, tiny_checkpoint: Path, tiny_cohorts):
    """As /data -> /mnt/data: that is the administrator's own."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "mnt")
    for name in ("state", "cache_dir", "audit"):
        (tmp_path / "mnt" / f"the {name}").mkdir(mode=0o700)
        (tmp_path / "data" / name).symlink_to(tmp_path / "mnt" / f"the {name}")
    for _ in range(2):
        ledger_of(tmp_path / "data").append(ENTRY)
        save_states(tmp_path / "data")
    model = site_model(tmp_path / "data", tiny_checkpoint)
    model.source.batch(subjects_of(tiny_cohorts, 1), [0])
    assert model.source.batch(subjects_of(tiny_cohorts, 1), [0]) and model.cache.n_hits == 1
