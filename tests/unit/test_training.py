import hashlib
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from med_duallora import training
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.config import JobConfig, LoRAConfig, TrainConfig
from med_duallora.errors import ConfigError, TrainingAborted, TrainingDiverged
from med_duallora.features import FeatureCache, FeatureSource
from med_duallora.model import DualLoRAModel
from med_duallora.names import Role
from med_duallora.training import RoundResult, class_weights, learning_rate, predict, train_round

from .tiny import TRAINED, digest, same, shake, tiny_model

JOB = JobConfig(backbone="cinema-tiny").with_overrides(
    ["train.n_rounds=4", "train.local_epochs=1", "train.batch_size=4", "train.n_views=1"]
)
NAME = "classifier.encoder.blocks.2.attn.q.global_a"


@pytest.fixture(scope="module")
def subjects(tiny_cohorts):
    return PreparedCohort.read(tiny_cohorts["philips"]).split("train")


@dataclass
class Trainee:
    """A model with its features, trained round by round."""

    model: DualLoRAModel
    source: FeatureSource
    job: JobConfig

    def train(self, subjects, round_index: int = 0, moments=None, **options) -> RoundResult:
        return train_round(
            self.model,
            self.source,
            subjects,
            job=self.job,
            site="philips",
            round_index=round_index,
            moments=moments or {},
            **options,
        )


def trainee(*assignments: str, cache: FeatureCache | None = None) -> Trainee:
    job = JOB.with_overrides(assignments)
    model = tiny_model(job.lora, job.train.seed, job.train.drop_path)
    return Trainee(model, FeatureSource(model, job, "0" * 64, cache), job)


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
        (0.0, 0.01 * 2e-3, "the first step trains a little, not at 0"),
        (0.05, 1e-3, "half of the warm-up"),
        (0.1, 2e-3, "the peak"),
        (0.55, (2e-3 + 1e-5) / 2, "half of the cosine"),
        (0.325, 1e-5 + (2e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi / 4)), "a quarter of the cosine"),
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
    assert learning_rate(0.0, TrainConfig(warmup_fraction=0.0)) == 2e-3


def test_a_round_uses_the_schedule(subjects):
    seen = []
    for round_index in range(4):
        trainee().train(subjects, round_index, on_progress=seen.append)
    assert [entry["lr"] for entry in seen] == rates(JOB.train, n_steps=2)
    assert [entry["step"] for entry in seen] == [1.0, 2.0] * 4
    assert all(set(entry) == {"loss", "lr", "step"} for entry in seen)


# ---- class weights


@pytest.mark.parametrize(
    ("n_healthy", "n_diseased", "threshold", "expected", "reason"),
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
def test_class_weights(n_healthy, n_diseased, threshold, expected, reason):
    labels = [0] * n_healthy + [1] * n_diseased
    found = class_weights(labels, threshold)
    assert found == pytest.approx(expected), reason
    if found != (1.0, 1.0):
        assert n_healthy * found[0] == pytest.approx(n_diseased * found[1]), "both classes count alike in the sum"


@pytest.mark.parametrize(
    ("labels", "message"),
    [([1, 1], "0 healthy and 2 diseased"), ([0], "1 healthy and 0 diseased"), ([], "0 healthy and 0 diseased")],
)
def test_a_missing_class_has_no_weight(labels, message):
    with pytest.raises(ConfigError, match=message):
        class_weights(labels, 1.2)


def test_training_uses_the_class_weights_and_label_smoothing(subjects, monkeypatch):
    made = []
    plain = nn.CrossEntropyLoss
    monkeypatch.setattr(training.nn, "CrossEntropyLoss", lambda **options: made.append(options) or plain(**options))
    diseased = [subject for subject in subjects if subject.label]
    healthy = [subject for subject in subjects if not subject.label]
    trainee("train.label_smoothing=0.3").train([*diseased, healthy[0]])
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


@pytest.mark.parametrize("adapter", ["global", "local"])
def test_both_adapters_get_gradients(subjects, adapter):
    it = trainee()
    it.train(subjects)
    trained = [value for name, value in it.model.values(TRAINED).items() if f"{adapter}_b" in name]
    assert len(trained) == 4
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
    chances = predict(it.model, it.source, subjects, it.job.train)
    assert ((chances > 0.5) == [subject.label == 1 for subject in subjects]).all()


def test_the_result_counts_subjects_and_steps(subjects):
    it = trainee("train.local_epochs=3", "train.batch_size=4")
    seen = []
    result = it.train(subjects, on_progress=seen.append)
    assert result.n_steps == 3 * 2
    assert result.loss == pytest.approx(np.average([e["loss"] for e in seen], weights=[4, 2] * 3))


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


@pytest.mark.parametrize("clip", [1e-3, 5.0])
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
    plain = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **kw: made.append(kw) or plain(*args, **kw))
    trainee("train.weight_decay=0.3", "train.betas=[0.8,0.9]").train(subjects)
    assert made == [{"lr": 2e-3, "betas": (0.8, 0.9), "weight_decay": 0.3}]


