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
from med_duallora.backbone.inputs import Volume, fit_length
from med_duallora.backbone.layers import initialise
from med_duallora.cohorts.phantom.truth import TARGETS, Values, read_values
from med_duallora.errors import CohortError
from med_duallora.pretraining.appearance import AppearanceConfig, random_view
from med_duallora.pretraining.data import GREY_LEVELS, find_cohorts, pooled_volume
from med_duallora.pretraining.depthwise import depthwise_conv
from med_duallora.pretraining.label_maps import (
    N_MAPS,
    entropy_of,
    in_cells,
    map_error,
    map_head,
    one_hot,
    small_label_maps,
)
from med_duallora.pretraining.loop import Recipe, check, finish, optimizer_of
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
MAPS_LOOKED_AT_EVERY = 8  # enough subjects for what is but a scale


@dataclass(frozen=True, kw_only=True)
class AnatomyConfig(Recipe):
    """Recipe of a regression of anatomy.

    Args:
        map_weight: of the label maps' error beside that of the values; 0: label maps are not read.
        appearance: random changes of the volumes.
        init_sha256: hash of the checkpoint that the run starts from; empty: random weights.
    """

    n_log_points: ClassVar[int] = 20  # a look at the held-out subjects costs as much as three steps

    batch_size: int = 10
    lr: float = 5e-4
    clip_norm: float = 1.0
    map_weight: float = 1.0
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)
    init_sha256: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(0 <= self.map_weight <= 1e3, "map_weight", self.map_weight, f"between 0 and {1e3:g}")


@dataclass(frozen=True)
class AnatomyPool:
    """Volumes of phantoms with their true values.

    Args:
        volumes: uint8 (2, X, Y, n_slices) per subject, in plane larger than the backbone's input.
        values: (n_subjects, n_targets), on the scale of ``TARGETS``, not standardised.
        content: SHA-256 over the subjects' source hashes and values.
        maps: label maps on the voxels of ``volumes``, uint8; empty where none are trained on.
    """

    volumes: tuple[Volume, ...]
    values: Values
    content: str
    maps: tuple[Volume, ...] = ()

    @classmethod
    def load(cls, directory: Path, truth: Path, config: BackboneConfig, with_maps: bool = True) -> "AnatomyPool":
        """Read every subject of a prepared cohort, or of all in a folder, and its row of the table of true values.

        Raises:
            CohortError: no prepared cohort is there, a volume or a label map cannot be read, or a subject has no or
                impossible values.
        """
        subjects = [subject for cohort in find_cohorts(directory) for subject in cohort.subjects]
        values = read_values(truth, [subject.subject for subject in subjects])
        size = tuple(math.ceil(MARGIN * n) for n in config.image_size[:2])
        volumes, maps = [], []
        for subject in track(subjects, "reading volumes"):
            volumes.append(_wide(pooled_volume(subject, config), size))
            if with_maps:
                maps.append(_wide(small_label_maps(subject, config), size))
        content = sha256_of_json([[s.source_sha256, *map(float, row)] for s, row in zip(subjects, values, strict=True)])
        return cls(tuple(volumes), values, content, tuple(maps))

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
    """A backbone with a linear head on its cls feature and its mean patch feature, and one on each patch feature.

    Args:
        config: the backbone.
        seed: of the initial weights; the global random state is left alone.
        with_maps: whether it has the second head, which predicts label maps.
    """

    def __init__(self, config: BackboneConfig, seed: int = 0, with_maps: bool = True) -> None:
        with torch.random.fork_rng(devices=[]):
            super().__init__(config, config.n_input_channels)
            self.anatomy_head = nn.Linear(2 * config.embed_dim, len(TARGETS))
        initialise(self, seed)
        self.anatomy_maps = map_head(config) if with_maps else None

    def start_from(self, classifier: CineMAClassifier) -> None:
        """Take over a classifier's weights, all but its head."""
        kept = {name: value for name, value in classifier.state_dict().items() if not name.startswith("pred_head_dict")}
        self.load_state_dict(kept, strict=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return standardised values (batch, n_targets) of x (batch, n_input_channels, X, Y, Z), and its label maps.

        The maps are logits (batch, n_tokens, cells * N_MAPS), see ``label_maps.in_cells``.
        """
        embedding = self.token_embedding
        # the depth-wise convolution whose backward pass is quick
        tokens, skips = embedding.stem(x.permute(0, 2, 3, 4, 1), depthwise_conv)
        hidden = self.with_cls(tokens.flatten(1, 3) + embedding.pos_embed)
        for block in self.blocks:
            hidden = block(hidden)
        cls, patches = self.finish(hidden, self.fusion_term(skips))
        values = self.anatomy_head(torch.cat([cls[:, 0], patches.mean(1)], dim=1))
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
        mean, deviation = pool.values[self.train].mean(0), pool.values[self.train].std(0)
        # targets that do not vary cannot be scaled, and there is nothing to learn of them
        self.values = torch.from_numpy((pool.values - mean) / np.where(deviation > 0, deviation, 1))
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
        of_values, of_maps = self._errors(subjects, [self.view(subject, rng) for subject in subjects])
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
        self, subjects: Sequence[int], views: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the squared error of each value (n_targets,) and the relative error of each map (N_MAPS or 0,)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bf16"):
            values, logits = self.model(torch.stack([view for view, _ in views]))
        of_values = (values.float() - self.values[subjects]).square().mean(0)
        if logits is None:
            return of_values, of_values[:0]
        shares = in_cells(torch.stack([maps for _, maps in views]), self.config.backbone)
        return of_values, map_error(logits.float(), shares, self.entropy)

    def _mean_shares(self) -> torch.Tensor:
        """Return the mean share (N_MAPS,) of each label in the middle of the volumes that are trained on."""
        size = self.config.backbone.image_size
        total = torch.zeros(N_MAPS, dtype=torch.float64)
        for subject in self.train[::MAPS_LOOKED_AT_EVERY]:
            maps = _wide(self.pool.maps[subject], size[:2])
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
