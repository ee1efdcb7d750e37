import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from med_duallora.errors import ArtifactError, CohortError, TrainingDiverged
from med_duallora.pretraining import loop
from med_duallora.pretraining.data import ViewConfig, VolumePool
from med_duallora.pretraining.loop import do_step, steps_for
from med_duallora.pretraining.run import MaeTrainer, PretrainConfig, pretrain
from med_duallora.pretraining.state import planned_steps
from tests.unit.refused import refused

TINY = PretrainConfig(preset="cinema-tiny", n_steps=6, batch_size=4, lr=3e-3)


def silent(line: str) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "key", "limit"),
    [
        ({"preset": "cinema-huge"}, "preset", "one of cinema-base, cinema-mini, cinema-tiny"),
        ({"n_steps": 0}, "n_steps", "between 1 and 1000000000"),
        ({"batch_size": 0}, "batch_size", "between 1 and 4096"),
        ({"lr": 0.0}, "lr", "above 0 and at most 1"),
        ({"clip_norm": 0.0}, "clip_norm", "above 0 and at most 1e+06"),
        ({"min_lr_fraction": 1.0}, "min_lr_fraction", "in [0, 1)"),
        ({"warmup_fraction": -0.1}, "warmup_fraction", "in [0, 1)"),
        ({"weight_decay": -1.0}, "weight_decay", "between 0 and 10"),
        ({"mask_ratio": 1.0}, "mask_ratio", "between 0 and 1"),
        ({"motion_weight": -1.0}, "motion_weight", "between 0 and 1e+06"),
        ({"precision": "fp8"}, "precision", "fp32 or bf16"),
        ({"seed": -1}, "seed", "between 0 and 2**31 - 1"),
        ({"views": ViewConfig(frames="sum")}, "views.frames", "pair or single"),
    ],
)
def test_impossible_recipe_is_refused(change, key, limit):
    with refused(f"pretrain.{key}", limit=limit):
        dataclasses.replace(TINY, **change)


