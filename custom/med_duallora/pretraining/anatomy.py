"""Anatomy as an objective of pre-training: the heart's measures are regressed from volumes of any appearance.

The targets are the true values of phantoms (``truth.csv``): volumes, mass and wall as logarithms, ejection fractions
as they are, each of mean 0 and standard deviation 1 over the subjects that are trained on.
"""

import math
from collections.abc import Callable
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
from med_duallora.backbone.inputs import Volume, fit_length
from med_duallora.backbone.layers import initialise
from med_duallora.cohorts.phantom.truth import TARGETS, Values, read_values
from med_duallora.errors import CohortError
from med_duallora.pretraining.appearance import AppearanceConfig, random_view
from med_duallora.pretraining.data import GREY_LEVELS, find_cohorts, pooled_volume
from med_duallora.pretraining.depthwise import depthwise_conv
from med_duallora.pretraining.loop import Recipe, finish, optimizer_of
from med_duallora.pretraining.state import RunState
from med_duallora.support.files import sha256_of_json
from med_duallora.support.progress import track
from med_duallora.support.seeds import derived_seed, generator

HEAD = "anatomy_head"
MARGIN = 1.5  # the square root of 2 and a little: a turned view still lies in the image
HELD_OUT_EVERY = 20
MIN_HELD_OUT = 4
MAX_HELD_OUT = 80
MIN_SUBJECTS = 4


@dataclass(frozen=True, kw_only=True)
class AnatomyConfig(Recipe):
    """Recipe of a regression of anatomy.

    Args:
        appearance: random changes of the volumes.
        init_sha256: hash of the checkpoint that the run starts from; empty: random weights.
    """

    n_log_points: ClassVar[int] = 20  # a look at the held-out subjects costs as much as three steps

    batch_size: int = 10
    lr: float = 5e-4
    clip_norm: float = 1.0
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    init_sha256: str = ""


