"""A site at work: one object that validates, trains a round and evaluates, in a study and inside FLARE alike."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from med_duallora.adapter.methods import method_of
from med_duallora.adapter.model import N_CLASSES, DualLoRAModel
from med_duallora.backbone import (
    BackboneConfig,
    check_agreed,
    checkpoint_sha256,
    load_classifier,
    packaged_checkpoint,
)
from med_duallora.boundary.contract import EgressContract, demands_of
from med_duallora.boundary.lineage import ALONE, Lineage
from med_duallora.cohorts.classes import lacking_class
from med_duallora.cohorts.prepared import COHORT_TABLE, SPLITS, PreparedCohort, PreparedSubject
from med_duallora.errors import CohortError, StateError
from med_duallora.measures import VARIANTS, score_name
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.baseline import backbone_probabilities
from med_duallora.site.features import FeatureCache, FeatureSource
from med_duallora.site.scores import scores
from med_duallora.site.state import Owner, SiteState, SiteStateStore, newest_state, private_folder
from med_duallora.site.training import class_weights, predict, train_round
from med_duallora.support.devices import resolve_device
from med_duallora.support.files import sha256_of_file, sha256_of_json, write_json

logger = logging.getLogger(__name__)

State = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class SiteUpdate:
    """What a site offers after a round; the egress filter decides what of it leaves.

    Args:
        tensors: the parameters that the method sends, float32.
        weight: the site's weight in the aggregation.
        metrics: by the contract's names.
    """

    tensors: dict[str, np.ndarray]
    weight: float
    metrics: dict[str, float]


class SiteRuntime:
    """Model, data, cache and state of one site for one experiment.

    Args:
        site: name of the site.
        job: the job scope.
        config: the site scope.

    Attributes:
        lineage: the run this site takes part in, and those that it continues.
        offered: round and weight of the last update; None before the first.
        reported: the last value of every metric that was computed and that the site's policy lets out.

    Raises:
        ConfigError: the device is not there, a setting does not fit the backbone, or the job asks for more than this
            site's policy gives.
        CheckpointError: the backbone checkpoint is unusable.
        CohortError: the prepared cohort is unusable for training.
        StateError: the state directory cannot be written.
    """

    def __init__(self, site: str, job: JobConfig, config: SiteConfig) -> None:
        torch.set_num_threads(config.n_threads)
        self.site = site
        self.job = job
        self.method = method_of(job)
        self.contract = EgressContract.for_job(job)
        self.policy = config.policy
        self.policy.check_job(**demands_of(job, self.contract))
        self.cohort = PreparedCohort.read(config.data_dir)
        self.train_subjects = self.cohort.split("train")
        if lack := lacking_class(self.cohort):
            raise CohortError(f"training needs both classes, but {lack}")
        checkpoint = config.backbone_checkpoint or packaged_checkpoint(job.backbone)
        self.backbone_sha256 = checkpoint_sha256(checkpoint)
        self.policy.check_backbone(self.backbone_sha256)
        check_agreed(job.backbone, job.backbone_sha256, self.backbone_sha256)
        backbone = BackboneConfig.preset(job.backbone)
        classifier = load_classifier(checkpoint, backbone, n_classes=N_CLASSES, drop_path=job.train.drop_path)
        self.model = DualLoRAModel(classifier, self.method.lora(job.lora), job.train.seed)
        self.model.to(resolve_device(config.device)).eval()
        self.cache = FeatureCache(config.cache_dir, config.cache_budget_mb * 2**20)
        self.source = FeatureSource(self.model, job, self.backbone_sha256, self.cache)
        self._owner = Owner(self._identity(), self.backbone_sha256)
        self._experiment = config.state_dir / job.experiment
        self._cohort_sha256 = sha256_of_file(config.data_dir / COHORT_TABLE)
        self._start = self.model.values(self.method.kept_roles(job.lora))
        private_folder(self._experiment)  # not after hours of training
        self.follow(ALONE)
        self.offered: tuple[int, float] | None = None
        self.reported: dict[str, float] = {}

    def follow(self, lineage: Lineage) -> None:
        """Take part in a run: its states are continued, and no other ones."""
        self.lineage = lineage
        self.directory = self._experiment / lineage.run_id
        self.store = SiteStateStore(self.directory, self._owner)

    def sent_state(self) -> dict[str, np.ndarray]:
        """Return what the model now holds of the parameters that leave."""
        return self.model.values(self.method.sent_roles(self.job.lora))

    def kept_state(self) -> dict[str, np.ndarray]:
        """Return what the model now holds of the trained parameters that stay."""
        return self.model.values(self.method.kept_roles(self.job.lora))

    def n_subjects(self) -> dict[str, int]:
        """Return the number of subjects by split."""
        return {split: len(self.cohort.split(split)) for split in SPLITS}

    def allowed_metrics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return what the site's policy lets out of its metrics."""
        return self.policy.allowed_metrics(metrics, self.n_subjects())

    def _report(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the allowed metrics, and remember them: the boundary lets out no number that was not computed here."""
        allowed = self.allowed_metrics(metrics)
        self.reported |= allowed
        return allowed

    def _identity(self) -> str:
        """Return what a saved state must agree with; the length of the federation may change."""
        job = self.job.to_dict()
        job["train"].pop("n_rounds")
        job.pop("backbone_sha256")  # the store checks the checkpoint itself, pinned or not
        return sha256_of_json({"site": self.site, "job": job})

    def validate(
        self, global_state: State, round_index: int, should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Score the incoming global adapter with the site's own local one, before this round's training.

        Returns:
            ``val_loss`` and ``val_balanced_accuracy`` on the validation split, each where it is defined.

        Raises:
            TrainingAborted: ``should_stop`` said so.
        """
        self._restore(global_state, round_index)
        subjects = self.cohort.split("val")
        if not subjects:
            return {}
        labels = np.array([subject.label for subject in subjects])
        probabilities = self._predictions(subjects, should_stop)
        found = {"val_loss": self._balanced_loss(labels, probabilities)}
        accuracy = scores(labels, probabilities).get("balanced_accuracy")
        return self._report(found if accuracy is None else {**found, "val_balanced_accuracy": accuracy})

    def train_round(
        self,
        global_state: State,
        round_index: int,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[dict[str, float]], None] = lambda _: None,
    ) -> SiteUpdate:
        """Train one round from the incoming global adapter and the site's own state; save the state, then return.

        Raises:
            TrainingAborted: ``should_stop`` said so; the state of the last finished round stays as it was.
            TrainingDiverged: a loss or gradient is not finite; likewise.
            StateError: another process is at work with this run's state, or it cannot be written; likewise.
        """
        with self.store.locked():
            return self._trained(global_state, round_index, should_stop, on_progress)

    def _trained(
        self,
        global_state: State,
        round_index: int,
        should_stop: Callable[[], bool],
        on_progress: Callable[[dict[str, float]], None],
    ) -> SiteUpdate:
        started = time.monotonic()
        n_hits, n_misses = self.cache.n_hits, self.cache.n_misses
        state = self._restore(global_state, round_index)
        self._say_what_changed(state, round_index)
        result = train_round(
            self.model,
            self.source,
            self.train_subjects,
            job=self.job,
            site=self.site,
            round_index=round_index,
            moments=state.moments if state else {},
            should_stop=should_stop,
            on_progress=on_progress,
        )
        self.store.save(SiteState(round_index, self.kept_state(), result.moments, self._cohort_sha256))
        metrics = {
            "train_loss": result.loss,
            "n_subjects": float(len(self.train_subjects)),
            "n_steps": float(result.n_steps),
            "cache_hits": float(self.cache.n_hits - n_hits),
            "cache_misses": float(self.cache.n_misses - n_misses),
            "seconds": time.monotonic() - started,
        }
        weight = float(len(self.train_subjects)) if self.job.weighting == "subjects" else 1.0
        self.offered = (round_index, weight)
        return SiteUpdate(self.sent_state(), weight, self._report(metrics))

    def evaluate(self, global_state: State, should_stop: Callable[[], bool] = lambda: False) -> dict[str, float]:
        """Score a global adapter on the test split with the site's own local state, in every variant.

        ``backbone`` is the frozen backbone with a head fitted to this site's training subjects; ``global``, ``local``
        and ``both`` are the trained model with these adapters. Predictions stay at the site (predictions.json).

        Returns:
            ``<variant>.<metric>`` where defined, and ``n_subjects``, ``n_positive``, ``n_negative``.

        Raises:
            TrainingAborted: ``should_stop`` said so.
            StateError: the predictions cannot be written.
        """
        subjects = self.cohort.split("test")
        labels = np.array([subject.label for subject in subjects], dtype=int)
        probabilities = self._variants(global_state, should_stop)
        metrics = {"n_subjects": len(labels), "n_positive": labels.sum(), "n_negative": (1 - labels).sum()}
        for variant, chances in probabilities.items():
            metrics |= {score_name(variant, name): value for name, value in scores(labels, chances).items()}
        rows = [
            {
                "subject": subject.subject,
                "label": subject.label,
                **{name: float(values[row]) for name, values in probabilities.items()},
            }
            for row, subject in enumerate(subjects)
        ]
        self._keep_predictions(rows)
        return self._report({name: float(value) for name, value in metrics.items()})

    def _keep_predictions(self, rows: list[dict[str, Any]]) -> None:
        private_folder(self.directory)
        try:
            write_json(self.directory / "predictions.json", {"not_for_diagnosis": True, "predictions": rows}, 0o600)
        except OSError as error:
            raise StateError(f"the predictions cannot be kept in state_dir ({error.strerror}); make room") from error

    def _variants(self, global_state: State, should_stop: Callable[[], bool]) -> dict[str, np.ndarray]:
        self._restore(global_state, None)
        model, source, settings = self.model, self.source, self.job.train
        train, test = self.train_subjects, self.cohort.split("test")
        found = {"backbone": backbone_probabilities(model, source, train, test, settings, should_stop=should_stop)}
        for name, variant in VARIANTS.items():
            if variant.adapters:
                with model.using(*variant.adapters):
                    found[name] = self._predictions(test, should_stop)
        return found

    def _predictions(self, subjects: Sequence[PreparedSubject], should_stop: Callable[[], bool]) -> np.ndarray:
        """Return the probabilities of disease (n_subjects,) by what the model now holds and its active adapters."""
        return predict(
            self.model,
            self.source,
            subjects,
            self.job.train,
            reference=self.train_subjects,
            should_stop=should_stop,
        )

    def _restore(self, global_state: State, round_index: int | None) -> SiteState | None:
        """Put the incoming global state and the site's newest state from before ``round_index`` into the model."""
        state = newest_state(self._experiment, self._owner, self.lineage, round_index)
        self.model.load_values(self.method.sent_roles(self.job.lora), global_state)
        self.model.load_values(self.method.kept_roles(self.job.lora), state.kept if state else self._start)
        return state

    def _say_what_changed(self, state: SiteState | None, round_index: int) -> None:
        """Say in the site's log what its administrator may not expect."""
        if state is None and round_index > 0:
            logger.warning(
                "no usable local state from before round %d of this training: the local adapter starts from scratch",
                round_index + 1,
            )
        if state and state.cohort != self._cohort_sha256:
            logger.warning(
                "the cohort's table changed since round %d: training continues with the subjects that it lists now",
                state.round_index + 1,
            )

    def _balanced_loss(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        weights = class_weights([s.label for s in self.train_subjects], self.job.train.class_weight_threshold)
        chances = torch.from_numpy(np.stack([1 - probabilities, probabilities], axis=1)).clamp_min(1e-12)
        target = torch.from_numpy(labels)
        return float(functional.nll_loss(chances.log(), target, weight=torch.tensor(weights, dtype=chances.dtype)))
