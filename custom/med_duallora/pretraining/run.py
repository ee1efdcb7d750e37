"""The pre-training loop: deterministic, resumable, on one machine.

Every random draw is a function of the seed and the step, so a resumed run continues exactly as it would have run.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from med_duallora.backbone.config import BackboneConfig
from med_duallora.errors import ConfigError
from med_duallora.pretraining.data import ViewConfig, VolumePool
from med_duallora.pretraining.mae import DECODERS, MaskedAutoencoder, PatchMask
from med_duallora.pretraining.state import RunState, load_state, save_state
from med_duallora.support.progress import track
from med_duallora.support.seeds import derived_seed, generator

SAVE_INTERVAL_S = 60.0
N_LOG_POINTS = 40
MAX_HELD_OUT = 12
N_TIMED_STEPS = 8


@dataclass(frozen=True)
class PretrainConfig:
    """Recipe of a pre-training run.

    Args:
        preset: the backbone.
        n_steps: optimizer steps of the whole run; the learning-rate schedule spans them.
        batch_size: volumes per step.
        lr: peak learning rate of AdamW.
        min_lr_fraction: final over peak learning rate.
        warmup_fraction: part of the steps with linear warm-up.
        weight_decay: decoupled weight decay; biases, norms and tokens have none.
        clip_norm: gradient norm limit.
        mask_ratio: part of the patches that the encoder does not see.
        norm_target: reconstruct patches of mean 0 and standard deviation 1.
        motion_weight: weight of the frames' deviations from their mean in the loss of pairs.
        precision: fp32, or bf16 for the linear layers.
        seed: of weights, order, views and masks.
        views: random changes of the volumes.
    """

    preset: str = "cinema-mini"
    n_steps: int = 1000
    batch_size: int = 16
    lr: float = 1e-3
    min_lr_fraction: float = 0.01
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    mask_ratio: float = 0.75
    norm_target: bool = False
    motion_weight: float = 1.0
    precision: str = "fp32"
    seed: int = 0
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        _check(self.preset in DECODERS, "preset", self.preset, f"one of {', '.join(DECODERS)}")
        for name, most in (("n_steps", 10**9), ("batch_size", 4096)):
            _check(1 <= getattr(self, name) <= most, name, getattr(self, name), f"between 1 and {most}")
        for name, limit in (("lr", 1), ("clip_norm", 1e6)):
            _check(0 < getattr(self, name) <= limit, name, getattr(self, name), f"above 0 and at most {limit:g}")
        for name in ("min_lr_fraction", "warmup_fraction"):
            _check(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        for name, limit in (("weight_decay", 10), ("motion_weight", 1e6)):
            _check(0 <= getattr(self, name) <= limit, name, getattr(self, name), f"between 0 and {limit:g}")
        _check(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "between 0 and 1")
        _check(self.precision in ("fp32", "bf16"), "precision", self.precision, "fp32 or bf16")
        _check(self.views.frames in ("pair", "single"), "views.frames", self.views.frames, "pair or single")
        _check(0 <= self.seed < 2**31, "seed", self.seed, "between 0 and 2**31 - 1")

    @property
    def backbone(self) -> BackboneConfig:
        """Architecture of the preset."""
        return BackboneConfig.preset(self.preset)

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then a cosine."""
        n_warmup = max(1, round(self.warmup_fraction * self.n_steps))
        if step < n_warmup:
            return self.lr * (step + 1) / n_warmup
        progress = (step - n_warmup) / max(1, self.n_steps - n_warmup)
        floor = self.min_lr_fraction
        return self.lr * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        values["views"]["gamma"] = list(self.views.gamma)
        return values


def _check(good: bool, name: str, value: object, limit: str) -> None:
    if not good:
        raise ConfigError.of(f"pretrain.{name}", value, limit)


