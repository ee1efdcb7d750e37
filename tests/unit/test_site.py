import csv
import json
import math
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from med_duallora import site as site_module
from med_duallora.config import JobConfig, SiteConfig
from med_duallora.errors import CheckpointError, CohortError, ConfigError, TrainingAborted, TrainingDiverged
from med_duallora.model import initial_global_state
from med_duallora.names import Role
from med_duallora.site import SiteRuntime, resolve_device

from ..conftest import write_tiny_cohort
from .tiny import TRAINED, random_payload, same

JOB = JobConfig(backbone="cinema-tiny").with_overrides(
    ["experiment=test", "train.n_rounds=3", "train.local_epochs=1", "train.batch_size=4", "train.n_views=1"]
)
START = initial_global_state(JOB)


@pytest.fixture
def config(tiny_sites) -> SiteConfig:
    return tiny_sites["siemens"]


def runtime_of(config: SiteConfig, job: JobConfig = JOB) -> SiteRuntime:
    return SiteRuntime("siemens", job, config)


def files_of(runtime: SiteRuntime) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in runtime.directory.iterdir()}


def cohort_with(folder, change) -> None:
    """Rewrite a tiny cohort's table row by row."""
    table = folder / "cohort.csv"
    rows = list(csv.DictReader(table.open(newline="")))
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(change(row) for row in rows)


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
        for n, p in runtime.model.trained().items()
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
    assert late.store.latest().round_index == 2
    assert float(late.store.latest().moments[f"{next(iter(START))}:step"]) == 4, "the optimizer went on as well"


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
    assert other.store.latest() is None
    assert SiteRuntime("canon", JOB, config).store.latest() is None, "another site's state in the same folder"
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
    assert not (runtime.directory / "evaluation.json").exists()


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


# ---- validation before training