# ---- continuing


def continuous_reference(subjects, n_rounds: int) -> dict[str, np.ndarray]:
    """The same rounds with one optimizer that lives through all of them, written out naively."""
    it = trainee()
    settings = it.job.train
    parameters = it.model.trained()
    optimizer = torch.optim.AdamW(parameters.values(), betas=settings.betas, weight_decay=settings.weight_decay)
    criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    it.model.train()
    for round_index in range(n_rounds):
        batches = list(training._batches(len(subjects), settings, "philips", round_index))
        for step, (indices, views) in enumerate(batches):
            progress = (round_index + step / len(batches)) / settings.n_rounds
            optimizer.param_groups[0]["lr"] = learning_rate(progress, settings)
            chosen = [subjects[index] for index in indices]
            labels = torch.tensor([subject.label for subject in chosen])
            optimizer.zero_grad()
            criterion(it.model.tail(it.source.batch(chosen, views)), labels).backward()
            nn.utils.clip_grad_norm_(parameters.values(), settings.clip_norm)
            optimizer.step()
    return it.model.values(TRAINED)


def rebuilt(subjects, n_rounds: int, keep_moments: bool) -> dict[str, np.ndarray]:
    """The same rounds as a site runs them: model and optimizer are built anew in every round."""
    values, moments = None, {}
    for round_index in range(n_rounds):
        it = trainee()
        if values is not None:
            it.model.load_values(TRAINED, values)
        result = it.train(subjects, round_index, moments)
        values, moments = it.model.values(TRAINED), result.moments if keep_moments else {}
    return values


def test_rounds_with_a_rebuilt_optimizer_equal_one_continuous_optimizer(subjects):
    expected = continuous_reference(subjects, 3)
    assert same(rebuilt(subjects, 3, keep_moments=True), expected), "bit for bit"
    reset = rebuilt(subjects, 3, keep_moments=False)
    assert max(np.abs(reset[name] - expected[name]).max() for name in expected) > 1e-4, "lost moments would show"


def test_moments_are_those_of_everything_that_trains(subjects):
    it = trainee()
    moments = it.train(subjects).moments
    assert set(moments) == {f"{n}:{kind}" for n in it.model.trained() for kind in ("exp_avg", "exp_avg_sq", "step")}
    assert all(float(value) == 2 for name, value in moments.items() if name.endswith(":step"))
    again = trainee().train(subjects, 1, moments).moments
    assert all(float(value) == 4 for name, value in again.items() if name.endswith(":step"))


def test_moments_are_copies(subjects):
    moments = trainee().train(subjects).moments
    kept = {name: value.copy() for name, value in moments.items()}
    trainee().train(subjects, 1, moments)
    assert same(moments, kept)


def test_incomplete_moments_are_refused(subjects):
    moments = trainee().train(subjects).moments
    del moments[f"{NAME}:exp_avg"]
    with pytest.raises(KeyError, match="exp_avg"):
        trainee().train(subjects, 1, moments)


# ---- repeating


def digest_of_run(subjects, *assignments: str, site_noise: bool = False) -> str:
    it = trainee(*assignments)
    if site_noise:
        torch.manual_seed(123)
        torch.rand(7)
        np.random.seed(5)
    result = it.train(subjects, 1)
    return hashlib.sha256(digest(it.model.trained()).encode() + repr(result.loss).encode()).hexdigest()


