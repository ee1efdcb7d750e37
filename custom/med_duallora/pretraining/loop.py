"""What every objective of pre-training shares: learning rate, order of the subjects, the loop that can be resumed.

Every random draw is a function of the seed and the step, so a resumed run continues exactly as it would have run.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from med_duallora.backbone.config import BackboneConfig
from med_duallora.errors import ConfigError, TrainingDiverged
from med_duallora.pretraining.mae import DECODERS
from med_duallora.pretraining.state import RunState, load_state, save_state
from med_duallora.support.adamw import AdamW
from med_duallora.support.progress import track
from med_duallora.support.seeds import generator

SAVE_INTERVAL_S = 60.0
N_TIMED_STEPS = 8


def check(good: bool, name: str, value: object, limit: str) -> None:
    """Refuse a value of a recipe (ConfigError) where it is not ``good``."""
    if not good:
        raise ConfigError.of(f"pretrain.{name}", value, limit)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the recipes of all objectives have.

    Args:
        preset: the backbone.
        n_steps: optimizer steps of the whole run; the learning-rate schedule spans them.
        batch_size: subjects per step.
        lr: peak learning rate of AdamW.
        min_lr_fraction: final over peak learning rate.
        warmup_fraction: part of the steps with linear warm-up.
        weight_decay: decoupled weight decay; biases, norms and tokens have none.
        clip_norm: gradient norm limit.
        precision: fp32, or bf16 for the linear layers.
        seed: of everything that is drawn.
    """

    n_log_points: ClassVar[int] = 40

    preset: str = "cinema-mini"
    n_steps: int = 1000
    batch_size: int = 16
    lr: float = 1e-3
    min_lr_fraction: float = 0.01
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.preset in DECODERS, "preset", self.preset, f"one of {', '.join(DECODERS)}")
        for name, most in (("n_steps", 10**9), ("batch_size", 4096)):
            check(1 <= getattr(self, name) <= most, name, getattr(self, name), f"between 1 and {most}")
        for name, limit in (("lr", 1), ("clip_norm", 1e6)):
            check(0 < getattr(self, name) <= limit, name, getattr(self, name), f"above 0 and at most {limit:g}")
        for name in ("min_lr_fraction", "warmup_fraction"):
            check(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        check(0 <= self.weight_decay <= 10, "weight_decay", self.weight_decay, "between 0 and 10")
        check(self.precision in ("fp32", "bf16"), "precision", self.precision, "fp32 or bf16")
        check(0 <= self.seed < 2**31, "seed", self.seed, "between 0 and 2**31 - 1")

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

    def subjects_of(self, step: int, n_subjects: int) -> list[int]:
        """Subjects of a step: batches run through one shuffled order after the other."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = {place // n_subjects for place in places}
        orders = {epoch: generator(self.seed, "order", epoch).permutation(n_subjects) for epoch in epochs}
        return [int(orders[place // n_subjects][place % n_subjects]) for place in places]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


class Trainer(Protocol):
    """Model, optimizer and data of a run; what its objective does in a step."""

    @property
    def model(self) -> torch.nn.Module:
        """The weights that are trained."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over all of them."""

    @property
    def config(self) -> Recipe:
        """The recipe."""

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss of a step's batch."""

    def held_out(self) -> dict[str, float]:
        """Return ``held_out_loss`` on the subjects that are not trained on, and what else is worth a log point."""


def optimizer_of(model: torch.nn.Module, config: Recipe) -> torch.optim.AdamW:
    """Return AdamW over a model; biases, norms and tokens are not decayed."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith("_token")]
    rest = [p for name, p in model.named_parameters() if p.ndim <= 1 or name.endswith("_token")]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return AdamW(groups, lr=config.lr, betas=(0.9, 0.95))


def do_step(trainer: Trainer, step: int) -> float:
    """Do one optimizer step and return its loss.

    Raises:
        TrainingDiverged: the loss or its gradient is not finite; the weights are those of the step before.
    """
    for group in trainer.optimizer.param_groups:
        group["lr"] = trainer.config.lr_at(step)
    loss = trainer.loss(step)
    trainer.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.config.clip_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise TrainingDiverged(
            f"step {step + 1}: the loss or its gradient is not finite; lower the learning rate ({trainer.config.lr:g})"
        )
    trainer.optimizer.step()
    return loss.item()


def steps_for(trainer: Trainer, minutes: float) -> int:
    """Return how many steps fit into ``minutes`` on this machine, by timing a few of a trainer that is thrown away."""
    do_step(trainer, 0)
    started = time.monotonic()
    for step in range(N_TIMED_STEPS):
        do_step(trainer, step)
    return max(1, int(60 * minutes * N_TIMED_STEPS / (time.monotonic() - started)))


def finish(
    trainer: Trainer, data: str, state_file: Path, resume: bool = False, say: Callable[[str], None] = print
) -> RunState:
    """Run the pre-training to its end; the state file is kept up to date on the way.

    Args:
        trainer: as its recipe starts it.
        data: hash of what it learns from.
        state_file: where the run is kept; ``resume`` continues from it.
        resume: continue instead of starting over.
        say: receives a line at each log point.

    Returns:
        The finished run: weights and loss curve.

    Raises:
        ArtifactError: there is no state to resume from, or it belongs to another recipe or other data.
        TrainingDiverged: see ``do_step``; the state that was kept last is as it was.
    """
    state = RunState(0, [], 0.0, trainer.config.to_dict(), data)
    if resume:
        state = load_state(state_file, state, trainer.model, trainer.optimizer)
    for _ in _work(trainer, state, say):
        save_state(state_file, state, trainer.model, trainer.optimizer)
    state.weights = {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}
    return state


def _work(trainer: Trainer, state: RunState, say: Callable[[str], None]) -> Iterator[None]:
    """Train from ``state`` on, updating it; yield whenever it should be saved."""
    n_steps = trainer.config.n_steps
    interval = max(1, n_steps // trainer.config.n_log_points)
    losses: list[float] = []
    before, started = state.seconds, time.monotonic()
    saved = started
    for step in track(range(state.step, n_steps), f"pretrain {trainer.config.preset}"):
        losses.append(do_step(trainer, step))
        state.step, state.seconds = step + 1, before + time.monotonic() - started
        if (step + 1) % interval == 0 or step + 1 == n_steps:
            point = {"step": step + 1, "lr": trainer.config.lr_at(step), "loss": float(np.mean(losses))}
            state.curve.append(point | trainer.held_out())
            losses = []
            say(_line(state.curve[-1], n_steps))
            # saving at log points only keeps the mean losses of a resumed run the same
            if time.monotonic() - saved > SAVE_INTERVAL_S or step + 1 == n_steps:
                saved = time.monotonic()
                yield


def _line(point: dict[str, float], n_steps: int) -> str:
    known = ("step", "lr", "loss", "held_out_loss")
    more = "".join(f", {name} {value:.2f}" for name, value in point.items() if name not in known)
    return f"step {point['step']}/{n_steps}: loss {point['loss']:.5f}, held out {point['held_out_loss']:.5f}{more}"