def test_learning_rate_warms_up_and_falls():
    config = dataclasses.replace(TINY, n_steps=100, warmup_fraction=0.1, lr=1.0)
    rates = [config.lr_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02


def test_every_subject_is_seen_once_per_epoch(pool):
    n_left = len(MaeTrainer(TINY, pool).pool.volumes)
    # five subjects are left to train on, so four epochs are five batches of four
    seen = [index for step in range(5) for index in TINY.subjects_of(step, n_left)]
    for epoch in range(4):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == list(range(5))


def test_loss_falls_on_volumes_it_never_saw(pool, tmp_path):
    config = dataclasses.replace(TINY, n_steps=60)
    state = pretrain(config, pool, tmp_path / "run.safetensors", say=silent)
    losses = [point["held_out_loss"] for point in state.curve]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(("frames", "n_frames"), [("pair", 2), ("single", 1)])
def test_frames_are_the_models_channels(pool, frames, n_frames):
    config = dataclasses.replace(TINY, motion_weight=5.0, views=ViewConfig(frames=frames))
    trainer = MaeTrainer(config, pool)
    image, mask = trainer.batch(0)
    assert image.shape == (4, n_frames, *config.backbone.image_size)
    expected = float(trainer.model(image, mask, motion_weight=5.0).detach())
    assert do_step(trainer, 0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_seed_gives_the_same_weights(pool, tmp_path, precision):
    config = dataclasses.replace(TINY, precision=precision)
    weights = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        weights.append(pretrain(config, pool, tmp_path / "run.safetensors", say=silent).weights)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    other = pretrain(dataclasses.replace(config, seed=1), pool, tmp_path / "run.safetensors", say=silent).weights
    assert not torch.equal(other["dec_linear.weight"], weights[0]["dec_linear.weight"])


class Interrupted(Exception):
    pass


def interrupt_after(n_lines: int):
    lines = []

    def say(line: str) -> None:
        if len(lines) == n_lines:
            raise Interrupted
        lines.append(line)

    return say


def test_resumed_run_ends_with_the_uninterrupted_runs_weights_and_curve(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_INTERVAL_S", -1.0)
    whole = pretrain(TINY, pool, tmp_path / "whole.safetensors", say=silent)
    path = tmp_path / "cut.safetensors"
    with pytest.raises(Interrupted):
        pretrain(TINY, pool, path, say=interrupt_after(3))
    assert planned_steps(path) == 6
    resumed = pretrain(TINY, pool, path, resume=True, say=silent)
    assert resumed.curve == whole.curve
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in whole.weights.items())
    assert resumed.seconds > 0


def test_resuming_a_finished_run_returns_it(pool, tmp_path):
    path = tmp_path / "run.safetensors"
    done = pretrain(TINY, pool, path, say=silent)
    again = pretrain(TINY, pool, path, resume=True, say=silent)
    assert again.curve == done.curve
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in done.weights.items())


def test_run_of_another_recipe_or_data_is_not_resumed(pool, tmp_path):
    path = tmp_path / "run.safetensors"
    pretrain(TINY, pool, path, say=silent)
    with pytest.raises(ArtifactError, match=rf"another recipe: lr {TINY.lr}, now 0\.001; give the same one"):
        pretrain(dataclasses.replace(TINY, lr=1e-3), pool, path, resume=True, say=silent)
    with pytest.raises(ArtifactError, match="on other data"):
        pretrain(TINY, dataclasses.replace(pool, content="f" * 64), path, resume=True, say=silent)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, "no run to resume"),
        (lambda path: path.write_bytes(b"broken"), "damaged"),
        (lambda path: save_file({"a": torch.zeros(1)}, path), "not a pre-training run"),
    ],
    ids=["missing", "broken", "another file"],
)
def test_unusable_state_is_refused(pool, tmp_path, write, message):
    path = tmp_path / "run.safetensors"
    write(path)
    with pytest.raises(ArtifactError, match=message):
        pretrain(TINY, pool, path, resume=True, say=silent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run, _: run.update(step=99), "step 99 of 6"),
        (lambda run, _: run.update(step=-3), "step -3 of 6"),
        (lambda run, _: run.update(step="x"), "does not say what it is of"),
        (lambda run, _: run.pop("step"), "does not say what it is of"),
        (lambda run, _: run["recipe"].pop("n_steps"), "no length"),
        (lambda _, tensors: tensors.pop(next(name for name in tensors if name.startswith("exp_avg."))), "exp_avg"),
        (lambda _, tensors: tensors.update({name: torch.zeros(7, 7) for name in tensors}), "damaged"),
    ],
    ids=["beyond the end", "before the start", "a word", "no step", "no length", "a moment less", "another shape"],
)
def test_a_state_that_somebody_changed_is_refused(pool, tmp_path, change, said):
    path = tmp_path / "run.safetensors"
    pretrain(TINY, pool, path, say=silent)
    with safe_open(path, framework="pt") as stream:
        run = json.loads(stream.metadata()["run"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    change(run, tensors)
    save_file(tensors, path, metadata={"run": json.dumps(run)})
    with pytest.raises(ArtifactError, match=said):
        planned_steps(path)
        pretrain(TINY, pool, path, resume=True, say=silent)


def test_a_run_that_diverges_says_so_and_keeps_what_it_had(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_INTERVAL_S", -1.0)
    path, whole = tmp_path / "run.safetensors", MaeTrainer.loss

    def diverges(trainer, step):
        return whole(trainer, step) * (float("nan") if step == 4 else 1)

    monkeypatch.setattr(MaeTrainer, "loss", diverges)
    with pytest.raises(
        TrainingDiverged, match="step 5: the loss or its gradient is not finite; lower the learning rate"
    ):
        pretrain(TINY, pool, path, say=silent)
    with safe_open(path, framework="pt") as stream:
        assert json.loads(stream.metadata()["run"])["step"] == 4
        assert all(torch.isfinite(stream.get_tensor(name)).all() for name in stream.keys())  # noqa: SIM118


def test_a_single_subject_is_too_few(pool, tmp_path):
    lonely = VolumePool(pool.volumes[:1], pool.image_size, pool.content)
    with pytest.raises(CohortError, match="too few"):
        pretrain(TINY, lonely, tmp_path / "run.safetensors", say=silent)


def test_minutes_become_steps(pool):
    few, many = (steps_for(MaeTrainer(TINY, pool), minutes) for minutes in (1e-9, 1.0))
    assert few == 1
    assert many > 10


def test_biases_norms_and_tokens_are_not_decayed(pool):
    decayed, rest = MaeTrainer(TINY, pool).optimizer.param_groups
    assert decayed["weight_decay"] > 0
    assert rest["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    # two tokens: cls and mask
    assert sum(p.ndim > 1 for p in rest["params"]) == 2