@pytest.mark.parametrize("assignment", ["train.drop_path=0", "train.drop_path=0.5", "train.precision=bf16"])
def test_the_same_seed_repeats_bit_for_bit(subjects, assignment):
    first = digest_of_run(subjects, assignment)
    assert digest_of_run(subjects, assignment, site_noise=True) == first, "whatever ran in this process before"
    assert digest_of_run(subjects, assignment, "train.seed=1") != first


@pytest.mark.parametrize(("site", "round_index"), [("ge", 1), ("philips", 2)])
def test_other_sites_and_rounds_draw_differently(site, round_index):
    settings = TrainConfig(batch_size=50, n_views=3, local_epochs=1)
    ((order, views),) = training._batches(50, settings, "philips", 1)
    ((other_order, other_views),) = training._batches(50, settings, site, round_index)
    assert order != other_order
    assert views != other_views
    assert sorted(order) == sorted(other_order)


def test_every_epoch_draws_anew():
    settings = TrainConfig(batch_size=50, n_views=3, local_epochs=2)
    (order, views), (other_order, other_views) = training._batches(50, settings, "philips", 1)
    assert order != other_order
    assert views != other_views


def test_stochastic_depth_draws_anew_for_every_site_and_round(subjects, monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    it = trainee()
    for site, round_index in (("philips", 0), ("philips", 1), ("ge", 0)):
        train_round(it.model, it.source, subjects, job=it.job, site=site, round_index=round_index, moments={})
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_cached_features_train_as_computed_ones(subjects, tmp_path, dtype):
    options = (f"train.feature_dtype={dtype}", "train.drop_path=0.3", "train.n_views=2", "train.local_epochs=2")
    cache = FeatureCache(tmp_path, 2**26)
    runs = []
    for each in (None, cache, cache):
        it = trainee(*options, cache=each)
        losses = []
        it.train(subjects, on_progress=lambda entry, losses=losses: losses.append(entry["loss"]))
        runs.append((losses, it.model.values(TRAINED)))
    assert cache.n_hits >= cache.n_misses > 0, "the third run reads what the second wrote"
    for losses, values in runs[1:]:
        assert losses == runs[0][0]
        assert same(values, runs[0][1])


# ---- stopping


@pytest.mark.parametrize("n_allowed", range(8))
def test_stopping_takes_effect_at_the_next_question(subjects, monkeypatch, n_allowed):
    """Two batches of 4 and 2 subjects: a question before each subject, and one between loss and step."""
    steps, asked = [], itertools.count(1)
    monkeypatch.setattr(training, "_step", lambda *_: steps.append(1))
    n_asked = []

    def should_stop() -> bool:
        n_asked.append(next(asked))
        return n_asked[-1] > n_allowed

    with pytest.raises(TrainingAborted):
        trainee().train(subjects, 2, should_stop=should_stop)
    assert len(n_asked) == n_allowed + 1, "nothing more is asked or done"
    assert len(steps) == (1 if n_allowed >= 5 else 0), "a batch that was stopped is not stepped"


def test_a_round_that_is_not_stopped_asks_within_every_batch(subjects):
    asked = []
    trainee().train(subjects, should_stop=lambda: bool(asked.append(1)))
    assert len(asked) == (4 + 1) + (2 + 1)


def test_predictions_stop_too(subjects):
    it = trainee()
    asked = iter([False, False, True])
    with pytest.raises(TrainingAborted):
        predict(it.model, it.source, subjects, it.job.train, lambda: next(asked))


# ---- precision and numbers that are not finite


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_float32_parameters(subjects, precision):
    exact, reduced = trainee(), trainee(f"train.precision={precision}")
    expected, found = exact.train(subjects), reduced.train(subjects)
    assert found.loss != expected.loss
    assert found.loss == pytest.approx(expected.loss, abs=0.02)
    assert all(value.dtype == torch.float32 for value in reduced.model.parameters())
    assert all(np.isfinite(value).all() for value in reduced.model.values(TRAINED).values())
    probabilities = predict(reduced.model, reduced.source, subjects, reduced.job.train)
    assert probabilities.dtype == np.float64
    assert np.allclose(probabilities, predict(reduced.model, reduced.source, subjects, exact.job.train), atol=0.02)


@pytest.mark.parametrize(
    ("case", "in_hardware", "dtype", "reason"),
    [
        (("cpu", "auto"), True, None, "no CUDA device"),
        (("cuda", "auto"), True, torch.bfloat16, "the device has bf16"),
        (("cuda", "auto"), False, None, "an older device emulates it, slower than fp32"),
        (("cuda", "fp32"), True, None, "as said"),
        (("cuda", "fp16"), True, torch.float16, "as said"),
        (("cpu", "bf16"), False, torch.bfloat16, "as said"),
    ],
)
def test_autocast(monkeypatch, case, in_hardware, dtype, reason):
    device, precision = case
    made = []
    monkeypatch.setattr(torch, "autocast", lambda kind, **options: made.append({"device": kind, **options}))
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or in_hardware
    )
    training.autocast(torch.device(device), precision)
    assert made == [{"device": device, "dtype": dtype or torch.float32, "enabled": dtype is not None}], reason