def test_validation_scores_the_incoming_global_with_the_sites_own_local_adapter(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    kept = runtime.kept_state()
    incoming = random_payload(runtime.contract, scale=0.5)
    found = runtime.validate(incoming, 1)
    assert same(runtime.model.values([Role.GLOBAL]), incoming)
    assert same(runtime.kept_state(), kept)
    assert set(found) == {"val_loss", "val_balanced_accuracy"}
    assert runtime.contract.check_metrics(found) == found
    # by hand, from the same model
    subjects = runtime.cohort.split("val")
    with torch.no_grad():
        logits = runtime.model.tail(runtime.source.batch(subjects, [0] * len(subjects)))
    labels = torch.tensor([subject.label for subject in subjects])
    assert found["val_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    hits = (logits.argmax(1) == labels).float()
    assert found["val_balanced_accuracy"] == pytest.approx(
        float((hits[labels == 0].mean() + hits[labels == 1].mean()) / 2)
    )
    assert runtime.validate(START, 1) != found, "another incoming adapter, another score"


def test_validation_before_a_round_ignores_what_that_round_will_train(config):
    runtime = runtime_of(config)
    before = runtime.validate(START, 0)
    runtime.train_round(START, 0)
    assert runtime.validate(START, 0) == before, "a score of round 0 is taken before round 0's training"
    assert runtime.validate(START, 1) != before


def test_validation_changes_nothing_that_is_trained(config, tmp_path):
    plain = runtime_of(config).train_round(START, 0)
    validated = runtime_of(replace(config, state_dir=tmp_path / "s", cache_dir=tmp_path / "c"))
    validated.validate(START, 0)
    assert same(validated.train_round(START, 0).tensors, plain.tensors)


def test_the_validation_loss_weighs_the_classes_as_training_does(config, monkeypatch):
    runtime = runtime_of(config)
    labels, chances = np.array([0, 1, 1]), np.array([0.2, 0.6, 0.9])
    runtime.train_subjects = runtime.train_subjects[:1] + runtime.train_subjects[1:2] * 3
    weights = np.array([2.0, 2 / 3, 2 / 3])
    expected = -(weights * np.log([0.8, 0.6, 0.9])).sum() / weights.sum()
    assert runtime._balanced_loss(labels, chances) == pytest.approx(expected)
    assert math.isfinite(runtime._balanced_loss(np.array([1]), np.array([0.0]))), "a probability of 0 has no log"


@pytest.mark.parametrize(
    ("change", "expected", "reason"),
    [
        (lambda row: {**row, "split": "train" if row["split"] == "val" else row["split"]}, set(), "no subject"),
        (
            lambda row: {**row, "label": "1" if row["split"] == "val" else row["label"]},
            {"val_loss"},
            "one class: a balanced accuracy would be invented",
        ),
    ],
)
def test_validation_says_only_what_is_defined(config, tmp_path, change, expected, reason):
    folder = write_tiny_cohort(tmp_path / "cohort", "siemens", 0)
    cohort_with(folder, change)
    assert set(runtime_of(replace(config, data_dir=folder)).validate(START, 0)) == expected, reason


# ---- evaluation


def test_evaluation_scores_every_variant_and_keeps_predictions_private(config):
    runtime = runtime_of(config)
    update = runtime.train_round(START, 0)
    found = runtime.evaluate(update.tensors)
    metrics = ("balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc")
    expected = {f"{variant}.{metric}" for variant in ("backbone", "global", "local", "both") for metric in metrics}
    assert set(found) == expected | {"n_subjects", "n_positive", "n_negative"}
    assert (found["n_subjects"], found["n_positive"], found["n_negative"]) == (2, 1, 1)
    assert runtime.contract.check_metrics(found) == found
    path = runtime.directory / "evaluation.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime.directory.stat().st_mode) == 0o700
    stored = json.loads(path.read_text())
    assert stored["not_for_diagnosis"] is True
    subjects = runtime.cohort.split("test")
    assert [row["subject"] for row in stored["predictions"]] == [subject.subject for subject in subjects]
    assert all(set(row) == {"subject", "label", "backbone", "global", "local", "both"} for row in stored["predictions"])


def test_variants_are_the_trained_model_with_adapters_switched_off(config):
    runtime = runtime_of(config)
    state = random_payload(runtime.contract, scale=0.5)
    runtime.train_round(state, 0)
    runtime.evaluate(state)
    rows = json.loads((runtime.directory / "evaluation.json").read_text())["predictions"]
    values = runtime.model.values(TRAINED)
    test = runtime.cohort.split("test")
    for variant, off in (("both", ""), ("global", "local_b"), ("local", "global_b")):
        zeroed = {n: v * 0 if off and n.endswith(off) else v for n, v in values.items()}
        runtime.model.load_values(TRAINED, zeroed)
        with torch.no_grad():
            logits = runtime.model.tail(runtime.source.batch(test, [0] * len(test)))
        expected = torch.softmax(logits, 1)[:, 1].tolist()
        assert [row[variant] for row in rows] == pytest.approx(expected, abs=1e-5), variant


def test_evaluation_uses_the_newest_local_state(config):
    runtime = runtime_of(config)
    for round_index in range(2):
        runtime.train_round(START, round_index)
    kept = runtime.kept_state()
    later = runtime_of(config)
    later.evaluate(START)
    assert same(later.kept_state(), kept)


def test_evaluation_without_test_subjects_counts_none(config, tmp_path):
    folder = write_tiny_cohort(tmp_path / "cohort", "siemens", 0)
    cohort_with(folder, lambda row: {**row, "split": "val" if row["split"] == "test" else row["split"]})
    found = runtime_of(replace(config, data_dir=folder)).evaluate(START)
    assert found == {"n_subjects": 0.0}


def test_fedavg_keeps_nothing_but_the_optimizer(config):
    job = JOB.with_overrides(["method=fedavg-lora"])
    start = initial_global_state(job)
    runtime = runtime_of(config, job)
    update = runtime.train_round(start, 0)
    assert set(update.tensors) == set(start)
    assert any("pred_head_dict" in name for name in start)
    state = runtime.store.latest()
    assert state.kept == {}
    assert state.moments
    assert "local.auroc" in runtime.evaluate(update.tensors)


# ---- what a site refuses


@pytest.mark.parametrize(
    ("label", "message", "reason"),
    [
        ("1", r"0 healthy and 6 diseased.*training needs both classes", "no healthy subject"),
        ("0", r"6 healthy and 0 diseased.*check cohort\.csv", "no diseased subject"),
    ],
)
def test_a_cohort_of_one_class_is_refused(config, tmp_path, label, message, reason):
    folder = write_tiny_cohort(tmp_path / "cohort", "siemens", 0)
    cohort_with(folder, lambda row: {**row, "label": label if row["split"] == "train" else row["label"]})
    with pytest.raises(CohortError, match=message):
        runtime_of(replace(config, data_dir=folder))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"backbone_checkpoint": "missing.safetensors"}, CheckpointError, "cannot be read: No such file"),
        ({"backbone_checkpoint": ""}, CheckpointError, "cannot be read: Is a directory"),
        ({"backbone_checkpoint": None}, CheckpointError, "no checkpoint is shipped for backbone 'cinema-tiny'"),
        ({"data_dir": "nowhere"}, CohortError, r"cohort\.csv does not exist"),
    ],
)
def test_unusable_site_settings_are_refused(config, tmp_path, change, error, message):
    change = {name: tmp_path / value if isinstance(value, str) else value for name, value in change.items()}
    with pytest.raises(error, match=message):
        runtime_of(replace(config, **change))


