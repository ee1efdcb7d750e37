"""Who may use a state: one process at a time, the same backbone, the same run or one that continues it."""

import stat
import subprocess
import sys

import numpy as np
import pytest

from med_duallora.boundary.lineage import Lineage, Run
from med_duallora.errors import StateError
from med_duallora.site.state import Owner, SiteState, SiteStateStore, newest_state

OWNER = Owner("identity", "b" * 64)


def state_of(round_index: int) -> SiteState:
    return SiteState(round_index, {"block.local_a": np.full((2, 3), round_index, np.float32)}, {})


@pytest.fixture
def store(tmp_path) -> SiteStateStore:
    return SiteStateStore(tmp_path / "experiment" / "run", OWNER)


# ---- who may use a state


def test_a_state_of_another_backbone_is_an_error_and_stays(store):
    store.save(state_of(2))
    other = SiteStateStore(store.directory, Owner(OWNER.identity, "c" * 64))
    for _ in range(2):
        with pytest.raises(StateError, match=r"another backbone checkpoint \(sha256 bbbbbbbbbbbb, not cccccccccccc\)"):
            other.latest()
    assert store.latest().round_index == 2


def test_one_process_at_a_time_trains_with_a_state(store):
    with store.locked():
        second = SiteStateStore(store.directory, OWNER)
        with pytest.raises(StateError, match="another process at this site trains with"), second.locked():
            raise AssertionError("both have it")
    with second.locked():
        assert stat.S_IMODE((store.directory / ".lock").stat().st_mode) == 0o600


HOLDER = """
import sys
from pathlib import Path
from med_duallora.site.state import Owner, SiteStateStore
with SiteStateStore(Path(sys.argv[1]), Owner("", "")).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_holds_nothing(store):
    command = [sys.executable, "-c", HOLDER, str(store.directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StateError), store.locked():
            raise AssertionError("both have it")
        holder.kill()
        holder.wait()
        with store.locked():
            store.save(state_of(0))


# ---- runs

FIRST, SECOND = Run("1" * 32, 0), Run("2" * 32, 2)
ONE, TWO = Lineage((FIRST,)), Lineage((FIRST, SECOND))


@pytest.mark.parametrize(
    ("saved", "before", "expected", "reason"),
    [
        (([0, 1], []), 2, 1, "a resumed job begins with what the earlier one left"),
        (([0], []), 2, 0, "this site missed the last round before the interruption"),
        (([0, 1, 2], []), 2, 1, "it had finished a round that the server never had: that one is repeated"),
        (([0, 1, 2], []), 3, 1, "also when it misses the first round of the resumed job"),
        (([0, 1, 2, 3], []), 2, None, "the adapter is an old one: what this site has is of later rounds"),
        (([], []), 2, None, "it joins late"),
        (([0, 1], [2]), 3, 2, "the resumed job goes on with its own"),
        (([0, 1], [2]), 2, 1, "and can repeat its first round"),
        (([0, 1], [2, 3]), None, 3, "the evaluation takes the newest"),
        (([0, 1, 2, 3], []), None, None, "of the earlier run only what the later one was built upon"),
    ],
)
def test_which_state_a_resumed_job_goes_on_with(tmp_path, saved, before, expected, reason):
    for run, rounds in zip((FIRST, SECOND), saved, strict=True):
        for round_index in rounds:
            SiteStateStore(tmp_path / run.run_id, OWNER).save(state_of(round_index))
    found = newest_state(tmp_path, OWNER, TWO, before)
    assert (found and found.round_index) == expected, reason


def test_a_rerun_never_meets_an_earlier_run(tmp_path):
    SiteStateStore(tmp_path / FIRST.run_id, OWNER).save(state_of(0))
    assert newest_state(tmp_path, OWNER, Lineage.begin(), 5) is None, "also at a site that missed round 0"
    assert newest_state(tmp_path, OWNER, ONE, 5).round_index == 0


def test_a_resumed_job_changes_nothing_of_the_run_that_it_continues(tmp_path):
    SiteStateStore(tmp_path / FIRST.run_id, OWNER).save(state_of(1))
    before = (tmp_path / FIRST.run_id / "state.safetensors").read_bytes()
    for _ in range(3):
        store = SiteStateStore(tmp_path / ONE.continued(2).run_id, OWNER)
        store.save(state_of(2))
    assert (tmp_path / FIRST.run_id / "state.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 4
