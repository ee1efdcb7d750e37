"""The masked autoencoder as an objective of pre-training: recipe, views, masks and held-out loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from med_duallora.pretraining.data import ViewConfig, VolumePool
from med_duallora.pretraining.loop import Recipe, check, finish, optimizer_of
from med_duallora.pretraining.mae import DECODERS, MaskedAutoencoder, PatchMask
from med_duallora.pretraining.state import RunState
from med_duallora.support.seeds import derived_seed, generator

MAX_HELD_OUT = 12


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(Recipe):
    """Recipe of a masked autoencoder.

    Args:
        mask_ratio: part of the patches that the encoder does not see.
        norm_target: reconstruct patches of mean 0 and standard deviation 1.
        motion_weight: weight of the frames' deviations from their mean in the loss of pairs.
        views: random changes of the volumes.
    """

    mask_ratio: float = 0.75
    norm_target: bool = False
    motion_weight: float = 1.0
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.motion_weight <= 1e6, "motion_weight", self.motion_weight, f"between 0 and {1e6:g}")
        check(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, "between 0 and 1")
        check(self.views.frames in ("pair", "single"), "views.frames", self.views.frames, "pair or single")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = super().to_dict()
        values["views"]["gamma"] = list(self.views.gamma)
        return values


class MaeTrainer:
    """Model, optimizer and data of a run.

    Args:
        config: the recipe.
        pool: volumes to learn from; about one in twenty subjects is held out to measure the loss on.
    """

    def __init__(self, config: PretrainConfig, pool: VolumePool) -> None:
        self.config = config
        n_held_out = min(MAX_HELD_OUT, math.ceil(len(pool.volumes) / 20))
        self.pool, self.held_out_pool = pool.split(n_held_out)
        seed, n_frames = derived_seed(config.seed, "weights"), 2 if config.views.frames == "pair" else 1
        self.model = MaskedAutoencoder(config.backbone, DECODERS[config.preset], seed, n_frames)
        self.optimizer = optimizer_of(self.model, config)

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss of a step's batch."""
        return self._loss(*self.batch(step), self.config.motion_weight)

    def batch(self, step: int) -> tuple[torch.Tensor, PatchMask]:
        """Return the images (batch, frames, X, Y, Z) and the mask of a step."""
        rng = generator(self.config.seed, "views", step)
        subjects = self.config.subjects_of(step, len(self.pool.volumes))
        draws = [self.pool.draw(i, self.config.views, rng) for i in subjects]
        return torch.from_numpy(np.stack(draws)), self._mask(len(draws), "mask", step)

    def _mask(self, n_samples: int, *purpose: object) -> PatchMask:
        stream = torch.Generator().manual_seed(derived_seed(self.config.seed, *purpose))
        return PatchMask.draw(n_samples, self.config.backbone.n_tokens, self.config.mask_ratio, stream)

    def _loss(self, image: torch.Tensor, mask: PatchMask, motion_weight: float) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(image, mask, self.config.norm_target, motion_weight)  # type: ignore[no-any-return]

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Return the plain squared error on the held-out subjects, unchanged and always under the same masks."""
        losses = []
        for i in range(len(self.held_out_pool.volumes)):
            image = torch.from_numpy(self.held_out_pool.plain(i, self.config.views.frames))
            losses.append(float(self._loss(image, self._mask(len(image), "held-out", i), motion_weight=1.0)))
        return {"held_out_loss": float(np.mean(losses))}


def pretrain(
    config: PretrainConfig,
    pool: VolumePool,
    state_file: Path,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> RunState:
    """Run a masked autoencoder to its end, see ``loop.finish``.

    Raises:
        ArtifactError: there is no state to resume from, or it belongs to another recipe or other data.
        CohortError: too few subjects.
    """
    return finish(MaeTrainer(config, pool), pool.content, state_file, resume, say)
