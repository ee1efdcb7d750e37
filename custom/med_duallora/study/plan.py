"""Which runs a study consists of: arms x recipes x cohorts x seeds, each with a key of everything that decides it."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from med_duallora.adapter.methods import as_published
from med_duallora.backbone import BackboneConfig, build_classifier, checkpoint_sha256, packaged_checkpoint
from med_duallora.cohorts.prepared import COHORT_TABLE
from med_duallora.errors import ConfigError
from med_duallora.settings.config import JobConfig
from med_duallora.settings.recipes import RECIPES
from med_duallora.study.arms import NEW_SITE, REFERENCE, Arm, Way
from med_duallora.support.files import atomic_path, sha256_of_file, sha256_of_json
from med_duallora.support.folders import made
from med_duallora.support.locks import locked

FORMAT = 1
"""Of a run's record and of what decides its numbers: one that changes makes other keys."""
DEFAULT = "default"
RUNS, CACHE, WORK = "runs", "cache", ".study-at-work"
"""Folders of a study; the last one is emptied when a study begins, so that nothing else may be called like that."""
SET_BY_STUDY = {
    "train.seed": "see --seeds",
    "method": "see --methods",
    "experiment": "",
    "train.compare_alone": "see local-lora",
}
"""Settings that a study gives every run itself, and what to do instead."""


@dataclass(frozen=True)
class Recipe:
    """Settings under a name.

    Args:
        name: what tables call them.
        settings: ``KEY=VALUE`` texts on top of the study's.
    """

    name: str
    settings: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> "Recipe":
        """Return a recipe from ``name: KEY=VALUE ...``, or the known one of a name (ConfigError: it is neither)."""
        if text in RECIPES:
            return cls(text, RECIPES[text].settings)
        name, colon, settings = text.partition(":")
        if not colon or not name.strip().replace("-", "").isalnum():
            raise ConfigError(
                f"--recipe-set {text!r} is not 'name: KEY=VALUE ...' with a name of letters, digits, '-', nor one of "
                f"{', '.join(RECIPES)}"
            )
        return cls(name.strip(), tuple(settings.split()))


@dataclass(frozen=True)
class Cohort:
    """A federation of prepared cohorts.

    Args:
        name: of its folder.
        sites: folder of the prepared cohort by site.
        tables: SHA-256 of each site's table.
        is_synthetic: whether all are phantoms, or none; None: some.
    """

    name: str
    sites: Mapping[str, Path]
    tables: Mapping[str, str]
    is_synthetic: bool | None

    @classmethod
    def of(cls, data: Path, sites: Mapping[str, Path], is_synthetic: bool | None) -> "Cohort":
        """Return the federation in a folder."""
        tables = {site: sha256_of_file(folder / COHORT_TABLE) for site, folder in sites.items()}
        return cls(data.resolve().name, dict(sites), tables, is_synthetic)


@dataclass(frozen=True)
class RunSpec:
    """One run: enough to do it in another process.

    Args:
        arm: what is run.
        recipe: name of its settings.
        cohort: whose subjects.
        job: all settings, with the run's seed.
        checkpoint: of the backbone.
        n_train: training subjects per site.
        n_test: test subjects per site; None: all others.
        out: folder of the study.
        truth: table of the true values of phantoms, for the arm that reads them.
    """

    arm: Arm
    recipe: str
    cohort: Cohort
    job: JobConfig
    checkpoint: Path
    n_train: int
    n_test: int | None
    out: Path
    truth: Path | None = None

    @property
    def seed(self) -> int:
        """Return the seed of split and training."""
        return self.job.train.seed

    def decides(self) -> dict[str, Any]:
        """Return everything that decides the numbers on one machine, as plain JSON values."""
        arm = {"way": self.arm.way.name, "permuted": self.arm.permuted, "random_weights": self.arm.random_weights}
        truth = {"truth": sha256_of_file(self.truth)} if self.truth else {}
        return {
            **truth,
            "format": FORMAT,
            "arm": arm,
            "job": self.job.to_dict(),
            "backbone": checkpoint_sha256(self.checkpoint),
            "tables": dict(self.cohort.tables),
            "n_train": self.n_train,
            "n_test": self.n_test,
        }

    @property
    def key(self) -> str:
        """Return a short hash of what decides the numbers: other settings are another run."""
        return sha256_of_json(self.decides())[:16]

    @property
    def path(self) -> Path:
        """Return the file of the run's record."""
        name = f"{self.arm.name}--{self.recipe}--seed-{self.seed}--{self.key}.json"
        return self.out / RUNS / self.cohort.name / name


