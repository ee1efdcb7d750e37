import math

import numpy as np
import pytest
import torch
from torch import nn

from med_duallora.adapter.roles import LOCAL, Role
from med_duallora.errors import UnfitError
from med_duallora.settings.config import TrainConfig
from med_duallora.site.features import FeatureSource
from med_duallora.site.training import class_weights, learning_rate
from med_duallora.support.adamw import AdamW
from tests.unit.tiny import TRAINED, digest, shake
from tests.unit.trainee import JOB, predicted, trainee

# ---- schedule


def rates(settings: TrainConfig, n_steps: int = 10) -> list[float]:
    return [
        learning_rate((round_index + step / n_steps) / settings.n_rounds, settings)
        for round_index in range(settings.n_rounds)
        for step in range(n_steps)
    ]


@pytest.mark.parametrize(
    ("progress", "expected", "reason"),
    [
        (0.0, 0.01 * 5e-3, "the first step trains a little, not at 0"),
        (0.05, 2.5e-3, "half of the warm-up"),
        (0.1, 5e-3, "the peak"),
        (0.55, (5e-3 + 1e-5) / 2, "half of the cosine"),
        (0.325, 1e-5 + (5e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi / 4)), "a quarter of the cosine"),
        (1.0, 1e-5, "the end"),
    ],
)
def test_learning_rate_over_the_federation(progress, expected, reason):
    assert learning_rate(progress, TrainConfig()) == pytest.approx(expected, rel=1e-12), reason


def test_the_schedule_spans_the_rounds_without_a_jump():
    settings = TrainConfig(n_rounds=12)
    values = rates(settings)
    steps = np.abs(np.diff(values))
    assert steps.max() <= settings.lr / 12 + 1e-12, "no step is larger than the warm-up's (120 steps, a tenth of them)"
    peak = int(np.argmax(values))
    assert peak == 12, "warm-up ends after a tenth of all steps, in the second round"
    assert (np.diff(values[: peak + 1]) > 0).all()
    assert (np.diff(values[peak:]) < 0).all(), "no restart at any round"
    assert values[-1] == pytest.approx(settings.min_lr, abs=settings.lr * 1e-3)


def test_without_warm_up_the_schedule_begins_at_the_peak():
    assert learning_rate(0.0, TrainConfig(warmup_fraction=0.0)) == 5e-3


def test_a_round_uses_the_schedule(subjects):
    seen = []
    for round_index in range(4):
        trainee().train(subjects, round_index, on_progress=seen.append)
    assert [entry["lr"] for entry in seen] == rates(JOB.train, n_steps=2)
    assert [entry["step"] for entry in seen] == [1.0, 2.0] * 4
    assert all(set(entry) == {"loss", "lr", "step"} for entry in seen)


# ---- class weights


@pytest.mark.parametrize(
    ("n_normal", "n_diseased", "threshold", "expected", "reason"),
    [
        (10, 10, 1.2, (1.0, 1.0), "balanced"),
        (10, 12, 1.2, (1.0, 1.0), "an imbalance of exactly the threshold does not exceed it"),
        (10, 13, 1.2, (23 / 20, 23 / 26), "just above: inverse frequency"),
        (13, 10, 1.2, (23 / 26, 23 / 20), "the other way round"),
        (1, 3, 1.2, (2.0, 2 / 3), "the rare class counts more"),
        (1, 3, 3.0, (1.0, 1.0), "a threshold that is not exceeded"),
        (2, 3, 1.0, (5 / 4, 5 / 6), "threshold 1: always, where the classes differ"),
    ],
)
def test_class_weights(n_normal, n_diseased, threshold, expected, reason):
    labels = [0] * n_normal + [1] * n_diseased
    found = class_weights(labels, threshold)
    assert found == pytest.approx(expected), reason
    if found != (1.0, 1.0):
        assert n_normal * found[0] == pytest.approx(n_diseased * found[1]), "both classes count alike in the sum"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 1], r"0 normal \(NOR\) and 2 diseased"),
        ([0], r"1 normal \(NOR\) and 0 diseased"),
        ([], r"0 normal \(NOR\) and 0 diseased"),
    ],
)
def test_a_missing_class_has_no_weight(labels, message):
    with pytest.raises(UnfitError, match=message):
        class_weights(labels, 1.2)


def test_training_uses_the_class_weights_and_label_smoothing(subjects, monkeypatch):
    made = []
    plain = nn.CrossEntropyLoss
    monkeypatch.setattr(nn, "CrossEntropyLoss", lambda **options: made.append(options) or plain(**options))
    diseased = [subject for subject in subjects if subject.label]
    normal = [subject for subject in subjects if not subject.label]
    trainee("train.label_smoothing=0.3").train([*diseased, normal[0]])
    assert made[0]["weight"].tolist() == pytest.approx([2.0, 2 / 3])
    assert made[0]["label_smoothing"] == 0.3


# ---- what a round changes


def test_only_adapters_and_heads_change(subjects):
    it = trainee('lora.targets=["q","kv","proj","fc1","fc2"]')
    frozen, before = digest(it.model.of_roles([Role.FROZEN])), it.model.values(TRAINED)
    moments = it.train(subjects).moments
    it.train(subjects, 1, moments)
    assert digest(it.model.of_roles([Role.FROZEN])) == frozen, "the backbone is untouched"
    after = it.model.values(TRAINED)
    assert all((after[name] != before[name]).any() for name in before), "everything that shall train does"
    assert not it.model.training


