import errno
import logging
import os
import resource
import stat

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from med_duallora.errors import StateError
from med_duallora.site import state as state_module
from med_duallora.site.state import FORMAT, Owner, SiteState, SiteStateStore
from med_duallora.support.digest import content_digest
from tests.unit.tiny import same

OWNER = Owner("identity", "b" * 64)
OTHER = Owner("another identity", OWNER.backbone)


def state_of(round_index: int, value: float | None = None) -> SiteState:
    number = round_index if value is None else value
    return SiteState(
        round_index,
        {"block.local_a": np.full((2, 3), number, np.float32), "head.bias": np.zeros(2, np.float32)},
        {"block.local_a:exp_avg": np.full((2, 3), -number, np.float32), "block.local_a:step": np.array(7, np.float32)},
        sent={"block.global_a": np.full((2, 3), number + 0.5, np.float32)},
        statistics={"mean": np.full(4, number, np.float32), "scale": np.ones(4, np.float32)},
    )


@pytest.fixture
def store(tmp_path) -> SiteStateStore:
    return SiteStateStore(tmp_path / "states" / "experiment" / "run", OWNER)


def value_of(state: SiteState | None) -> float | None:
    return None if state is None else float(state.kept["block.local_a"][0, 0])


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_state_comes_back_as_it_was(store):
    saved = state_of(3)
    store.save(saved)
    found = SiteStateStore(store.directory, OWNER).latest()
    assert found.round_index == 3
    for part in ("kept", "moments", "sent", "statistics"):
        assert same(getattr(found, part), getattr(saved, part)), part


def test_any_memory_layout_is_stored_right(store):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    store.save(SiteState(0, {"t": value.T}, {"s": value[:, ::2]}))
    found = store.latest()
    assert np.array_equal(found.kept["t"], value.T)
    assert np.array_equal(found.moments["s"], value[:, ::2])


def test_nothing_saved_is_no_state(store):
    assert store.latest() is None
    assert store.latest(before_round=5) is None


def test_only_the_owner_can_read(store):
    old = os.umask(0)
    try:
        opened = SiteStateStore(store.directory.with_name("other"), OWNER)
        opened.save(state_of(0))
        opened.save(state_of(1))
    finally:
        os.umask(old)
    assert mode_of(opened.directory) == mode_of(opened.directory.parent) == 0o700
    assert {path.name: mode_of(path) for path in opened.directory.iterdir()} == {
        "state.safetensors": 0o600,
        "state.previous.safetensors": 0o600,
    }


@pytest.mark.parametrize(
    ("rounds", "before", "expected", "reason"),
    [
        ([0, 1, 2], None, 2, "the newest"),
        ([0, 1, 2], 3, 2, "the round before the next"),
        ([0, 1, 2], 2, 1, "round 2 is repeated: its own result is not its start"),
        ([0, 1, 2], 1, None, "further back nothing is kept"),
        ([0, 1, 2], 0, None, "round 0 starts anew"),
        ([0, 1], 7, 1, "rounds 2 to 6 were skipped: the state survives"),
        ([0, 4], 4, 0, "after skipped rounds the one before them is kept"),
        ([5, 6, 0], None, 0, "a new run began: the newest is the last saved, not the highest round"),
        ([5, 6, 0], 1, 0, "and round 1 continues it"),
        ([5, 6, 0, 1], 1, 0, "also when round 1 is repeated"),
    ],
)
def test_the_newest_state_before_a_round(store, rounds, before, expected, reason):
    for round_index in rounds:
        store.save(state_of(round_index))
    assert value_of(store.latest(before)) == expected, reason


def test_a_round_can_be_repeated_any_number_of_times(store):
    for round_index in (0, 1):
        store.save(state_of(round_index))
    for attempt in (20, 21, 22):
        assert value_of(store.latest(before_round=2)) == 1, "every attempt starts where the first one did"
        store.save(state_of(2, attempt))
        assert value_of(store.latest()) == attempt


def test_an_older_run_leaves_nothing_that_a_newer_one_could_meet(store):
    for round_index in (5, 6, 0):
        store.save(state_of(round_index))
    store._current.write_bytes(b"damaged")
    assert store.latest() is None, "neither round 5 nor 6 belongs to the run that saved round 0"


def damage_truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip(path, position):
    """Change one bit, as a failing disk does."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def damage_version(path):
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={"format": "0", "identity": "identity", "round": "1"})


def damage_round(path):
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={"format": FORMAT, "identity": "identity", "round": "-1"})


def damage_former_format(path):
    """A whole file of the format before the head's statistics were kept."""
    tensors = {"kept/a": np.zeros(1, np.float32)}
    facts = {"format": "2", "identity": "identity", "backbone": OWNER.backbone, "round": "1", "cohort": ""}
    save_file(tensors, path, metadata={**facts, "checksum": content_digest(tensors, facts)})


def damage_checksum(path):
    facts = {"format": FORMAT, "identity": "identity", "backbone": OWNER.backbone, "round": "1", "cohort": ""}
    save_file(load_file(path), path, metadata=facts)


