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
from med_duallora.settings.augment import AugmentConfig
from med_duallora.settings.limits import (
    Limit,
    Names,
    above,
    below,
    between,
    check_limits,
    limited,
    one_of,
    sha256_or_empty,
    some_of,
)
from med_duallora.settings.policy import SitePolicy, check_complete
from med_duallora.settings.reading import assigned, built
from med_duallora.settings.release import ReleaseFloors
from med_duallora.support.files import read_object

__all__ = ["AugmentConfig", "JobConfig", "LoRAConfig", "SiteConfig", "TrainConfig", "assigned"]

TARGETS = ("q", "kv", "proj", "fc1", "fc2")
TRAIN = "train"
HEAD_POLICIES = ("shared", "local", "global")
SITE_CONFIG_VARIABLE = "MED_DUALLORA_SITE_CONFIG"
MAX_ROUNDS = 10_000
"""The upper limits are generous: what lies beyond is a slip, and would only be noticed after hours of training."""
METHOD_NAMES = Names("a federated method")
AGGREGATION_NAMES = Names("a rule of aggregation", optional=True)
BACKBONE_NAMES = Names("a backbone preset")
"""Handed down by ``adapter.methods`` and ``backbone.config``, whose tables are the only lists of these names."""


def _are_decays(values: tuple[float, ...]) -> bool:
    return len(values) == 2 and all(0 <= value < 1 for value in values)


def _is_name(text: str) -> bool:
    plain = text.replace("-", "").replace("_", "")
    return plain.isascii() and plain.isalnum() and len(text) <= 64


def _is_device(text: str) -> bool:
    return text in ("auto", "cpu", "cuda") or re.fullmatch(r"cuda:[0-9]+", text) is not None


def _has_a_rank(lora: "LoRAConfig") -> bool:
    return lora.rank_global + lora.rank_local > 0


@dataclass(frozen=True)
class LoRAConfig:
    """What is adapted, and how.

    Args:
        rank_global: rank of the global adapter, the one that is sent.
        alpha_global: scale of the global adapter, whose output is multiplied by ``alpha_global / rank_global``.
        rank_local: rank of the local adapter, the one that stays.
        alpha_local: scale of the local adapter, whose output is multiplied by ``alpha_local / rank_local``.
        targets: which linear layers of a block are adapted: q, kv, proj, fc1, fc2.
        n_blocks: how many of the last transformer blocks are adapted (Med-DualLoRA finds that two suffice).
        head_policy: ``shared``: the classification head's weights are part of the global adapter (a pair of factors,
            sent and averaged) and its bias stays; ``local``: all of the head stays at the site; ``global``: all of it
            is sent and averaged alongside the adapter.
        head_norm: ``site``: the head reads features that are standardised with the site's own statistics, in
            predictions about the middle between its two classes; ``none``: it reads them as they are, as CineMA's does.
    """

    rank_global: int = limited(8, between(0, 256).also("above 0 if lora.rank_local is 0", _has_a_rank))
    alpha_global: float = limited(16.0, above(0, 1024))
    rank_local: int = limited(8, between(0, 256))
    alpha_local: float = limited(16.0, above(0, 1024))
    targets: tuple[str, ...] = limited(("q", "kv"), some_of(*TARGETS))
    n_blocks: int = limited(2, between(1, 64))
    head_policy: str = limited("shared", one_of(*HEAD_POLICIES))
    head_norm: str = limited("site", one_of("site", "none"))

    def __post_init__(self) -> None:
        check_limits(self, "lora.")


@dataclass(frozen=True)
class TrainConfig:
    """How a site trains in a round.

    Args:
        n_rounds: rounds of the whole federation; the learning-rate schedule spans all of them.
        schedule: when the adapters of ``med-duallora`` train; ``joint``: both in every step; ``alternate``: the global
            one in the first half of each round, with the local one switched off, then the local one in the second
            half, beside the frozen global one; ``local-after``: the global one in all rounds, with the local one and
            what stays of the head at their start; when a global adapter is evaluated, each site fits these to it, in
            half as many passes as all rounds had. Other methods have a schedule of their own, which ``joint`` leaves as
            it is.
        local_epochs: passes over the site's training subjects in a round.
        batch_size: subjects per step.
        lr: peak learning rate of AdamW.
        local_lr_factor: learning rate of what stays at the site (local adapter, the head or its bias), as a fraction of
            the rate of what is shared. Where a site has few subjects, what stays fits them before the sites have learnt
            anything together; a small factor prevents that. Of a method that sends nothing, all trains at the whole
            rate.
        min_lr: learning rate at the end of the cosine schedule.
        warmup_fraction: fraction of the whole training's steps in which the learning rate rises linearly.
        betas: AdamW's two decay rates, of the mean and of the mean square of the gradient.
        weight_decay: AdamW's decoupled weight decay.
        local_weight_decay_factor: weight decay of what stays at the site, as a multiple of that of what is shared.
        proximal: strength of the pull towards the global adapter that a round begins with, in the methods that have
            one: mu of ``fedprox-lora``, lambda of ``ditto-lora``; elsewhere it does nothing.
        clip_norm: largest norm of the gradient; a longer one is shortened to it.
        label_smoothing: label smoothing of the cross-entropy loss.
        class_weight_threshold: class imbalance (larger class over smaller) above which the loss weighs classes by their
            inverse frequency.
        n_views: augmented views per subject in the feature cache besides view 0, which is unaugmented.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (bf16 where a CUDA device has it, else fp32).
        feature_dtype: how trunk features are kept: float32, or float16 for half the space.
        compare_alone: whether each site, when the last adapter is evaluated, also trains by itself what ``local-lora``
            would, in as many passes as all rounds had, and scores it: about the computing of all rounds once more, on
            cached features, at every site. Nothing of that training leaves but its test scores.
        drop_path: probability that an adapted block is skipped in a training step (stochastic depth).
        seed: random seed of the whole experiment; every random stream derives from it.
    """

    n_rounds: int = limited(12, between(1, MAX_ROUNDS))
    schedule: str = limited("joint", one_of("joint", "alternate", "local-after"))
    local_epochs: int = limited(2, between(1, 1000))
    batch_size: int = limited(8, between(1, 4096))
    lr: float = limited(5e-3, above(0, 1))
    local_lr_factor: float = limited(0.1, between(0, 1))
    min_lr: float = limited(
        1e-5, Limit("between 0 and train.lr", lambda value: value >= 0, lambda train: train.min_lr <= train.lr)
    )
    warmup_fraction: float = limited(0.1, below(0, 1))
    betas: tuple[float, ...] = limited((0.9, 0.95), Limit("two numbers, each at least 0 and below 1", _are_decays))
    weight_decay: float = limited(0.05, between(0, 10))
    local_weight_decay_factor: float = limited(1.0, between(0, 1000))
    proximal: float = limited(0.1, between(0, 100))
    clip_norm: float = limited(5.0, above(0, 1e6))
    label_smoothing: float = limited(0.1, below(0, 1))
    class_weight_threshold: float = limited(1.2, between(1, 1e6))
    n_views: int = limited(4, between(0, 256))
    precision: str = limited("auto", one_of("auto", "fp32", "bf16", "fp16"))
    feature_dtype: str = limited("float32", one_of("float32", "float16"))
    compare_alone: bool = True
    drop_path: float = limited(0.0, below(0, 1))
    seed: int = limited(0, between(0, 2**31 - 1))

    def __post_init__(self) -> None:
        check_limits(self, "train.")


