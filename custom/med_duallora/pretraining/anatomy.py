"""Anatomy as an objective of pre-training: the heart's measures and label maps are told from volumes of any appearance.

The targets are the true values of phantoms (``truth.csv``): volumes, mass and wall as logarithms, ejection fractions
as they are, each of mean 0 and standard deviation 1 over the subjects that are trained on; and the label maps that lie
beside the volumes, see ``label_maps``. Both errors are 1 for whoever knows no more than the means.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from med_duallora.backbone import CineMAClassifier, load_classifier
from med_duallora.backbone.checkpoint import check_checkpoint, checkpoint_sha256
from med_duallora.backbone.classifier import Backbone
from med_duallora.backbone.config import BackboneConfig
from med_duallora.backbone.inputs import fit_length
from med_duallora.backbone.layers import initialise
from med_duallora.cohorts.phantom.truth import TARGETS
from med_duallora.pretraining.anatomy_pool import AnatomyPool, in_plane
from med_duallora.pretraining.appearance import AppearanceConfig, random_view
from med_duallora.pretraining.data import GREY_LEVELS
from med_duallora.pretraining.depthwise import depthwise_conv
from med_duallora.pretraining.label_maps import N_MAPS, entropy_of, in_cells, map_error, map_head, one_hot
from med_duallora.pretraining.loop import Recipe, check, finish, optimizer_of
from med_duallora.pretraining.marks import MARKS, standardised, with_marks
from med_duallora.pretraining.state import RunState
from med_duallora.support.seeds import derived_seed, generator

MAPS_LOOKED_AT_EVERY = 8  # enough subjects for what is but a scale


@dataclass(frozen=True, kw_only=True)
class AnatomyConfig(Recipe):
    """Recipe of a training on anatomy.

    Args:
        dropout: share of the features that the head of the values does not see in a step, drawn anew for each subject:
            what is known shall lie in all features, because a head that is fitted to few subjects finds it there.
        map_weight: of the label maps' error beside that of the values; 0: label maps are not read.
        appearance: random changes of the volumes.
        init_sha256: hash of the checkpoint that the run starts from; empty: random weights.
    """

    n_log_points: ClassVar[int] = 20  # a look at the held-out subjects costs as much as three steps

    batch_size: int = 10
    lr: float = 5e-4
    clip_norm: float = 1.0
    dropout: float = 0.5
    map_weight: float = 1.0
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    init_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.dropout < 1, "dropout", self.dropout, "at least 0 and below 1")
        check(0 <= self.map_weight <= 1e3, "map_weight", self.map_weight, f"between 0 and {1e3:g}")


class AnatomyRegressor(Backbone):
    """A backbone with a linear head on its cls feature and its mean patch feature, and one on each patch feature.

    Args:
        config: the backbone.
        seed: of the initial weights; the global random state is left alone.
        with_maps: whether it has the second head, which predicts label maps.
    """

    def __init__(self, config: BackboneConfig, seed: int = 0, with_maps: bool = True) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(config, config.n_input_channels)
            self.anatomy_head = nn.Linear(2 * config.embed_dim, len(TARGETS) * (1 + len(MARKS)))
        initialise(self, seed)
        self.anatomy_maps = map_head(config) if with_maps else None

    def start_from(self, classifier: CineMAClassifier) -> None:
        """Take over a classifier's weights, all but its head."""
        kept = {name: value for name, value in classifier.state_dict().items() if not name.startswith("pred_head_dict")}
        self.load_state_dict(kept, strict=False)

    def forward(self, x: torch.Tensor, seen: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return values and label maps of images.

        Args:
            x: (batch, n_input_channels, X, Y, Z).
            seen: (batch, 2 * dim), what the features are multiplied by before the head of the values; None: by 1.

        Returns:
            Values as ``with_marks`` has them, and logits (batch, n_tokens, cells * N_MAPS), see
            ``label_maps.in_cells``.
        """
        embedding = self.token_embedding
        # the depth-wise convolution whose backward pass is quick
        tokens, skips = embedding.stem(x.permute(0, 2, 3, 4, 1), depthwise_conv)
        hidden = self.with_cls(tokens.flatten(1, 3) + embedding.pos_embed)
        for block in self.blocks:
            hidden = block(hidden)
        cls, patches = self.finish(hidden, self.fusion_term(skips))
        summary = torch.cat([cls[:, 0], patches.mean(1)], dim=1)
        values = self.anatomy_head(summary if seen is None else summary * seen)
        return values, self.anatomy_maps(patches) if self.anatomy_maps else None


class AnatomyTrainer:
    """Model, optimizer and data of a run.

    Args:
        config: the recipe.
        pool: phantoms to learn from; some are held out.
        init: the checkpoint to start from; None: random weights.
    """

    def __init__(self, config: AnatomyConfig, pool: AnatomyPool, init: Path | None = None) -> None:
        self.config, self.pool = config, pool
        self.train, self.kept_out = pool.split()
        marked = with_marks(standardised(pool.values, self.train))
        self.values = torch.from_numpy(standardised(marked, self.train))
        with_maps = config.map_weight > 0
        self.model = AnatomyRegressor(config.backbone, derived_seed(config.seed, "weights"), with_maps)
        if init:
            self.model.start_from(load_classifier(init, config.backbone))
        self.optimizer = optimizer_of(self.model, config)
        self.entropy = entropy_of(self._mean_shares()) if with_maps else torch.ones(0)

    def loss(self, step: int) -> torch.Tensor:
        """Return the error of a step's batch: that of the values and, weighted, that of the label maps."""
        subjects = [self.train[i] for i in self.config.subjects_of(step, len(self.train))]
        rng = generator(self.config.seed, "views", step)
        views = [self.view(subject, rng) for subject in subjects]
        of_values, of_maps = self._errors(subjects, views, self.seen(step))
        return of_values.mean() + self.config.map_weight * of_maps.mean() if len(of_maps) else of_values.mean()

    def view(self, subject: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a randomly changed view of a subject (2, *image_size), and its label maps (N_MAPS or 0, ...)."""
        nx, ny, nz = self.config.backbone.image_size
        volume = torch.from_numpy(GREY_LEVELS[self.pool.volumes[subject]])
        maps = one_hot(self.pool.maps[subject]) if self.config.map_weight else volume[:0]
        pair = random_view(volume, maps, (nx, ny), self.config.appearance, rng)
        view, maps = (torch.from_numpy(fit_length(part.numpy(), 3, nz)) for part in pair)
        return view, maps

    def _errors(
        self,
        subjects: Sequence[int],
        views: Sequence[tuple[torch.Tensor, torch.Tensor]],
        seen: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the squared error of each value and mark, and the relative error of each map (N_MAPS or 0,)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            values, logits = self.model(torch.stack([view for view, _ in views]), seen)
        of_values = (values.float() - self.values[subjects]).square().mean(0)
        if logits is None:
            return of_values, of_values[:0]
        shares = in_cells(torch.stack([maps for _, maps in views]), self.config.backbone)
        return of_values, map_error(logits.float(), shares, self.entropy)

    def seen(self, step: int) -> torch.Tensor | None:
        """Return by what a step's features (batch_size, 2 * dim) are multiplied: 0, or what keeps their mean."""
        if not self.config.dropout:
            return None
        rng = generator(self.config.seed, "seen", step)
        kept = rng.random((self.config.batch_size, 2 * self.config.backbone.embed_dim)) >= self.config.dropout
        return torch.from_numpy(kept.astype(np.float32) / np.float32(1 - self.config.dropout))

    def _mean_shares(self) -> torch.Tensor:
        """Return the mean share (N_MAPS,) of each label in the middle of the volumes that are trained on."""
        size = self.config.backbone.image_size
        total = torch.zeros(N_MAPS, dtype=torch.float64)
        for subject in self.train[::MAPS_LOOKED_AT_EVERY]:
            maps = in_plane(self.pool.maps[subject], size[:2])
            total += one_hot(maps).double().sum(dim=(1, 2, 3)) / math.prod(size)
        return total / len(self.train[::MAPS_LOOKED_AT_EVERY])

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Return the errors and R2 per target on the held-out subjects, always in the same changed views."""
        found = [
            self._errors([subject], [self.view(subject, generator(self.config.seed, "held-out", subject))])
            for subject in self.kept_out
        ]
        errors, of_maps = (torch.stack(part).mean(0) for part in zip(*found, strict=True))
        spread = self.values[self.kept_out].var(0, unbiased=False).clamp_min(1e-6)
        r2 = {f"R2 {name}": float(1 - errors[i] / spread[i]) for i, name in enumerate(TARGETS)}
        maps = {"maps": float(of_maps.mean())} if len(of_maps) else {}
        return {"held_out_loss": float(errors.mean()), **maps, **r2}


def learn_anatomy(
    config: AnatomyConfig,
    pool: AnatomyPool,
    state_file: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> RunState:
    """Run a training on anatomy to its end, see ``loop.finish``; ``init`` is the checkpoint it starts from.

    Raises:
        ArtifactError: there is no state to resume from, or it belongs to another recipe or other data.
        CheckpointError: ``init`` does not fit.
        CohortError: too few subjects.
    """
    return finish(AnatomyTrainer(config, pool, init), pool.content, state_file, resume, say)


def hash_of(init: Path | None, preset: str) -> str:
    """Return the hash of the checkpoint that a run starts from; empty: none.

    Raises:
        CheckpointError: it is not there, or does not fit the preset.
    """
    if init is None:
        return ""
    check_checkpoint(init, preset)
    return checkpoint_sha256(init)