class Trainer:
    """Model, optimizer and data of a run.

    Args:
        config: the recipe.
        pool: volumes to learn from; about one in twenty subjects is held out to measure the loss on.
    """

    def __init__(self, config: PretrainConfig, pool: VolumePool) -> None:
        self.config = config
        n_held_out = min(MAX_HELD_OUT, math.ceil(len(pool.volumes) / 20))
        self.pool, self.held_out = pool.split(n_held_out)
        seed, n_frames = derived_seed(config.seed, "weights"), 2 if config.views.frames == "pair" else 1
        self.model = MaskedAutoencoder(config.backbone, DECODERS[config.preset], seed, n_frames)
        self.optimizer = torch.optim.AdamW(_groups(self.model, config.weight_decay), lr=config.lr, betas=(0.9, 0.95))

    def step(self, step: int) -> float:
        """Do one optimizer step and return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(step)
        image, mask = self.batch(step)
        loss = self._loss(image, mask, self.config.motion_weight)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return loss.item()

    def batch(self, step: int) -> tuple[torch.Tensor, PatchMask]:
        """Return the images (batch, frames, X, Y, Z) and the mask of a step."""
        rng = generator(self.config.seed, "views", step)
        draws = [self.pool.draw(i, self.config.views, rng) for i in self._indices(step)]
        return torch.from_numpy(np.stack(draws)), self._mask(len(draws), "mask", step)

    def _indices(self, step: int) -> list[int]:
        """Subjects of a step: batches run through one shuffled order after the other."""
        n, size = len(self.pool.volumes), self.config.batch_size
        places = range(step * size, (step + 1) * size)
        orders = {
            epoch: generator(self.config.seed, "order", epoch).permutation(n) for epoch in {p // n for p in places}
        }
        return [int(orders[place // n][place % n]) for place in places]

    def _mask(self, n_samples: int, *purpose: object) -> PatchMask:
        stream = torch.Generator().manual_seed(derived_seed(self.config.seed, *purpose))
        return PatchMask.draw(n_samples, self.config.backbone.n_tokens, self.config.mask_ratio, stream)

    def _loss(self, image: torch.Tensor, mask: PatchMask, motion_weight: float) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(image, mask, self.config.norm_target, motion_weight)  # type: ignore[no-any-return]

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Return the plain squared error on the held-out subjects, unchanged and always under the same masks."""
        losses = []
        for i in range(len(self.held_out.volumes)):
            image = torch.from_numpy(self.held_out.plain(i, self.config.views.frames))
            losses.append(float(self._loss(image, self._mask(len(image), "held-out", i), motion_weight=1.0)))
        return float(np.mean(losses))


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Biases, norms and tokens are not decayed."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith("_token")]
    rest = [p for name, p in model.named_parameters() if p.ndim <= 1 or name.endswith("_token")]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def steps_for(config: PretrainConfig, pool: VolumePool, minutes: float) -> int:
    """Return how many steps fit into ``minutes`` on this machine, by timing a few on a model that is thrown away."""
    trainer = Trainer(config, pool)
    trainer.step(0)
    started = time.monotonic()
    for step in range(N_TIMED_STEPS):
        trainer.step(step)
    return max(1, int(60 * minutes * N_TIMED_STEPS / (time.monotonic() - started)))


def pretrain(
    config: PretrainConfig,
    pool: VolumePool,
    state_file: Path,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> RunState:
    """Run the pre-training to its end; the state file is kept up to date on the way.

    Args:
        config: the recipe.
        pool: the volumes.
        state_file: where the run is kept; ``resume`` continues from it.
        resume: continue instead of starting over.
        say: receives a line at each log point.

    Returns:
        The finished run: weights and loss curve.

    Raises:
        ArtifactError: there is no state to resume from, or it belongs to another recipe or other data.
        CohortError: too few subjects.
    """
    trainer = Trainer(config, pool)
    state = RunState(0, [], 0.0, config.to_dict(), pool.content)
    if resume:
        state = load_state(state_file, state, trainer.model, trainer.optimizer)
    for _ in _work(trainer, state, say):
        save_state(state_file, state, trainer.model, trainer.optimizer)
    state.weights = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    return state


def _work(trainer: Trainer, state: RunState, say: Callable[[str], None]) -> Iterator[None]:
    """Train from ``state`` on, updating it; yield whenever it should be saved."""
    n_steps = trainer.config.n_steps
    interval = max(1, n_steps // N_LOG_POINTS)
    losses: list[float] = []
    before, started = state.seconds, time.monotonic()
    saved = started
    for step in track(range(state.step, n_steps), f"pretrain {trainer.config.preset}"):
        losses.append(trainer.step(step))
        state.step, state.seconds = step + 1, before + time.monotonic() - started
        if (step + 1) % interval == 0 or step + 1 == n_steps:
            held_out = trainer.held_out_loss()
            point = {"step": step + 1, "lr": trainer.config.lr_at(step), "loss": float(np.mean(losses))}
            state.curve.append({**point, "held_out_loss": held_out})
            losses = []
            say(f"step {step + 1}/{n_steps}: loss {point['loss']:.5f}, held out {held_out:.5f}")
            # saving at log points only keeps the mean losses of a resumed run the same
            if time.monotonic() - saved > SAVE_INTERVAL_S or step + 1 == n_steps:
                saved = time.monotonic()
                yield
