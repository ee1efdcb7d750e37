"""Every setting, its default and its check, in one place; JSON files hold values only.

Three scopes that never mix: the job (``JobConfig``: the same for every site, travels with the job), the
site (``SiteConfig``: paths, device, threads, cache budget; never travels) and the backbone preset
(``backbone.BackboneConfig``, pinned by its checkpoint's hash).
"""

import dataclasses
import json
import os
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from med_duallora.errors import ConfigError
from med_duallora.files import read_json
from med_duallora.policy import SitePolicy
from med_duallora.settings import assigned, built, shown

__all__ = ["AugmentConfig", "JobConfig", "LoRAConfig", "SiteConfig", "TrainConfig", "assigned"]

TARGETS = ("q", "kv", "proj", "fc1", "fc2")
HEAD_POLICIES = ("local", "shared", "global")
SITE_CONFIG_VARIABLE = "MED_DUALLORA_SITE_CONFIG"


MAX_ROUNDS = 10_000
MOST = {"n_rounds": MAX_ROUNDS, "local_epochs": 1000, "batch_size": 4096}
"""Generous limits: what lies beyond them is a slip of the pen, and would only be noticed after hours of training."""


def _check(good: bool, name: str, value: object, limit: str) -> None:
    if not good:
        raise ConfigError(f"{name} = {shown(value)}, but it must be {limit}")


@dataclass(frozen=True)
class LoRAConfig:
    """What is adapted, and how.

    Args:
        rank_global: rank of the global adapter, the one that is sent.
        alpha_global: its scale; the adapter's output is multiplied by ``alpha_global / rank_global``.
        rank_local: rank of the local adapter, the one that stays.
        alpha_local: its scale.
        targets: which linear layers of a block are adapted: q, kv, proj, fc1, fc2.
        n_blocks: how many of the last transformer blocks are adapted (Med-DualLoRA finds that two suffice).
        head_policy: ``local``: the classification head stays at the site; ``shared``: its weights are part of the
            global adapter (a pair of factors, sent and averaged) and its bias stays; ``global``: all of it is sent and
            averaged beside the adapter.
        head_norm: ``site``: the head reads features that are standardised with the site's own statistics (see
            ``head_norm``); ``none``: it reads them as they are, as CineMA's does.
    """

    rank_global: int = 8
    alpha_global: float = 16.0
    rank_local: int = 8
    alpha_local: float = 16.0
    targets: tuple[str, ...] = field(default=("q", "kv"), metadata={"known": TARGETS})
    n_blocks: int = 2
    head_policy: str = "local"
    head_norm: str = "site"

    def __post_init__(self) -> None:
        for name in ("rank_global", "rank_local"):
            _check(0 <= getattr(self, name) <= 256, f"lora.{name}", getattr(self, name), "between 0 and 256")
        _check(
            self.rank_global + self.rank_local > 0, "lora.rank_global", self.rank_global, "above 0 if rank_local is 0"
        )
        for name in ("alpha_global", "alpha_local"):
            _check(0 < getattr(self, name) <= 1024, f"lora.{name}", getattr(self, name), "above 0 and at most 1024")
        unknown = set(self.targets) - set(TARGETS)
        _check(bool(self.targets) and not unknown, "lora.targets", self.targets, f"one or more of {', '.join(TARGETS)}")
        _check(len(set(self.targets)) == len(self.targets), "lora.targets", self.targets, "without repetition")
        _check(1 <= self.n_blocks <= 64, "lora.n_blocks", self.n_blocks, "between 1 and 64")
        _check(
            self.head_policy in HEAD_POLICIES,
            "lora.head_policy",
            self.head_policy,
            f"one of {', '.join(HEAD_POLICIES)}",
        )
        _check(self.head_norm in ("site", "none"), "lora.head_norm", self.head_norm, "site or none")


