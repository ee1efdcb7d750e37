"""A site that trains the first components of the global adapter only, among sites that train all of them."""

from dataclasses import replace

import numpy as np
import pytest

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.engine import run_federation
from med_duallora.errors import TrainingAborted
from med_duallora.server.influence import Claim
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from tests.unit.tiny import random_payload, same

LIMIT, RANK = 2, 6


@pytest.fixture
def job(tiny_job: JobConfig) -> JobConfig:
    return tiny_job.with_overrides(["aggregation=svd", f"lora.rank_global={RANK}", f"lora.alpha_global={RANK}"])


def runtime_of(config: SiteConfig, job: JobConfig, limit: int, folder: str = "own") -> SiteRuntime:
    state = config.state_dir / folder
    state.mkdir(parents=True)
    return SiteRuntime("ge", job, replace(config, state_dir=state, rank_limit=limit))


def parts(job: JobConfig, tensors) -> tuple[dict, dict, dict]:
    """The components of the blocks' adapters up to the limit, those beyond it, and the pair of the shared head."""
    first, rest, head = {}, {}, {}
    for b, a in EgressContract.for_job(job).pairs:
        if "pred_head" in b:
            head |= {b: tensors[b], a: tensors[a]}
            continue
        first |= {b: tensors[b][:, :LIMIT], a: tensors[a][:LIMIT]}
        rest |= {b: tensors[b][:, LIMIT:], a: tensors[a][LIMIT:]}
    return first, rest, head


@pytest.mark.parametrize("extra", [[], ["train.schedule=alternate", "train.local_epochs=2"], ["method=fedprox-lora"]])
def test_what_a_site_does_not_train_goes_back_as_it_came_and_all_else_trains(tiny_sites, job, extra):
    """Sent as zeros it would fade from the mean of the products in every round, and count as an update."""
    job = job.with_overrides(extra)
    runtime = runtime_of(tiny_sites["ge"], job, LIMIT)
    kept, incoming = runtime.kept_state(), random_payload(runtime.contract, scale=0.1)
    update = runtime.train_round(incoming, 0)
    assert same(runtime.contract.check_tensors(update.tensors), update.tensors), "the contract is what it was"
    (first, rest, head), (first_in, rest_in, head_in) = parts(job, update.tensors), parts(job, incoming)
    assert same(rest, rest_in) and rest
    assert not any(np.array_equal(first[name], first_in[name]) for name in first)
    assert not any(np.array_equal(head[name], head_in[name]) for name in head)
    assert kept.keys() == runtime.kept_state().keys()
    assert not any(np.array_equal(value, kept[name]) for name, value in runtime.kept_state().items())
    moments = runtime.model.store.latest().moments
    for name, value in rest.items():
        for kind in ("exp_avg", "exp_avg_sq"):
            found = moments[f"{name}:{kind}"]
            assert not (found[LIMIT:] if value.shape[0] == RANK - LIMIT else found[:, LIMIT:]).any()


def test_its_update_is_as_long_as_what_it_trained(tiny_sites, job):
    """The server refuses what is far longer than the median: a site must not be refused for what it left alone."""
    runtime = runtime_of(tiny_sites["ge"], job, LIMIT)
    incoming = random_payload(runtime.contract)
    update = runtime.train_round(incoming, 0)
    whole = runtime_of(tiny_sites["ge"], job, 0, "whole").train_round(incoming, 0)
    lengths = [Claim.of(1, given.tensors, incoming).norm for given in (update, whole)]
    assert 0 < lengths[0] < lengths[1]


@pytest.mark.parametrize("limit", [RANK, RANK + 1, 256])
def test_a_limit_that_does_not_bind_is_none_to_the_bit(tiny_sites, job, limit):
    given, states = [], []
    for bound in (0, limit):
        runtime = runtime_of(tiny_sites["ge"], job, bound, str(bound))
        state = random_payload(runtime.contract, scale=0.1)
        for round_index in range(2):
            state = runtime.train_round(state, round_index).tensors
        given.append(state)
        states.append(runtime.kept_state())
    assert same(*given) and same(*states)


def test_a_round_that_is_stopped_leaves_the_whole_adapter_in_the_network(tiny_sites, job):
    runtime = runtime_of(tiny_sites["ge"], job, LIMIT)
    incoming = random_payload(runtime.contract, scale=0.1)
    with pytest.raises(TrainingAborted):
        runtime.train_round(incoming, 0, should_stop=lambda: True)
    assert same(runtime.model.sent_state(), incoming)


def test_scores_are_those_of_the_whole_adapter(tiny_sites, job):
    limited, whole = (runtime_of(tiny_sites["ge"], job, limit, str(limit)) for limit in (LIMIT, 0))
    state = random_payload(whole.contract, scale=0.1)
    for runtime in (limited, whole):
        runtime.model.follow(Lineage.begin())
    assert limited.validate(state, 0) == whole.validate(state, 0)
    assert limited.evaluate(state) == whole.evaluate(state)
    update = limited.train_round(state, 1)
    assert same(limited.model.recall().sent, update.tensors), "what a prediction uses is the whole one as well"


def test_sites_of_ranks_2_and_4_give_the_mean_of_their_products(tiny_sites, job):
    """The first global adapter has a product of zero, so that what both learnt has a rank of 6 at most."""
    configs = {site: replace(tiny_sites[site], rank_limit=limit) for site, limit in (("ge", 2), ("canon", 4))}
    start, contract = initial_global_state(job), EgressContract.for_job(job)
    result = run_federation(job, configs, stop_round=1)
    updates = [
        SiteRuntime(site, job, replace(config, state_dir=config.state_dir / "again")).train_round(start, 0)
        for site, config in configs.items()
    ]
    assert result.rounds[0].residual is not None and result.rounds[0].residual < 1e-6
    for b, a in contract.pairs:
        products = [u.tensors[b].astype(float) @ u.tensors[a] for u in updates]
        if "pred_head" not in b:
            assert [np.linalg.matrix_rank(product, tol=1e-9) for product in products] == [2, 4]
        expected = np.average(products, axis=0, weights=[u.weight for u in updates])
        found = result.global_state[b].astype(float) @ result.global_state[a]
        assert np.linalg.norm(found - expected) < 1e-6 * np.linalg.norm(expected)


def test_no_contribution_of_a_mixed_federation_is_refused(tiny_sites, job):
    configs = {site: replace(config, rank_limit=LIMIT * (site == "ge")) for site, config in tiny_sites.items()}
    result = run_federation(job, configs)
    assert [dict(record.refused) for record in result.rounds] == [{}, {}]
    assert set(result.evaluation) == set(configs)