def specs(
    arms: Sequence[Arm],
    recipes: Sequence[Recipe],
    cohorts: Sequence[Cohort],
    seeds: Sequence[int],
    *,
    n_few: int | None = None,
    job: JobConfig,
    checkpoint: Path | None,
    n_train: int,
    n_test: int | None,
    out: Path,
    truth: Path | None = None,
) -> list[RunSpec]:
    """Return all runs, seed by seed, so that a study that is broken off has every method in whole seeds.

    Args:
        arms: what is compared.
        recipes: under which settings.
        cohorts: on which federations.
        seeds: of splits and trainings.
        n_few: how many of the seeds are enough for arms with ``few_seeds``; None: all.
        job: the settings that all runs have in common.
        checkpoint: backbone weights; None: the shipped ones.
        n_train: training subjects per site.
        n_test: test subjects per site; None: all others.
        out: folder of the study.
        truth: table of the true values of phantoms.

    Raises:
        ConfigError: a setting is unknown or does not fit.
        CheckpointError: no checkpoint is shipped for the backbone.
    """
    for cohort in cohorts:
        if len(cohort.sites) < 2 and any(arm.way is Way.NEW_SITE for arm in arms):
            raise ConfigError(f"--methods: {NEW_SITE} needs two sites, but {cohort.name} has one; leave it out")
    for recipe in recipes:
        refuse_own(recipe.settings)
        for arm in arms:  # before anything is written
            _of_arm(job.with_overrides(recipe.settings), arm)
    trained = checkpoint or packaged_checkpoint(job.backbone)
    found = []
    for index, seed in enumerate(seeds):
        here = [arm for arm in arms if n_few is None or index < n_few or not arm.few_seeds]
        for cohort in cohorts:
            for recipe in recipes:
                settings = job.with_overrides([*recipe.settings, f"train.seed={seed}"])
                for arm in here:
                    weights = random_weights(settings.backbone, out) if arm.random_weights else trained
                    own = replace(_of_arm(settings, arm), backbone_sha256=checkpoint_sha256(weights))
                    values = truth if arm.way is Way.TRUTH else None
                    found.append(RunSpec(arm, recipe.name, cohort, own, weights, n_train, n_test, out, values))
    return found


def refuse_own(assignments: Iterable[str]) -> None:
    """Refuse settings that would be given and not act (ConfigError names the first)."""
    for name in (text.partition("=")[0].strip() for text in assignments):
        if name in SET_BY_STUDY:
            raise ConfigError(
                f"{name} cannot be set: a study sets it for every run"
                + (SET_BY_STUDY[name] and f"; {SET_BY_STUDY[name]}")
            )


def _of_arm(job: JobConfig, arm: Arm) -> JobConfig:
    """Return the settings of an arm: no other method than the reference has a slower part that stays at a site."""
    method = arm.method or REFERENCE
    own = job if method == REFERENCE else as_published(job, method)
    # the study has an arm of its own for what a site reaches alone
    return replace(own, method=method, experiment="study", train=replace(own.train, compare_alone=False))


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Keep the folder of a study for this process inside the block; what a killed one was at work with goes.

    Raises:
        ConfigError: another process has it.
    """
    busy = ConfigError(f"another study is at work in {out}; wait until it has ended, or give another --out")
    with made(out), locked(out, busy):
        shutil.rmtree(out / WORK, ignore_errors=True)
        yield


def random_weights(backbone: str, out: Path) -> Path:
    """Return a checkpoint of a backbone with random weights, the same ones in every study."""
    from safetensors.torch import save_file

    path = out / CACHE / f"random-{backbone}.safetensors"
    if not path.exists():
        model = build_classifier(BackboneConfig.preset(backbone), seed=0)
        with atomic_path(path) as partial:
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, partial)
    return path
