import json
from dataclasses import replace

import numpy as np
import pytest

from med_duallora.adapter.model import as_payload, initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.engine import run_federation
from med_duallora.errors import ConfigError, EgressViolation
from med_duallora.site.model import SiteModel
from med_duallora.site.runtime import SiteRuntime

from .tiny import same

N_SITES = 2


@pytest.fixture
def sites(tiny_sites):
    return dict(list(tiny_sites.items())[:N_SITES])


def moved(sites, folder):
    """The same sites with states and caches of their own."""
    return {
        site: replace(config, state_dir=folder / site / "state", cache_dir=folder / site / "cache")
        for site, config in sites.items()
    }


@pytest.mark.parametrize("method", ["med-duallora", "fedavg-lora", "fedavg-full"])
def test_a_federation_runs_and_repeats_bit_for_bit(tiny_job, sites, tmp_path, method):
    job = tiny_job.with_overrides([f"method={method}"])
    seen = []
    result = run_federation(job, sites, seen.append)
    assert [record.round_index for record in result.rounds] == [0, 1]
    assert seen == result.rounds
    assert not same(result.global_state, initial_global_state(job))
    assert set(result.evaluation) == set(sites)
    again = run_federation(job, dict(reversed(moved(sites, tmp_path / "again").items())))
    assert same(again.global_state, result.global_state), "whatever the order of the sites"
    assert again.evaluation == result.evaluation
    for site, config in sites.items():
        restored = SiteModel(site, job, config)
        restored.follow(result.lineage)
        restored.recall()
        assert same(restored.network.values(restored.network.plan.sent), result.global_state), "the mean, at every site"


def test_payloads_of_half_the_bytes_give_nearly_the_same_adapter(tiny_job, sites, tmp_path):
    half = tiny_job.with_overrides(["payload_dtype=float16"])
    contracts = [EgressContract.for_job(job) for job in (tiny_job, half)]
    assert contracts[0].tensor_bytes == 2 * contracts[1].tensor_bytes
    assert contracts[0].sha256 != contracts[1].sha256, "a site can pin it"
    whole, rounded = run_federation(tiny_job, sites), run_federation(half, moved(sites, tmp_path))
    assert {value.dtype.name for value in rounded.global_state.values()} == {"float16"}
    with pytest.raises(EgressViolation, match="dtype float32, expected float16"):
        contracts[1].check_tensors(whole.global_state)
    lost, all_of_it = (
        sum(float(np.square(value - start).sum()) for value, start in pairs)
        for pairs in (
            [(whole.global_state[name], value.astype(float)) for name, value in rounded.global_state.items()],
            [(value, 0.0) for value in whole.global_state.values()],
        )
    )
    assert 0 < lost < 1e-4 * all_of_it, "two rounds of eleven bits"


def test_a_value_too_large_for_its_payload_leaves_no_site(tiny_job):
    half = tiny_job.with_overrides(["payload_dtype=float16"])
    state = {name: np.full_like(value, 1e5, dtype="f4") for name, value in initial_global_state(tiny_job).items()}
    with pytest.raises(EgressViolation, match="not finite"):
        EgressContract.for_job(half).check_tensors(as_payload(state, half))


def test_an_earlier_run_in_the_same_folders_changes_nothing(tiny_job, sites):
    results = [run_federation(tiny_job, sites) for _ in range(2)]
    assert same(results[0].global_state, results[1].global_state)
    assert results[0].evaluation == results[1].evaluation


def test_every_round_is_the_weighted_mean_of_updates_from_the_round_before(tiny_job, sites, tmp_path):
    result = run_federation(tiny_job, sites)
    runtimes = [SiteRuntime(site, tiny_job, config) for site, config in moved(sites, tmp_path / "alone").items()]
    state = initial_global_state(tiny_job)
    for round_index in range(tiny_job.train.n_rounds):
        updates = [runtime.train_round(state, round_index) for runtime in runtimes]
        weights = [update.weight for update in updates]
        state = {
            name: np.average([u.tensors[name].astype(float) for u in updates], axis=0, weights=weights).astype("f4")
            for name in state
        }
    for name, value in result.global_state.items():
        assert np.allclose(value, state[name], rtol=0, atol=1e-6), name