@dataclass(frozen=True)
class TrainConfig:
    """How a site trains in a round.

    Args:
        n_rounds: rounds of the whole federation; the learning-rate schedule spans all of them.
        local_epochs: passes over the site's training subjects in a round.
        batch_size: subjects per step.
        lr: peak learning rate of AdamW.
        local_lr_factor: learning rate of what stays at the site (local adapter, head), as a part of the others' rate:
            with few subjects, what stays fits them before the sites have learnt anything together.
        min_lr: learning rate at the end of the cosine.
        warmup_fraction: part of the federation's steps with linear warm-up.
        betas: AdamW's moment decays.
        weight_decay: decoupled weight decay.
        clip_norm: gradient norm limit.
        label_smoothing: of the cross-entropy.
        class_weight_threshold: class imbalance (largest over smallest) above which inverse-frequency weights apply.
        n_views: augmented views per subject in the feature cache besides view 0, which is unaugmented.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (bf16 where a CUDA device has it, else fp32).
        feature_dtype: how trunk features are kept: float32, or float16 for half the space.
        drop_path: stochastic depth in the adapted blocks.
        seed: of the whole experiment; every random stream derives from it.
    """

    n_rounds: int = 12
    local_epochs: int = 2
    batch_size: int = 8
    lr: float = 5e-3
    local_lr_factor: float = 1.0
    min_lr: float = 1e-5
    warmup_fraction: float = 0.1
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    label_smoothing: float = 0.1
    class_weight_threshold: float = 1.2
    n_views: int = 4
    precision: str = "auto"
    feature_dtype: str = "float32"
    drop_path: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value = getattr(self, name)
            _check(1 <= value <= most, f"train.{name}", value, f"between 1 and {most}")
        _check(0 < self.lr <= 1, "train.lr", self.lr, "above 0 and at most 1")
        _check(0 <= self.local_lr_factor <= 1, "train.local_lr_factor", self.local_lr_factor, "between 0 and 1")
        _check(0 <= self.min_lr <= self.lr, "train.min_lr", self.min_lr, "between 0 and train.lr")
        _check(0 <= self.warmup_fraction < 1, "train.warmup_fraction", self.warmup_fraction, "in [0, 1)")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _check(good, "train.betas", self.betas, "two numbers in [0, 1)")
        _check(0 <= self.weight_decay <= 10, "train.weight_decay", self.weight_decay, "between 0 and 10")
        _check(0 < self.clip_norm <= 1e6, "train.clip_norm", self.clip_norm, "above 0 and at most 1e6")
        _check(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "in [0, 1)")
        good = 1 <= self.class_weight_threshold <= 1e6
        _check(good, "train.class_weight_threshold", self.class_weight_threshold, "between 1 and 1e6")
        _check(0 <= self.n_views <= 256, "train.n_views", self.n_views, "between 0 and 256")
        known = ("auto", "fp32", "bf16", "fp16")
        _check(self.precision in known, "train.precision", self.precision, f"one of {', '.join(known)}")
        good = self.feature_dtype in ("float32", "float16")
        _check(good, "train.feature_dtype", self.feature_dtype, "float32 or float16")
        _check(0 <= self.drop_path < 1, "train.drop_path", self.drop_path, "in [0, 1)")
        _check(0 <= self.seed < 2**31, "train.seed", self.seed, "between 0 and 2**31 - 1")


@dataclass(frozen=True)
class AugmentConfig:
    """Random image changes of the augmented views, drawn before the frozen trunk (CineMA's classifier recipe).

    Args:
        probability: of each of the two transforms.
        gamma: range of the intensity exponent on [0, 1] images.
        rotation_degrees: largest rotation about the slice axis.
        shift_mm: largest in-plane shift along each axis.
        scale: largest relative zoom.
    """

    probability: float = 0.5
    gamma: tuple[float, ...] = (0.5, 1.5)
    rotation_degrees: float = 180.0
    shift_mm: float = 20.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        _check(0 <= self.probability <= 1, "augment.probability", self.probability, "in [0, 1]")
        good = len(self.gamma) == 2 and 0 < self.gamma[0] <= self.gamma[-1] <= 100
        _check(good, "augment.gamma", self.gamma, "two increasing positive numbers of at most 100")
        _check(0 <= self.rotation_degrees <= 180, "augment.rotation_degrees", self.rotation_degrees, "in [0, 180]")
        _check(0 <= self.shift_mm <= 96, "augment.shift_mm", self.shift_mm, "in [0, 96]")
        _check(0 <= self.scale < 1, "augment.scale", self.scale, "in [0, 1)")