@pytest.mark.parametrize(
    ("damage", "message", "reason"),
    [
        (lambda p: p.write_bytes(b"garbage"), "the file is damaged", "not a safetensors file"),
        (lambda p: p.write_bytes(b""), "the file is damaged", "an empty file"),
        (damage_truncated, "the file is damaged", "cut off"),
        (damage_version, "not written by this version", "another format"),
        (damage_former_format, "not written by this version", "a whole file of the former format"),
        (damage_round, "not written by this version", "no round"),
        (lambda p: save_file({"a": np.zeros(1)}, p), "not written by this version", "no facts at all"),
        (lambda p: flip(p, -1), "the checksum differs", "a bit of a number is another one"),
        (damage_checksum, "the checksum differs", "no checksum"),
    ],
)
def test_a_damaged_state_is_set_aside_and_the_one_before_serves(store, caplog, damage, message, reason):
    store.save(state_of(0))
    store.save(state_of(1))
    damage(store._current)
    bytes_before = store._current.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert value_of(store.latest()) == 0, reason
    assert message in caplog.text
    assert "state.safetensors.set-aside-0" in caplog.text
    assert (store.directory / "state.safetensors.set-aside-0").read_bytes() == bytes_before, "nothing is thrown away"
    caplog.clear()
    assert value_of(store.latest()) == 0
    assert not caplog.text, "said once"
    store.save(state_of(1, 11))
    assert value_of(store.latest()) == 11
    assert value_of(store.latest(before_round=1)) == 0


def test_two_damaged_states_are_both_set_aside(store):
    store.save(state_of(0))
    store.save(state_of(1))
    for path in (store._current, store._previous):
        path.write_bytes(b"x")
    assert store.latest() is None
    store.save(state_of(0))
    store._current.write_bytes(b"y")
    assert store.latest() is None
    kept = sorted(path.name for path in store.directory.iterdir())
    assert kept == [
        "state.previous.safetensors.set-aside-0",
        "state.safetensors.set-aside-0",
        "state.safetensors.set-aside-1",
    ]


def test_a_foreign_state_is_set_aside(store, caplog):
    store.save(state_of(4))
    other = SiteStateStore(store.directory, OTHER)
    with caplog.at_level(logging.WARNING):
        assert other.latest() is None
    assert "belongs to another site, method or configuration" in caplog.text
    assert str(store.directory) not in caplog.text, "logs can be read elsewhere: no paths"
    other.save(state_of(0, 50))
    assert value_of(other.latest()) == 50


def test_a_foreign_state_never_becomes_the_one_before(store):
    store.save(state_of(0))
    other = SiteStateStore(store.directory, OTHER)
    other.save(state_of(3, 50))
    other._current.unlink()
    assert other.latest() is None


FULL = (OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [(FULL[0], StateError), (FULL[1], StateError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["a full disk", "a full disk, in safetensors' words", "interrupted"],
)
def test_an_interrupted_save_leaves_everything_as_it_was(store, monkeypatch, error, expected):
    store.save(state_of(0))
    store.save(state_of(1))
    before = {path.name: path.read_bytes() for path in store.directory.iterdir()}

    def half(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(state_module, "save_file", half)
    with pytest.raises(expected) as caught:
        store.save(state_of(2))
    if expected is StateError:
        assert "cannot be written (" in str(caught.value)
        assert "No space left on device); the state of the last finished round is intact" in str(caught.value)
    assert {path.name: path.read_bytes() for path in store.directory.iterdir()} == before


def test_a_write_that_the_kernel_refuses_leaves_everything_as_it_was(store):
    store.save(state_of(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # as a full disk, with an error of its own
    try:
        with pytest.raises(StateError, match="cannot be written") as caught:
            store.save(state_of(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(store.directory) not in str(caught.value)
    assert value_of(store.latest()) == 0
    assert [path.name for path in store.directory.iterdir()] == ["state.safetensors"]


def test_a_place_that_cannot_be_written_is_found_before_anything_is_trained(tmp_path):
    (tmp_path / "states").write_text("a file where a directory should be")
    store = SiteStateStore(tmp_path / "states" / "experiment" / "run", OWNER)
    with pytest.raises(StateError, match=r"cannot be written \(Not a directory\)"), store.locked():
        raise AssertionError("training began")


@pytest.mark.parametrize("saved_before", [1, 2, 3])
def test_a_crash_at_any_step_of_a_save_leaves_a_usable_state(store, monkeypatch, saved_before):
    """The renames of a save are replayed up to each one of them; whatever is left must serve the repeated round."""
    for round_index in range(saved_before):
        store.save(state_of(round_index))
    plain = type(store._current).replace
    for n_allowed in (0, 1):
        done = []

        def crash_later(path, target, limit=n_allowed, done=done):
            if len(done) == limit:
                raise KeyboardInterrupt
            done.append(target)
            return plain(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(type(store._current), "replace", crash_later)
            with pytest.raises(KeyboardInterrupt):
                store.save(state_of(saved_before))
        found = SiteStateStore(store.directory, OWNER).latest(before_round=saved_before)
        assert value_of(found) == saved_before - 1


def test_a_damaged_state_that_cannot_be_set_aside_is_an_error_with_its_reason(store, monkeypatch):
    store.save(state_of(0))
    store._current.write_bytes(b"damaged")

    def read_only(*_arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.rename", read_only)
    with pytest.raises(StateError, match=r"local state cannot be written \(Read-only file system\)"):
        store.latest()


def test_only_the_lock_itself_means_that_another_process_trains(store):
    with pytest.raises(BlockingIOError, match="a pipe"), store.locked():
        raise BlockingIOError("a pipe of the training's own")
