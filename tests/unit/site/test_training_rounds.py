import hashlib
import math

import numpy as np
import pytest
import torch
from torch import nn

from med_duallora.adapter.roles import GLOBAL, Role
from med_duallora.errors import TrainingDiverged, UnfitError
from med_duallora.settings.config import TrainConfig
from med_duallora.site import training
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.training import learning_rate, train_round
from med_duallora.support.devices import autocast
from tests.unit.tiny import TRAINED, digest, same, shake
from tests.unit.trainee import predicted, trainee

NAME = "classifier.encoder.blocks.2.attn.q.global_a"


# ---- continuing


def continuous_reference(subjects, n_rounds: int) -> dict[str, np.ndarray]:
    """The same rounds with one optimizer that lives through all of them, written out naively."""
    it = trainee()
    settings = it.job.train
    parameters = it.model.trained()
    sent = it.model.of_roles(GLOBAL)
    groups = [sent.values(), [value for name, value in parameters.items() if name not in sent]]
    optimizer = torch.optim.AdamW(
        [{"params": group} for group in groups], betas=settings.betas, weight_decay=settings.weight_decay
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    it.model.train()
    for round_index in range(n_rounds):
        batches = list(training._batches(len(subjects), settings, "philips", round_index))
        for step, (indices, views) in enumerate(batches):
            progress = (round_index + step / len(batches)) / settings.n_rounds
            optimizer.param_groups[0]["lr"] = learning_rate(progress, settings)
            optimizer.param_groups[1]["lr"] = learning_rate(progress, settings) * settings.local_lr_factor
            chosen = [subjects[index] for index in indices]
            labels = torch.tensor([subject.label for subject in chosen])
            optimizer.zero_grad()
            criterion(it.model.tail(it.source.batch(chosen, views)), labels).backward()
            nn.utils.clip_grad_norm_(parameters.values(), settings.clip_norm)
            optimizer.step()
    return it.model.values(TRAINED)


def rebuilt(subjects, n_rounds: int, keep_moments: bool) -> dict[str, np.ndarray]:
    """The same rounds as a site runs them: model and optimizer are built anew in every round."""
    values: dict[str, np.ndarray] = {}
    moments: dict[str, np.ndarray] = {}
    for round_index in range(n_rounds):
        it = trainee()
        if values:
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
    cache = FeatureCache(tmp_path, 2**26, bytes(32))
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


# ---- precision and numbers that are not finite


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_float32_parameters(subjects, precision):
    exact, reduced = trainee(), trainee(f"train.precision={precision}")
    for it in (exact, reduced):
        shake(it.model, [Role.HEAD])  # heads that start at zero would hide what lies before them
    expected, found = exact.train(subjects), reduced.train(subjects)
    assert found.loss != expected.loss
    assert found.loss == pytest.approx(expected.loss, abs=0.02)
    assert all(value.dtype == torch.float32 for value in reduced.model.parameters())
    assert all(np.isfinite(value).all() for value in reduced.model.values(TRAINED).values())
    probabilities = predicted(reduced.model, reduced.source, subjects, reduced.job.train, reference=subjects)
    assert probabilities.dtype == np.float64
    plain = predicted(reduced.model, reduced.source, subjects, exact.job.train, reference=subjects)
    assert np.allclose(probabilities, plain, atol=0.02)


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
    autocast(torch.device(device), precision)
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
    ("parameter", "values"),
    [
        (NAME, (math.nan,)),
        (NAME, (math.inf,)),
        # Near the largest float32: their difference, which the loss takes, overflows on every machine.
        ("classifier.pred_head_dict.{}.bias", (3e38, -3e38)),
    ],
    ids=["NaN", "infinity", "finite logits whose loss is not"],
)
def test_a_loss_that_is_not_finite_is_an_error_and_never_a_step(subjects, monkeypatch, precision, parameter, values):
    it = trainee(f"train.precision={precision}")
    shake(it.model)
    for head in ("sax", "cls"):
        it.model.get_parameter(parameter.format(head)).data[:] = torch.tensor(values)
    stepped = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_, **__: stepped.append(1))
    with pytest.raises(TrainingDiverged, match=r"not finite; lower train\.lr"):
        it.train(subjects)
    assert not stepped


def test_a_gradient_that_is_not_finite_is_an_error(subjects, monkeypatch):
    it = trainee()
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.inf))
    with pytest.raises(TrainingDiverged):
        it.train(subjects)


def test_one_class_cannot_be_trained(subjects):
    with pytest.raises(UnfitError, match="training needs both classes, and there are 0 normal"):
        trainee().train([subject for subject in subjects if subject.label])