@dataclass(frozen=True)
class AnatomyPool:
    """Volumes of phantoms with their true values.

    Args:
        volumes: uint8 (2, X, Y, n_slices) per subject, in plane larger than the backbone's input.
        values: (n_subjects, n_targets), on the scale of ``TARGETS``, not standardised.
        content: SHA-256 over the subjects' source hashes and values.
    """

    volumes: tuple[Volume, ...]
    values: Values
    content: str

    @classmethod
    def load(cls, directory: Path, truth: Path, config: BackboneConfig) -> "AnatomyPool":
        """Read every subject of a prepared cohort, or of all in a folder, and its row of the table of true values.

        Raises:
            CohortError: no prepared cohort is there, a volume cannot be read, or a subject has no or impossible values.
        """
        subjects = [subject for cohort in find_cohorts(directory) for subject in cohort.subjects]
        values = read_values(truth, [subject.subject for subject in subjects])
        size = tuple(math.ceil(MARGIN * n) for n in config.image_size[:2])
        volumes = [_wide(pooled_volume(subject, config), size) for subject in track(subjects, "reading volumes")]
        content = sha256_of_json([[s.source_sha256, *map(float, row)] for s, row in zip(subjects, values, strict=True)])
        return cls(tuple(volumes), values, content)

    def split(self) -> tuple[list[int], list[int]]:
        """Return the subjects to train on and those that are held out: one in 20 (of few: a quarter), over the pool.

        Raises:
            CohortError: too few subjects.
        """
        n_subjects = len(self.volumes)
        if n_subjects < MIN_SUBJECTS:
            raise CohortError(f"{n_subjects} subjects are too few to learn anatomy from: at least {MIN_SUBJECTS}")
        every = max(2, min(HELD_OUT_EVERY, n_subjects // MIN_HELD_OUT), math.ceil(n_subjects / MAX_HELD_OUT))
        held_out = list(range(every - 1, n_subjects, every))
        return sorted(set(range(n_subjects)) - set(held_out)), held_out


def _wide(volume: Volume, size: tuple[int, ...]) -> Volume:
    """Crop or zero-pad (2, X, Y, Z) in plane to ``size``, around the centre."""
    for axis, n in zip((1, 2), size, strict=True):
        lower = max(0, (n - volume.shape[axis]) // 2)
        widths = [(lower, 0) if i == axis else (0, 0) for i in range(4)]
        volume = fit_length(np.pad(volume, widths), axis, n)
    return volume


class AnatomyRegressor(Backbone):
    """A backbone with one linear head on its cls feature and its mean patch feature.

    Args:
        config: the backbone.
        seed: of the initial weights; the global random state is left alone.
    """

    def __init__(self, config: BackboneConfig, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(config, config.n_input_channels)
            self.anatomy_head = nn.Linear(2 * config.embed_dim, len(TARGETS))
        initialise(self, seed)

    def start_from(self, classifier: CineMAClassifier) -> None:
        """Take over a classifier's weights, all but its head."""
        kept = {name: value for name, value in classifier.state_dict().items() if not name.startswith("pred_head_dict")}
        self.load_state_dict(kept, strict=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return standardised values (batch, n_targets) of x (batch, n_input_channels, X, Y, Z)."""
        embedding = self.token_embedding
        # the depth-wise convolution whose backward pass is quick
        tokens, skips = embedding.stem(x.permute(0, 2, 3, 4, 1), depthwise_conv)
        hidden = self.with_cls(tokens.flatten(1, 3) + embedding.pos_embed)
        for block in self.blocks:
            hidden = block(hidden)
        cls, patches = self.finish(hidden, self.fusion_term(skips))
        return self.anatomy_head(torch.cat([cls[:, 0], patches.mean(1)], dim=1))  # type: ignore[no-any-return]


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
        mean, deviation = pool.values[self.train].mean(0), pool.values[self.train].std(0)
        # targets that do not vary cannot be scaled, and there is nothing to learn of them
        self.values = torch.from_numpy((pool.values - mean) / np.where(deviation > 0, deviation, 1))
        self.model = AnatomyRegressor(config.backbone, derived_seed(config.seed, "weights"))
        if init:
            self.model.start_from(load_classifier(init, config.backbone))
        self.optimizer = optimizer_of(self.model, config)

    def loss(self, step: int) -> torch.Tensor:
        """Return the squared error of a step's batch."""
        subjects = [self.train[i] for i in self.config.subjects_of(step, len(self.train))]
        rng = generator(self.config.seed, "views", step)
        views = torch.stack([self.view(subject, rng) for subject in subjects])
        return (self._predict(views) - self.values[subjects]).square().mean()

    def view(self, subject: int, rng: np.random.Generator) -> torch.Tensor:
        """Return a randomly changed view of a subject (2, *image_size)."""
        nx, ny, nz = self.config.backbone.image_size
        volume = torch.from_numpy(GREY_LEVELS[self.pool.volumes[subject]])
        view = random_view(volume, (nx, ny), self.config.appearance, rng)
        return torch.from_numpy(fit_length(view.numpy(), 3, nz))

    def _predict(self, views: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(views).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """Return the squared error and R2 per target on the held-out subjects, always in the same changed views."""
        predicted = []
        for subject in self.kept_out:
            views = self.view(subject, generator(self.config.seed, "held-out", subject))[None]
            predicted.append(self._predict(views)[0])
        truth = self.values[self.kept_out]
        errors = (torch.stack(predicted) - truth).square().mean(0)
        spread = truth.var(0, unbiased=False).clamp_min(1e-6)
        r2 = {f"R2 {name}": float(1 - errors[i] / spread[i]) for i, name in enumerate(TARGETS)}
        return {"held_out_loss": float(errors.mean()), **r2}


def learn_anatomy(
    config: AnatomyConfig,
    pool: AnatomyPool,
    state_file: Path,
    *,
    init: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> RunState:
    """Run a regression of anatomy to its end, see ``loop.finish``; ``init`` is the checkpoint it starts from.

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
