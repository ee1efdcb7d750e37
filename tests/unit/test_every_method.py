"""What holds of every entry of ``METHODS``: plan, contract, sites and server agree, whatever the method is.

Each assertion is a fault of published code: adapters that are active but frozen, optimizer moments that are lost each
round, sites averaged without their weights or only the first of them, a residual of transposed factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS, plan_of
from med_duallora.adapter.model import initial_global_state, skeleton
from med_duallora.adapter.roles import Role
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.server.screening import RoundRules, ScreenedResult, ScreenedRound
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.offer import SiteUpdate
from med_duallora.site.runtime import SiteRuntime
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import same

SIZES = {"small": (4, 2, 2), "large": (8, 2, 2)}
"""Subjects by split: a uniform mean is another one than the weighted."""
SETTINGS = (
    "backbone=cinema-tiny",
    "train.n_rounds=4",
    "train.local_epochs=4",
    "train.batch_size=4",
    "train.n_views=0",
    "train.compare_alone=false",
)
Values = Mapping[str, np.ndarray]


@dataclass
class Trained:
    """Two rounds of one method at two sites."""

    job: JobConfig
    runtimes: dict[str, SiteRuntime]
    starts: dict[str, Values]
    updates: list[dict[str, SiteUpdate]]
    results: list[ScreenedResult]
    moments: list[dict[str, Values]]


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> dict[str, SiteConfig]:
    place = tmp_path_factory.mktemp("every-method")
    policy, common = SitePolicy.for_one_machine(), {"backbone_checkpoint": tiny_checkpoint, "device": "cpu"}
    return {
        site: SiteConfig(
            write_tiny_cohort(place / site / "data", site, seed, sum(sizes), sizes),
            place / site / "state",
            place / site / "cache",
            policy=policy,
            **common,
        )
        for seed, (site, sizes) in enumerate(SIZES.items())
    }


@pytest.fixture(scope="module", params=METHODS)
def trained(request: pytest.FixtureRequest, configs: dict[str, SiteConfig], tmp_path_factory) -> Trained:
    return two_rounds(JobConfig(method=request.param).with_overrides(SETTINGS), configs, tmp_path_factory)


def two_rounds(job: JobConfig, configs: dict[str, SiteConfig], tmp_path_factory) -> Trained:
    states = tmp_path_factory.mktemp("states")
    own = {site: replace(config, state_dir=states / site) for site, config in configs.items()}
    runtimes = {site: SiteRuntime(site, job, config) for site, config in own.items()}
    lineage, contract, rule = Lineage.begin(), EgressContract.for_job(job), plan_of(job).aggregation
    for runtime in runtimes.values():
        runtime.model.follow(lineage)
    starts = {site: whole(runtime) for site, runtime in runtimes.items()}
    it, state = Trained(job, runtimes, starts, [], [], []), initial_global_state(job)
    for round_index in range(2):
        collected = ScreenedRound(contract, round_index, RoundRules(clip=0), rule, job.weighting)
        updates = {site: runtime.train_round(state, round_index) for site, runtime in runtimes.items()}
        it.updates.append(updates)
        it.moments.append({site: moments_of(runtime) for site, runtime in runtimes.items()})
        if contract.tensors:
            for site, update in updates.items():
                collected.add(site, round_index, update.weight, update.tensors, update.metrics["n_subjects"])
            it.results.append(collected.result(state))
            state = it.results[-1].aggregation.tensors
    return it


def whole(runtime: SiteRuntime) -> Values:
    return runtime.model.network.values(Role)


def moments_of(runtime: SiteRuntime) -> Values:
    state = runtime.model.store.latest()
    assert state is not None
    return state.moments


def test_exactly_what_the_plan_trains_moves_and_nothing_is_silently_frozen(trained: Trained) -> None:
    for site, runtime in trained.runtimes.items():
        network, before, after = runtime.model.network, trained.starts[site], whole(runtime)
        names = set(network.of_roles(network.plan.trained))
        assert {name for name in before if not np.array_equal(before[name], after[name])} == names
        assert {name for name, value in network.named_parameters() if value.requires_grad} == names


def test_exactly_what_the_plan_sends_is_in_contract_and_payload(trained: Trained) -> None:
    contract, bones = EgressContract.for_job(trained.job), skeleton(trained.job)
    sent = set(bones.of_roles(bones.plan.sent))
    assert set(contract.tensors) == sent == set(initial_global_state(trained.job))
    assert all(set(update.tensors) == sent for updates in trained.updates for update in updates.values())
    kept = set(bones.of_roles(bones.plan.kept))
    assert all(set(runtime.kept_state()) == kept for runtime in trained.runtimes.values())
    assert not sent & kept
    assert sent | kept == set(bones.trained())


def test_what_stays_differs_between_the_sites(trained: Trained) -> None:
    one, other = (runtime.kept_state() for runtime in trained.runtimes.values())
    assert all(not np.array_equal(one[name], other[name]) for name in one)


def test_the_mean_is_of_all_sites_by_their_subjects(trained: Trained) -> None:
    for updates, result in zip(trained.updates, trained.results, strict=False):
        weights = [update.weight for update in updates.values()]
        assert weights == [4.0, 8.0]
        for name, value in result.aggregation.tensors.items():
            tensors = [update.tensors[name].astype(float) for update in updates.values()]
            np.testing.assert_allclose(value, np.average(tensors, axis=0, weights=weights), rtol=0, atol=1e-6)


def test_moments_go_on_from_round_to_round(trained: Trained) -> None:
    network = trained.runtimes["small"].model.network
    for site in trained.runtimes:
        first, second = (moments[site] for moments in trained.moments)
        assert {name.partition(":")[0] for name in second} == set(network.trained())
        steps = {name for name in second if name.endswith(":step")}
        assert all(second[name] == 2 * first[name] > 0 for name in steps), "the second round counts on"


def test_the_residual_is_of_products_b_times_a(trained: Trained) -> None:
    """Of factors with as many rows as columns a transposed product has the same shape, so shapes tell nothing."""
    contract = EgressContract.for_job(trained.job)
    for updates, result in zip(trained.updates, trained.results, strict=False):
        lost = found = 0.0
        for b, a in contract.pairs:
            products = [u.tensors[b].astype(float) @ u.tensors[a].astype(float) for u in updates.values()]
            mean = np.average(products, axis=0, weights=[u.weight for u in updates.values()])
            tensors = result.aggregation.tensors
            lost += np.square(mean - tensors[b].astype(float) @ tensors[a].astype(float)).sum()
            found += np.square(mean).sum()
        expected = float(np.sqrt(lost / found)) if contract.pairs else None
        assert result.aggregation.residual == pytest.approx(expected, abs=1e-6)


def test_the_alternate_rule_loses_nothing_where_the_plain_mean_does(configs, tmp_path_factory) -> None:
    lost = {}
    for rule in ("factors", "alternate"):
        job = JobConfig(aggregation=rule).with_overrides(SETTINGS)
        it = two_rounds(job, configs, tmp_path_factory)
        lost[rule] = max(result.aggregation.residual or 0.0 for result in it.results)
        if AGGREGATIONS[rule].in_turns:
            resting = it.runtimes["small"].model.network.of_roles(plan_of(job).resting(1))
            first, second = (result.aggregation.tensors for result in it.results)
            assert same({name: first[name] for name in resting}, {name: second[name] for name in resting})
    assert lost["alternate"] < 1e-6
    assert lost["factors"] > 1e-3