def test_unusable_jobs_are_refused(config):
    with pytest.raises(ConfigError, match=r"lora\.n_blocks = 9"):
        runtime_of(config, JOB.with_overrides(["lora.n_blocks=9"]))


@pytest.mark.parametrize(
    ("incoming", "message", "reason"),
    [
        (lambda s: {**s, "extra": np.zeros(1)}, "extra is unexpected", "an extra tensor"),
        (lambda s: dict(list(s.items())[1:]), "is missing", "a missing tensor"),
    ],
)
def test_a_global_state_that_does_not_fit_is_refused(config, incoming, message, reason):
    with pytest.raises(ValueError, match=message):
        runtime_of(config).train_round(incoming(START), 0)


@pytest.mark.parametrize(
    ("name", "n_devices", "expected", "reason"),
    [
        ("cpu", 0, "cpu", "as said"),
        ("cpu", 1, "cpu", "also where a GPU is"),
        ("auto", 0, "cpu", "no GPU"),
        ("auto", 1, "cuda", "the GPU"),
        ("cuda", 1, "cuda", "as said"),
        ("cuda:1", 2, "cuda:1", "the second of two"),
    ],
)
def test_devices(monkeypatch, name, n_devices, expected, reason):
    monkeypatch.setattr(site_module.torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(site_module.torch.cuda, "device_count", lambda: n_devices)
    assert resolve_device(name) == torch.device(expected), reason


@pytest.mark.parametrize(
    ("name", "n_devices", "message"),
    [
        ("cuda", 0, "device = 'cuda', but this machine has no usable CUDA device; use cpu or auto"),
        ("cuda:0", 0, "device = 'cuda:0', but this machine has no usable CUDA device"),
        ("cuda:2", 2, r"device = 'cuda:2', but this machine has 2 CUDA device\(s\)"),
    ],
)
def test_devices_that_are_not_there_are_refused_and_not_replaced(monkeypatch, config, name, n_devices, message):
    monkeypatch.setattr(site_module.torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(site_module.torch.cuda, "device_count", lambda: n_devices)
    with pytest.raises(ConfigError, match=message):
        runtime_of(replace(config, device=name))