@dataclass(frozen=True)
class JobConfig:
    """The job scope: what every site of a federation agrees on. It travels with the job and holds no path.

    Args:
        experiment: name of the experiment; it is also the folder of the local states that each site keeps for it.
        method: the federated method: what trains, what is sent and what stays.
        backbone: preset of the frozen backbone.
        backbone_sha256: hash of the only checkpoint that sites may train with; empty: the one shipped for the preset,
            where there is one, else any.
        weighting: a site's weight in the average: its number of training subjects (``subjects``), or 1 (``uniform``).
        aggregation: how the server forms the next global adapter; empty: as the method does by default.
        payload_dtype: how the numbers of the global adapter travel and are kept, in both directions: ``float32``, or
            ``float16`` for half the bytes and eleven bits of each number; sites and server compute with more.
    """

    experiment: str = limited("demo", Limit("1 to 64 letters, digits, '-' or '_'", _is_name))
    method: str = limited("med-duallora", METHOD_NAMES)
    backbone: str = limited("cinema-mini", BACKBONE_NAMES)
    backbone_sha256: str = limited("", sha256_or_empty())
    weighting: str = limited("subjects", one_of("subjects", "uniform"))
    aggregation: str = limited("", AGGREGATION_NAMES)
    payload_dtype: str = limited("float32", one_of("float32", "float16"))
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_limits(self, "")

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
        data_dir: folder of this site's prepared cohort, the one that holds cohort.csv.
        state_dir: folder that keeps the local adapter, the head and the optimizer state between rounds and jobs.
        cache_dir: folder that keeps computed trunk features; it may be deleted at any time.
        backbone_checkpoint: file of the backbone's weights (safetensors); null: the one shipped for the job's preset.
        device: where this site computes; ``auto`` is the first GPU where there is one, else the CPU.
        n_threads: CPU threads of the training; results depend on it in their last digits.
        cache_budget_mb: largest size of the feature cache in MiB; what was unused for longest is removed first.
        policy: the site's privacy floor.
        ledger: file that records everything that leaves; null: ``egress_ledger.jsonl`` in ``state_dir``.
        release: what a model must reach on this site's test subjects before it is used here.
        role: ``train``: it trains and evaluates; ``predict``: it only evaluates, and no adapter ever leaves it.
        rank_limit: how many components of the global adapter this site trains, the strongest first; the others go back
            as they came; 0: all. A limit below the job's rank needs ``aggregation`` ``svd`` or ``geometric-median``.
    """

    data_dir: Path
    state_dir: Path
    cache_dir: Path
    backbone_checkpoint: Path | None = None
    device: str = limited("auto", Limit("auto, cpu, cuda or cuda:N", _is_device))
    n_threads: int = limited(1, between(1, 1024))
    cache_budget_mb: int = limited(4096, between(1, 2**30))
    policy: SitePolicy = field(default_factory=SitePolicy)
    ledger: Path | None = None
    release: ReleaseFloors = field(default_factory=ReleaseFloors)
    role: str = limited(TRAIN, one_of(TRAIN, "predict"))
    rank_limit: int = limited(0, between(0, 256))

    def __post_init__(self) -> None:
        check_limits(self, "")

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
        """Read a site's JSON configuration, which names every key of its policy (ConfigError names file and key)."""
        where = f"site configuration {path.name} in {path.parent}"
        try:
            values = read_object(path, unique=True)
        except OSError as error:
            raise ConfigError(f"{where}: {error.strerror or error}; make it readable, or correct its path") from error
        except ValueError as error:
            raise ConfigError(f"{where}: {error}; correct it there") from error
        try:
            config = cls.from_dict(values)
            check_complete(values.get("policy", {}))
        except ConfigError as error:
            raise error.within(where) from error
        return config

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
