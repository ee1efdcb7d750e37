"""How a soak judges: the replay of a disturbed training, and who trained and counted in which round."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.soak import KINDS, plan_faults
from benchmarks.soak_replay import Past, Watcher, pasts, replayed

from med_duallora.boundary.lineage import Lineage, Run
from med_duallora.engine import run_federation
from med_duallora.server.resume import SavedRound
from med_duallora.settings.config import JobConfig, SiteConfig
from tests.unit.tiny import same

RUNS = (Run("a" * 32, 0), Run("b" * 32, 2))


@pytest.fixture
def job(tiny_job: JobConfig) -> JobConfig:
    return tiny_job.with_overrides(["train.n_rounds=3"])


@pytest.fixture
def sites(tiny_sites: dict[str, SiteConfig]) -> dict[str, SiteConfig]:
    return dict(sorted(tiny_sites.items())[:2])


def again(job: JobConfig, sites: Mapping[str, SiteConfig], past: list[Past], scratch: Path) -> dict[str, np.ndarray]:
    """The last adapter of a replay."""
    scratch.mkdir()
    fresh = {name: replace(config, state_dir=scratch / name) for name, config in sites.items()}
    return list(replayed(job, fresh, past, scratch))[-1][0]


def test_a_replay_is_the_training_that_lost_a_site_and_was_resumed(
    job: JobConfig, sites: dict[str, SiteConfig], tmp_path: Path
) -> None:
    """A site is away for a round, and continues with its own last state: the replay gives every bit of it.

    And it gives another adapter where the site had trained that round, though its answer did not count.
    """
    one, other = sites
    saved = None
    for round_index, names in enumerate([(one, other), (one,), (one, other)]):
        taken = {name: sites[name] for name in names}
        result = run_federation(job, taken, resume_from=saved, stop_round=round_index + 1)
        saved = SavedRound("x", result.global_state, job, round_index, result.lineage, names)
    full, without = Past((one, other), (one, other)), Past((one,), (one,))
    assert same(again(job, sites, [full, without, full], tmp_path / "replay"), result.global_state)
    in_vain = Past((one, other), (one,))
    assert not same(again(job, sites, [full, in_vain, full], tmp_path / "vain"), result.global_state)


def test_the_states_of_sites_say_who_trained(job: JobConfig, sites: dict[str, SiteConfig]) -> None:
    watcher = Watcher({name: config.state_dir / job.experiment for name, config in sites.items()})
    watcher.look()
    assert watcher.saved == {}
    with watcher.watching():
        run = run_federation(job, sites, stop_round=2).lineage.run_id
    assert watcher.saved == {name: {(run, 0), (run, 1)} for name in sites}


def test_a_state_of_a_round_that_was_done_again_says_nothing() -> None:
    first, second = RUNS
    saved = {
        "ge": frozenset({(first.run_id, 0), (first.run_id, 1), (first.run_id, 2), (second.run_id, 2)}),
        "philips": frozenset({(first.run_id, 0), (first.run_id, 1), (first.run_id, 2)}),
    }
    assert pasts(saved, Lineage(RUNS), [["ge", "philips"], ["ge"], ["ge"]]) == [
        Past(("ge", "philips"), ("ge", "philips")),
        Past(("ge", "philips"), ("ge",)),
        Past(("ge",), ("ge",)),
    ]


def test_faults_are_drawn_from_the_seed_and_spread_over_the_rounds() -> None:
    faults = plan_faults(3, 20, 6, ["ge", "philips"])
    assert faults == plan_faults(3, 20, 6, ["ge", "philips"])
    assert [fault.after for fault in faults] == sorted(fault.after for fault in faults)
    assert {fault.kind for fault in faults} == set(KINDS)