@pytest.mark.parametrize(("adapter", "n_layers"), [("global", 4 + 2), ("local", 4)], ids=["and heads", "blocks alone"])
def test_both_adapters_get_gradients(subjects, adapter, n_layers):
    it = trainee()
    it.train(subjects)
    trained = [value for name, value in it.model.values(TRAINED).items() if f"{adapter}_b" in name]
    assert len(trained) == n_layers
    assert all(value.any() for value in trained)


def test_learning_happens(subjects):
    it = trainee("train.n_rounds=10", "train.n_views=0", "train.lr=0.02", "train.local_epochs=2")
    losses, moments = [], {}
    for round_index in range(10):
        result = it.train(subjects, round_index, moments)
        losses.append(result.loss)
        moments = result.moments
    assert losses[0] == pytest.approx(math.log(2), abs=0.15), "it starts near chance"
    assert losses[-1] < 0.4, "label smoothing .1 has its floor at .2"
    chances = predicted(it.model, it.source, subjects, it.job.train, reference=subjects)
    assert ((chances > 0.5) == [subject.label == 1 for subject in subjects]).all()


def test_the_result_counts_subjects_and_steps(subjects):
    it = trainee("train.local_epochs=3", "train.batch_size=4")
    seen = []
    result = it.train(subjects, on_progress=seen.append)
    assert result.n_steps == 3 * 2
    assert result.loss == pytest.approx(np.mean([e["loss"] for e in seen])), "six subjects are two batches of three"


def test_every_subject_is_seen_once_in_every_epoch(subjects, monkeypatch):
    it = trainee("train.local_epochs=3", "train.n_views=2", "train.n_rounds=8")
    seen = []
    plain = FeatureSource.batch

    def watched(self, chosen, views, should_stop):
        seen.extend(zip([subject.subject for subject in chosen], views, strict=True))
        return plain(self, chosen, views, should_stop)

    monkeypatch.setattr(FeatureSource, "batch", watched)
    for round_index in range(8):
        it.train(subjects, round_index)
    names = sorted(subject.subject for subject in subjects)
    epochs = [seen[start : start + 6] for start in range(0, len(seen), 6)]
    assert len(epochs) == 3 * 8
    assert all(sorted(name for name, _ in epoch) == names for epoch in epochs)
    assert len({tuple(name for name, _ in epoch) for epoch in epochs}) > 12, "in a new order"
    assert {view for _, view in seen} == {0, 1, 2}, "view 0 is among them"


@pytest.mark.parametrize("clip", [1e-3, 50.0])
def test_gradients_are_clipped(subjects, monkeypatch, clip):
    norms = []
    plain = torch.optim.AdamW.step

    def watched(self, *args, **options):
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads]))))
        return plain(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    it = trainee(f"train.clip_norm={clip}")
    shake(it.model)
    it.train(subjects)
    assert len(norms) == 2
    if clip < 1:
        assert norms == pytest.approx([clip] * 2, rel=1e-3)
    else:
        assert all(1e-2 < norm < clip for norm in norms), "gradients below the limit are left alone"


def test_training_uses_stochastic_depth_where_the_job_asks_for_it(subjects):
    plain, dropped = (trainee(f"train.drop_path={rate}").train(subjects).loss for rate in (0, 0.5))
    assert plain != dropped


def test_the_optimizer_is_adamw_with_the_jobs_settings(subjects, monkeypatch):
    made = []
    monkeypatch.setattr("med_duallora.site.optimizer.AdamW", lambda *args, **kw: made.append(kw) or AdamW(*args, **kw))
    trainee("train.weight_decay=0.3", "train.betas=[0.8,0.9]").train(subjects)
    assert made == [{"lr": 5e-3, "betas": (0.8, 0.9), "weight_decay": 0.3}]


# ---- predictions


def test_predictions_are_of_view_0_in_evaluation_mode_and_do_not_depend_on_the_batch(subjects):
    it = trainee("train.drop_path=0.5")
    shake(it.model)
    it.model.train()
    found = predicted(it.model, it.source, subjects, it.job.train, reference=subjects)
    assert not it.model.training
    with torch.no_grad():
        for subject, chance in zip(subjects, found, strict=True):
            logits = it.model.tail(it.source.batch([subject], [0]))
            assert chance == pytest.approx(float(torch.softmax(logits, 1)[0, 1]), abs=1e-6)
    assert ((found >= 0) & (found <= 1)).all()
    assert predicted(it.model, it.source, [], it.job.train, reference=subjects).shape == (0,)


def test_no_gradient_is_kept_by_predictions(subjects):
    it = trainee()
    predicted(it.model, it.source, subjects, it.job.train, reference=subjects)
    assert all(parameter.grad is None for parameter in it.model.parameters())


def test_a_job_without_a_local_adapter_trains(subjects):
    it = trainee("lora.rank_local=0")
    assert not it.model.of_roles(LOCAL)
    assert np.isfinite(it.train(subjects).loss)