def test_records_hold_what_is_known_of_a_round(tiny_job, sites):
    result = run_federation(tiny_job, sites)
    names = {"val_loss", "val_balanced_accuracy", "train_loss", "n_subjects", "n_steps", "seconds", "weight"}
    for record in result.rounds:
        assert set(record.sites) == set(sites)
        assert all(names <= set(report) for report in record.sites.values())
        assert record.residual and record.residual > 0, "two sites with different data differ"
        assert record.seconds >= sum(report["seconds"] for report in record.sites.values())
    json.dumps([dict(report) for record in result.rounds for report in record.sites.values()], allow_nan=False)
    json.dumps(result.evaluation, allow_nan=False)


def test_one_site_is_a_federation(tiny_job, sites):
    site = next(iter(sites))
    result = run_federation(tiny_job, {site: sites[site]})
    assert [record.residual for record in result.rounds] == pytest.approx([0, 0], abs=1e-9)


def test_no_site_is_none(tiny_job):
    with pytest.raises(ConfigError, match="at least one site"):
        run_federation(tiny_job, {})


def test_the_engine_decides_how_many_threads_its_process_has(tiny_job, sites, monkeypatch):
    used = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    first, last = sites
    sites = {first: sites[first], last: replace(sites[last], n_threads=3)}
    runtime = SiteRuntime(last, tiny_job, sites[last])
    assert used == [], "an object in a process does not decide for it"
    assert runtime.model.kept_state()
    run_federation(tiny_job, sites, stop_round=0)
    assert used == [3]


def test_a_site_alone_learns_in_the_engine_and_sends_nothing(tiny_job, sites, tmp_path):
    """Without its neighbours, and at its whole rate, it gives the same to the bit."""
    job = tiny_job.with_overrides(["method=local-lora", "train.local_lr_factor=0.1"])
    both = run_federation(job, sites)
    assert both.global_state == {}
    assert [record.residual for record in both.rounds] == [None] * job.train.n_rounds
    site = next(iter(sites))
    alone = run_federation(tiny_job.with_overrides(["method=local-lora"]), moved({site: sites[site]}, tmp_path / "one"))
    assert alone.evaluation[site] == both.evaluation[site]
    assert {report["train_loss"] for record in both.rounds for report in record.sites.values()} >= {
        record.sites[site]["train_loss"] for record in alone.rounds
    }


LOCAL_AFTER = ["train.schedule=local-after", "lora.head_policy=shared"]


def test_local_after_fits_what_stays_to_the_last_adapter_and_no_payload_depends_on_it(tiny_job, sites, tmp_path):
    job = tiny_job.with_overrides(LOCAL_AFTER)
    runs = {}
    for decay in (1, 500):  # another fit of what stays
        changed = job.with_overrides([f"train.local_weight_decay_factor={decay}", "train.weight_decay=0.5"])
        runs[decay] = run_federation(changed, moved(sites, tmp_path / str(decay)))
    assert same(runs[1].global_state, runs[500].global_state)
    assert [r.sites["siemens"]["train_loss"] for r in runs[1].rounds] == [
        r.sites["siemens"]["train_loss"] for r in runs[500].rounds
    ]


def test_local_after_begins_anew_for_every_adapter_that_is_evaluated(tiny_job, sites):
    site = next(iter(sites))
    runtime = SiteRuntime(site, tiny_job.with_overrides(LOCAL_AFTER), sites[site])
    runtime.model.follow(Lineage.begin())
    start, first = runtime.kept_state(), initial_global_state(runtime.job)
    adapter = runtime.train_round(first, 0).tensors
    assert same(runtime.kept_state(), start), "nothing that stays trains in a round"
    runtime.evaluate(first, kind="best")
    on_first = runtime.kept_state()
    last = runtime.evaluate(adapter)
    fitted = runtime.kept_state()
    assert not any(np.array_equal(fitted[name], start[name]) for name in start if name.endswith("local_b"))
    assert not same(fitted, on_first)
    again = SiteRuntime(site, runtime.job, sites[site])
    again.model.follow(runtime.model.lineage)
    assert same(again.model.recall().kept, fitted), "a prediction uses what was evaluated"
    again.model.follow(Lineage.begin())
    again.train_round(first, 0)
    assert again.evaluate(adapter) == last, "whatever was evaluated before"
