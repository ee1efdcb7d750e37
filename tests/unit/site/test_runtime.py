from dataclasses import replace

import numpy as np
import pytest

from med_duallora.adapter.model import initial_global_state
from med_duallora.errors import TrainingAborted, TrainingDiverged
from med_duallora.settings.config import SiteConfig
from med_duallora.site.runtime import SiteRuntime
from tests.unit.tiny import random_payload, same
from tests.unit.tiny_site import JOB, START, files_of, runtime_of


@pytest.fixture
def config(tiny_sites) -> SiteConfig:
    return tiny_sites["siemens"]


# ---- a round


def test_an_update_is_what_the_contract_names(config):
    runtime = runtime_of(config)
    update = runtime.train_round(START, 0)
    assert same(runtime.contract.check_tensors(update.tensors), update.tensors)
    assert runtime.contract.check_metrics(update.metrics) == update.metrics
    assert update.weight == 6.0, "subjects of the training split"
    assert update.metrics["n_subjects"] == 6
    assert update.metrics["n_steps"] == 2
    assert update.metrics["cache_hits"] + update.metrics["cache_misses"] == 6
    assert 0 < update.metrics["seconds"] < 600
    assert all((update.tensors[name] != START[name]).any() for name in START), "it was trained"
    assert not any(
        np.shares_memory(update.tensors[n], p.detach().numpy())
        for n, p in runtime.model.network.trained().items()
        if n in update.tensors
    )


@pytest.mark.parametrize(
    ("weighting", "weight"), [("subjects", 6.0), ("uniform", 1.0)], ids=["by subjects", "every site alike"]
)
def test_weight(config, weighting, weight):
    assert runtime_of(config, JOB.with_overrides([f"weighting={weighting}"])).train_round(START, 0).weight == weight


def test_rounds_repeat_bit_for_bit_in_one_process_or_many(config, tmp_path):
    one = runtime_of(config)
    other_config = replace(config, state_dir=tmp_path / "other", cache_dir=tmp_path / "other-cache")
    for round_index in range(3):
        expected = one.train_round(START, round_index)
        other = runtime_of(other_config)  # built anew, as when the simulator swaps clients between processes
        found = other.train_round(START, round_index)
        assert same(found.tensors, expected.tensors)
        assert found.metrics["train_loss"] == expected.metrics["train_loss"]
        assert same(other.kept_state(), one.kept_state())


def test_a_round_starts_from_the_incoming_global_and_its_own_local_state(config):
    incoming = random_payload(runtime_of(config).contract, scale=0.1)
    one, other = (runtime_of(config).train_round(state, 0) for state in (START, incoming))
    assert not same(one.tensors, other.tensors)
    runtime = runtime_of(config)
    kept = runtime.kept_state()
    runtime.train_round(START, 1)
    assert not same(runtime.kept_state(), kept)


def test_round_0_starts_anew(config, tmp_path):
    used = runtime_of(config)
    for round_index in range(2):
        used.train_round(START, round_index)
    fresh = runtime_of(replace(config, state_dir=tmp_path / "fresh"))
    assert same(used.train_round(START, 0).tensors, fresh.train_round(START, 0).tensors)
    assert same(used.kept_state(), fresh.kept_state())
    assert same(used.train_round(START, 1).tensors, fresh.train_round(START, 1).tensors)


def test_skipped_rounds_keep_the_local_state(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    kept = runtime.kept_state()
    late = runtime_of(config)
    late.validate(START, 2)
    assert same(late.kept_state(), kept)
    late.train_round(START, 2)
    assert late.model.store.latest().round_index == 2
    assert float(late.model.store.latest().moments[f"{next(iter(START))}:step"]) == 4, "the optimizer went on as well"


def test_a_repeated_round_gives_the_same_update(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    updates = [runtime.train_round(START, 1).tensors for _ in range(3)]
    assert same(updates[0], updates[1])
    assert same(updates[0], updates[2]), "also the third time, when the first attempt is no longer the newest"


def test_local_state_stays_what_it_is_whatever_comes_from_the_server(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    kept = runtime.kept_state()
    runtime.validate(random_payload(runtime.contract), 1)
    assert same(runtime.kept_state(), kept)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["train.lr=0.01"], "another recipe"),
        (["lora.rank_local=3"], "other shapes"),
        (["train.seed=1"], "another seed"),
        (["method=fedavg-lora"], "another method"),
    ],
)
def test_the_state_of_another_configuration_is_not_continued(config, caplog, change, reason):
    runtime_of(config).train_round(START, 0)
    job = JOB.with_overrides(change)
    other = runtime_of(config, job)
    start = other.kept_state()
    other.validate(initial_global_state(job), 1)
    assert same(other.kept_state(), start), reason
    assert "set aside" in caplog.text


def test_a_longer_federation_continues_the_state(config, caplog):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    longer = runtime_of(config, JOB.with_overrides(["train.n_rounds=9"]))
    longer.validate(START, 1)
    assert same(longer.kept_state(), runtime.kept_state())
    assert not caplog.text


def test_experiments_and_sites_do_not_share_states(config, caplog):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    other = runtime_of(config, JOB.with_overrides(["experiment=second"]))
    assert other.model.store.latest() is None
    assert SiteRuntime("canon", JOB, config).model.store.latest() is None, "another site's state in the same folder"
    assert "set aside" in caplog.text


# ---- stopping and failing


@pytest.mark.parametrize("n_allowed", [0, 3, 6])
def test_a_stopped_round_leaves_the_last_state_and_can_be_repeated(config, tmp_path, n_allowed):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    before = files_of(runtime)
    asked = []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > n_allowed

    with pytest.raises(TrainingAborted):
        runtime.train_round(START, 1, should_stop)
    assert files_of(runtime) == before
    never_stopped = runtime_of(replace(config, state_dir=tmp_path / "other"))
    never_stopped.train_round(START, 0)
    assert same(runtime.train_round(START, 1).tensors, never_stopped.train_round(START, 1).tensors)


@pytest.mark.parametrize("task", ["validate", "evaluate"])
def test_scoring_can_be_stopped(config, task):
    runtime = runtime_of(config)
    asked = iter([False, True])
    arguments = (START, 0) if task == "validate" else (START,)
    with pytest.raises(TrainingAborted):
        getattr(runtime, task)(*arguments, should_stop=lambda: next(asked))
    assert not (runtime.model.directory / "predictions.json").exists()


def test_a_diverged_round_saves_nothing(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    before = files_of(runtime)
    spoilt = {name: np.full_like(value, 1e30) for name, value in START.items()}
    with pytest.raises(TrainingDiverged):
        runtime.train_round(spoilt, 1)
    assert files_of(runtime) == before


def test_progress_is_reported(config):
    seen = []
    runtime_of(config).train_round(START, 0, on_progress=seen.append)
    assert [entry["step"] for entry in seen] == [1.0, 2.0]