@dataclass(frozen=True)
class JobConfig:
    """The job scope: what every site of a federation agrees on. It travels with the job and holds no path.

    Args:
        experiment: names the site states that rounds of one experiment share: letters, digits, ``-``, ``_``.
        method: the federated method, see ``med_duallora.methods``.
        backbone: preset of ``backbone.BackboneConfig``.
        backbone_sha256: hash of the only checkpoint that sites may train with; empty: the one shipped for the preset,
            where there is one, else any.
        weighting: a site's weight in the aggregation: ``subjects`` or ``uniform``.
    """

    experiment: str = "demo"
    method: str = "med-duallora"
    backbone: str = "cinema-mini"
    backbone_sha256: str = ""
    weighting: str = "subjects"
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        plain = self.experiment.replace("-", "").replace("_", "")
        good = plain.isascii() and plain.isalnum() and len(self.experiment) <= 64
        _check(good, "experiment", self.experiment, "1 to 64 letters, digits, '-' or '_'")
        good = not self.backbone_sha256 or re.fullmatch("[0-9a-f]{64}", self.backbone_sha256) is not None
        _check(good, "backbone_sha256", self.backbone_sha256, "empty, or 64 lower-case hexadecimal digits")
        _check(self.weighting in ("subjects", "uniform"), "weighting", self.weighting, "subjects or uniform")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "JobConfig":
        """Build from nested plain values; unknown keys and wrong types raise ConfigError with the key's path."""
        return built(cls, values, "")

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain JSON values; ``from_dict`` gives an equal configuration back."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))

    def with_overrides(self, assignments: Iterable[str]) -> "JobConfig":
        """Apply ``key=value`` texts, see ``assigned``."""
        return JobConfig.from_dict(assigned(self.to_dict(), assignments))


@dataclass(frozen=True)
class SiteConfig:
    """The site scope: where things are on this machine. It never travels and never leaves.

    Args:
        data_dir: the prepared cohort (holds cohort.csv).
        state_dir: where the local adapter and optimizer state are kept between rounds and jobs.
        cache_dir: where trunk features are kept.
        backbone_checkpoint: CineMA safetensors file; empty: the checkpoint shipped for the job's preset.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        n_threads: CPU threads of the training.
        cache_budget_mb: the feature cache is kept below this size.
        policy: the site's privacy floor.
        ledger: file that records everything that leaves; empty: ``egress_ledger.jsonl`` in ``state_dir``.
    """

    data_dir: Path
    state_dir: Path
    cache_dir: Path
    backbone_checkpoint: Path | None = None
    device: str = "auto"
    n_threads: int = 1
    cache_budget_mb: int = 4096
    policy: SitePolicy = field(default_factory=SitePolicy)
    ledger: Path | None = None

    def __post_init__(self) -> None:
        good = self.device in ("auto", "cpu", "cuda") or re.fullmatch(r"cuda:[0-9]+", self.device) is not None
        _check(good, "device", self.device, "auto, cpu, cuda or cuda:N")
        _check(1 <= self.n_threads <= 1024, "n_threads", self.n_threads, "between 1 and 1024")
        good = 1 <= self.cache_budget_mb <= 2**30
        _check(good, "cache_budget_mb", self.cache_budget_mb, "between 1 and 2**30")

    @property
    def ledger_path(self) -> Path:
        """Return where this site's egress ledger is."""
        return self.ledger or self.state_dir / "egress_ledger.jsonl"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SiteConfig":
        """Build from plain values; unknown keys and wrong types raise ConfigError."""
        return built(cls, values, "")

    @classmethod
    def from_file(cls, path: Path) -> "SiteConfig":
        """Read a site's JSON configuration; errors name the file, the key and the limit."""
        where = f"site configuration {path.name} in {path.parent}"
        try:
            values = read_json(path)
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror or error}; make it readable, or correct its path") from error
        except ValueError as error:
            raise ConfigError(f"{where}: it is not JSON: {error}; correct it there") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: it must hold one JSON object, {{...}}")
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error

    @classmethod
    def find(cls, site: str, scope_properties: Mapping[str, Any] | None = None) -> "SiteConfig":
        """Find and read this site's configuration, see ``place`` and ``from_file``."""
        return cls.from_file(cls.place(site, scope_properties))

    @staticmethod
    def place(site: str, scope_properties: Mapping[str, Any] | None = None) -> Path:
        """Return this site's configuration file: FLARE scope property ``med_duallora_site_config``, else environment.

        Args:
            site: name of the site; replaces ``{site}`` in the path, so that one variable serves a whole simulator.
            scope_properties: properties of the FLARE privacy scope, if any.

        Raises:
            ConfigError: neither names a file.
        """
        place = (scope_properties or {}).get("med_duallora_site_config") or os.environ.get(SITE_CONFIG_VARIABLE)
        if not place:
            raise ConfigError(
                f"site {site} has no configuration: set the environment variable {SITE_CONFIG_VARIABLE} or the "
                "privacy scope property med_duallora_site_config to the path of its JSON file"
            )
        return Path(str(place).replace("{site}", site))