def test_auto_is_full_precision_without_a_gpu(subjects):
    one, other = trainee("train.precision=auto"), trainee("train.precision=fp32")
    assert one.train(subjects).loss == other.train(subjects).loss
    assert same(one.model.values(TRAINED), other.model.values(TRAINED))


def test_fp16_keeps_its_loss_scale_between_rounds(subjects):
    it = trainee("train.precision=fp16")
    moments = it.train(subjects).moments
    assert moments[":scale"] == 65536
    assert moments[":_growth_tracker"] == 2
    again = it.train(subjects, 1, moments | {":scale": np.array(1024.0)}).moments
    assert again[":scale"] == 1024, "a scale that was found is not searched for again in every round"
    assert again[":_growth_tracker"] == 4


def test_fp16_survives_a_round_in_which_every_step_overflows(subjects):
    it = trainee("train.precision=fp16")
    shake(it.model)
    before = it.model.values(TRAINED)
    result = it.train(subjects, 0, {":scale": np.array(2.0**60), ":_growth_tracker": np.array(0)})
    assert same(it.model.values(TRAINED), before), "no step was taken"
    assert set(result.moments) == {":scale", ":_growth_tracker"}
    assert result.moments[":scale"] == 2.0**58, "the scale was halved twice"
    assert np.isfinite(it.train(subjects, 1, result.moments).loss)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [(math.nan, "NaN"), (math.inf, "infinity"), (1e30, "finite numbers whose products are not")],
)
def test_a_loss_that_is_not_finite_is_an_error_and_never_a_step(subjects, monkeypatch, precision, value, reason):
    it = trainee(f"train.precision={precision}")
    shake(it.model)
    it.model.get_parameter(NAME).data.fill_(value)
    stepped = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: stepped.append(1))
    with pytest.raises(TrainingDiverged, match=r"not finite; lower train\.lr"):
        it.train(subjects)
    assert not stepped, reason


def test_a_gradient_that_is_not_finite_is_an_error(subjects, monkeypatch):
    it = trainee()
    monkeypatch.setattr(training.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(TrainingDiverged):
        it.train(subjects)


def test_one_class_cannot_be_trained(subjects):
    with pytest.raises(ConfigError, match="both needed"):
        trainee().train([subject for subject in subjects if subject.label])


# ---- predictions


def test_predictions_are_of_view_0_in_evaluation_mode_and_do_not_depend_on_the_batch(subjects):
    it = trainee("train.drop_path=0.5")
    shake(it.model)
    it.model.train()
    found = predict(it.model, it.source, subjects, it.job.train)
    assert not it.model.training
    with torch.no_grad():
        for subject, chance in zip(subjects, found, strict=True):
            logits = it.model.tail(it.source.batch([subject], [0]))
            assert chance == pytest.approx(float(torch.softmax(logits, 1)[0, 1]), abs=1e-6)
    assert ((found >= 0) & (found <= 1)).all()
    assert predict(it.model, it.source, [], it.job.train).shape == (0,)


def test_no_gradient_is_kept_by_predictions(subjects):
    it = trainee()
    predict(it.model, it.source, subjects, it.job.train)
    assert all(parameter.grad is None for parameter in it.model.parameters())


def test_a_job_without_a_local_adapter_trains(subjects):
    it = trainee("lora.rank_local=0")
    assert it.job.lora == LoRAConfig(rank_local=0)
    assert np.isfinite(it.train(subjects).loss)
