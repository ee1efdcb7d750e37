import json
import math
import stat
from dataclasses import replace

import numpy as np
import pytest
import torch

from med_duallora.adapter.model import initial_global_state
from med_duallora.adapter.roles import GLOBAL
from med_duallora.settings.config import SiteConfig
from med_duallora.site.prediction import balanced_loss
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import TRAINED, random_payload, same
from tests.unit.tiny_site import JOB, START, cohort_with, runtime_of


@pytest.fixture
def config(tiny_sites) -> SiteConfig:
    return tiny_sites["siemens"]


# ---- validation before training


def test_validation_scores_the_incoming_global_with_the_sites_own_local_adapter(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    kept = runtime.kept_state()
    incoming = random_payload(runtime.contract, scale=0.1)
    found = runtime.validate(incoming, 1)
    assert same(runtime.model.network.values(GLOBAL), incoming)
    assert same(runtime.kept_state(), kept)
    assert set(found) == {"val_loss", "val_balanced_accuracy"}
    assert runtime.contract.check_metrics(found) == found
    # by hand, from the same model
    subjects = runtime.cohort.split("val")
    with torch.no_grad():
        logits = runtime.model.network.tail(runtime.model.source.batch(subjects, [0] * len(subjects)))
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
    update = runtime.train_round(START, 0)
    assert runtime.validate(START, 0) == before, "a score of round 0 is taken before round 0's training"
    assert runtime.validate(update.tensors, 1) != before


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
    assert balanced_loss(labels, chances, runtime._class_weights()) == pytest.approx(expected)
    assert math.isfinite(balanced_loss(np.array([1]), np.array([0.0]), (1.0, 1.0))), "a probability of 0 has no log"


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
    variants = ("backbone", "global", "local", "both", "chosen")
    expected = {f"{variant}.{metric}" for variant in variants for metric in metrics}
    assert set(found) == expected | {"n_test_subjects", "n_positive", "n_negative", "choice", "joining_helped"}
    assert (found["n_test_subjects"], found["n_positive"], found["n_negative"]) == (2, 1, 1)
    assert runtime.contract.check_metrics(found) == found
    path = runtime.model.directory / "predictions.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(runtime.model.directory.stat().st_mode) == 0o700
    stored = json.loads(path.read_text())
    assert stored["not_for_diagnosis"] is True
    subjects = runtime.cohort.split("test")
    assert [row["subject"] for row in stored["predictions"]] == [subject.subject for subject in subjects]
    assert all(set(row) == {"subject", "label", *variants} for row in stored["predictions"])


def test_variants_are_the_trained_model_with_adapters_switched_off(config):
    runtime = runtime_of(config)
    state = random_payload(runtime.contract, scale=0.5)
    runtime.train_round(state, 0)
    runtime.evaluate(state)
    rows = json.loads((runtime.model.directory / "predictions.json").read_text())["predictions"]
    values = runtime.model.network.values(TRAINED)
    test = runtime.cohort.split("test")
    for variant, off in (("both", ""), ("global", "local_b"), ("local", "global_b")):
        of_blocks = {name for name in values if ".blocks." in name and off and name.endswith(off)}
        zeroed = {name: value * 0 if name in of_blocks else value for name, value in values.items()}
        runtime.model.network.load_values(TRAINED, zeroed)
        with torch.no_grad():
            train = runtime.model.source.batch(runtime.train_subjects, [0] * len(runtime.train_subjects))
            runtime.model.network.head_norm.fit(runtime.model.network.summaries(train))
            logits = runtime.model.network.tail(runtime.model.source.batch(test, [0] * len(test)))
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
    assert found == {"n_test_subjects": 0.0, "n_positive": 0.0, "n_negative": 0.0, "choice": 0.0}


def test_fedavg_keeps_nothing_but_the_optimizer(config):
    job = JOB.with_overrides(["method=fedavg-lora"])
    start = initial_global_state(job)
    runtime = runtime_of(config, job)
    update = runtime.train_round(start, 0)
    assert set(update.tensors) == set(start)
    assert any("pred_head_dict" in name for name in start)
    state = runtime.model.store.latest()
    assert state.kept == {}
    assert state.moments
    assert "local.auroc" in runtime.evaluate(update.tensors)
