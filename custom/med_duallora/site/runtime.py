"""A site at work: one object that validates, trains a round and evaluates, in a study and inside FLARE alike."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import ALONE
from med_duallora.cohorts.classes import class_sizes
from med_duallora.cohorts.prepared import COHORT_TABLE, SPLITS, PreparedCohort, PreparedSubject
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.errors import EgressViolation
from med_duallora.measures import VARIANTS, score_name
from med_duallora.settings.config import TRAIN, JobConfig, SiteConfig
from med_duallora.settings.policy import ClassSizes
from med_duallora.site.baseline import backbone_probabilities
from med_duallora.site.budget import AnswerBudget, Question
from med_duallora.site.calibration import calibrate
from med_duallora.site.fitness import check
from med_duallora.site.kept_calibration import KeptCalibration, KeptCounts, keep, keep_predictions
from med_duallora.site.model import SiteModel, State
from med_duallora.site.offer import EVALUATES_ONLY, Offer, SiteUpdate
from med_duallora.site.prediction import balanced_loss
from med_duallora.site.scores import scores
from med_duallora.site.state import STATE_FILE, SiteState, state_checksum
from med_duallora.site.training import class_weights, train_round
from med_duallora.support.digest import content_digest
from med_duallora.support.files import sha256_of_file

logger = logging.getLogger(__name__)


class SiteRuntime:
    """A site's model with the cohort that it is trained and scored on, for one experiment.

    Args:
        site: name of the site.
        job: the job scope.
        config: the site scope.

    Attributes:
        model: the site's model and state; what it holds of subjects are the head's statistics alone.
        offered: what the last trained round offers; None before the first, and once a step begins from another adapter.
        reported: the newest value of every metric that a step of this site offered.

    Raises:
        UnfitError: the site cannot run this job, see ``fitness.problems``; nothing was loaded.
        ConfigError: no site could run this job.
        StateError: the state directory cannot be written.
    """

    def __init__(self, site: str, job: JobConfig, config: SiteConfig) -> None:
        self.site = site
        self.job = job
        self.contract = EgressContract.for_job(job)
        self.policy = config.policy
        self._config = config
        check(config, job)
        self.cohort = PreparedCohort.read(config.data_dir)
        self.train_subjects = self.cohort.split("train")
        self.model = SiteModel(site, job, config)
        self._cohort_sha256 = sha256_of_file(config.data_dir / COHORT_TABLE)
        self.offered: Offer | None = None
        self.reported: dict[str, float] = {}
        self._asked_at: float | None = None  # the validation before a round counts as a part of it
        self._budget = AnswerBudget(config)

    def kept_state(self) -> dict[str, np.ndarray]:
        """Return what the model now holds of the trained parameters that stay."""
        return self.model.kept_state()

    def n_subjects(self) -> dict[str, ClassSizes]:
        """Return the number of normal and of diseased subjects by split; of the training split, those trained on."""
        return {split: class_sizes(self.cohort.split(split)) for split in SPLITS} | {
            "train": class_sizes(self.train_subjects)
        }

    def allowed_metrics(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return what the site's policy lets out of its metrics."""
        return self.policy.allowed_metrics(metrics, self.n_subjects())

    def _claimed(self, asked: int | str, global_state: State) -> dict[str, float] | None:
        """Count what is asked before it is computed; return what was answered to it earlier, see ``AnswerBudget``."""
        if self._config.role != TRAIN and not isinstance(asked, str):
            raise EgressViolation(EVALUATES_ONLY)
        question = self._question(asked)
        return self._budget.claim(question, content_digest(global_state, {})) if question else None

    def _question(self, asked: int | str) -> Question | None:
        lineage = self.model.lineage
        return None if lineage == ALONE else Question(self.job.experiment, lineage.run_id, asked)

    def _answered(self, asked: int | str, global_state: State, compute: Callable[[], Offer]) -> dict[str, float]:
        """Return the metrics of what is asked: those that were answered to it before, else computed now."""
        earlier = self._claimed(asked, global_state)
        if earlier is not None:
            return self._offer(Offer(self.allowed_metrics(earlier)))
        offer = compute()
        if question := self._question(asked):
            self._budget.keep(question, offer.metrics)
        return self._offer(offer)

    def _offer(self, offer: Offer) -> dict[str, float]:
        """Keep what a step offers, and return its metrics: the boundary lets out nothing that was not offered here."""
        if offer.digests:
            self.offered = offer
        self.reported |= offer.metrics
        return dict(offer.metrics)

    def _restored(self, global_state: State, before_round: int | None) -> SiteState | None:
        """Begin a step, see ``SiteModel.restore``; what a step from another adapter offered is no longer offered."""
        if self.offered and not self.offered.is_of(global_state):
            self.offered = None
        return self.model.restore(global_state, before_round)

    def validate(
        self, global_state: State, round_index: int, should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Score the incoming global adapter with the site's own local one, before this round's training.

        Returns:
            ``val_loss`` and ``val_balanced_accuracy`` on the validation split, each where it is defined.

        Raises:
            TrainingAborted: ``should_stop`` said so.
            EgressViolation: the round was answered with another adapter, or the policy's number of rounds is spent.
        """
        self._asked_at = time.monotonic()
        asked = (global_state, round_index, should_stop)
        return self._answered(round_index, global_state, lambda: self._validated(*asked))

    def _validated(self, global_state: State, round_index: int, should_stop: Callable[[], bool]) -> Offer:
        self._restored(global_state, round_index)
        subjects = self.cohort.split("val")
        if not subjects:
            return Offer({}, round_index)
        labels = np.array([subject.label for subject in subjects])
        probabilities = self._predictions(subjects, should_stop)
        found = {"val_loss": balanced_loss(labels, probabilities, self._class_weights())}
        accuracy = scores(labels, probabilities).get("balanced_accuracy")
        found |= {} if accuracy is None else {"val_balanced_accuracy": accuracy}
        return Offer(self.allowed_metrics(found), round_index)

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
            EgressViolation: see ``validate``; nothing was trained.
        """
        with self.model.store.locked():
            self._claimed(round_index, global_state)
            return self._trained(global_state, round_index, should_stop, on_progress)

    def _trained(
        self,
        global_state: State,
        round_index: int,
        should_stop: Callable[[], bool],
        on_progress: Callable[[dict[str, float]], None],
    ) -> SiteUpdate:
        started, self._asked_at = self._asked_at or time.monotonic(), None
        cache = self.model.cache
        n_hits, n_misses = cache.n_hits, cache.n_misses
        state = self._restored(global_state, round_index)
        self._say_what_changed(state, round_index)
        result = train_round(
            self.model.network,
            self.model.source,
            self.train_subjects,
            job=self.job,
            site=self.site,
            round_index=round_index,
            moments=state.moments if state else {},
            should_stop=should_stop,
            on_progress=on_progress,
        )
        of_training = {"cache_hits": float(cache.n_hits - n_hits), "cache_misses": float(cache.n_misses - n_misses)}
        self.model.fit_head(self.train_subjects, should_stop)  # so that the saved state can predict
        self.model.fit_reference(self.train_subjects, should_stop)
        self.model.remember(SiteState(round_index, self.model.kept_state(), result.moments, self._cohort_sha256))
        metrics = {
            "train_loss": result.loss,
            "n_subjects": float(len(self.train_subjects)),
            "n_steps": float(result.n_steps),
            **of_training,
            "seconds": time.monotonic() - started,
        }
        weight = float(len(self.train_subjects)) if self.job.weighting == "subjects" else 1.0
        tensors = self.model.sent_state()
        allowed = self._offer(Offer.of_round(round_index, weight, tensors, self.allowed_metrics(metrics)))
        return SiteUpdate(tensors, weight, allowed)

    def evaluate(
        self, global_state: State, should_stop: Callable[[], bool] = lambda: False, *, kind: str = "last"
    ) -> dict[str, float]:
        """Score a global adapter on the test split with the site's own local state, in every variant.

        ``backbone`` is the frozen backbone with a head fitted to this site's training subjects; ``global``, ``local``
        and ``both`` are the trained model with these adapters. Predictions stay at the site (predictions.json).

        Returns:
            ``<variant>.<metric>`` where defined, and ``n_test_subjects``, ``n_positive``, ``n_negative``, as far as the
            site's policy lets them out.

        The state then also holds this global adapter and the head's statistics for it: whoever predicts later uses the
        model that was evaluated here.

        Args:
            global_state: the adapter.
            should_stop: asked after each batch.
            kind: which adapter of the run it is, one of ``ADAPTER_KINDS``; one of each kind is evaluated.

        Raises:
            TrainingAborted: ``should_stop`` said so.
            StateError: another process is at work with this run's state, or it or the predictions cannot be written.
            EgressViolation: another adapter of this kind was evaluated in this run, or the policy's number of
                evaluations is spent; nothing was computed.
        """
        with self.model.store.locked():
            return self._answered(kind, global_state, lambda: self._evaluated(global_state, should_stop))

    def _evaluated(self, global_state: State, should_stop: Callable[[], bool]) -> Offer:
        subjects = self.cohort.split("test")
        labels = np.array([subject.label for subject in subjects], dtype=int)
        probabilities = self._variants(global_state, should_stop)
        metrics = {"n_test_subjects": len(labels), "n_positive": labels.sum(), "n_negative": (1 - labels).sum()}
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
        keep_predictions(self.model.directory, rows)
        if "both" in probabilities:  # the model that stays
            self._keep_calibration(labels, probabilities["both"], should_stop)
        return Offer(self.allowed_metrics({name: float(value) for name, value in metrics.items()}))

    def _keep_calibration(self, labels: np.ndarray, chances: np.ndarray, should_stop: Callable[[], bool]) -> None:
        """Fit temperature and threshold to the validation subjects, for both adapters; nothing of it leaves."""
        subjects, place, floors = self.cohort.split("val"), self.model.directory, self._config.release
        state = state_checksum(place / STATE_FILE)
        fitted = calibrate([item.label for item in subjects], self._predictions(subjects, should_stop), floors)
        facts = (self.site, self.job.experiment, is_synthetic(self._config.data_dir), state)
        keep(place, KeptCalibration(*facts, fitted, floors, KeptCounts(**vars(fitted.counts(labels, chances)))))

    def _variants(self, global_state: State, should_stop: Callable[[], bool]) -> dict[str, np.ndarray]:
        state = self._restored(global_state, None)
        state = self.model.finish(state, global_state, self.train_subjects, should_stop)
        network, source, settings = self.model.network, self.model.source, self.job.train
        train, test = self.train_subjects, self.cohort.split("test")
        found = {"backbone": backbone_probabilities(network, source, train, test, settings, should_stop=should_stop)}
        for name, variant in VARIANTS.items():
            if variant.adapters:
                with network.using(*variant.adapters):
                    found[name] = self._predictions(test, should_stop)
        if state:
            self.model.fit_head(train, should_stop)
            self.model.fit_reference(train, should_stop)
            self.model.remember(state)
        return found

    def _class_weights(self) -> tuple[float, float]:
        return class_weights([s.label for s in self.train_subjects], self.job.train.class_weight_threshold)

    def _predictions(self, subjects: Sequence[PreparedSubject], should_stop: Callable[[], bool]) -> np.ndarray:
        """Return the probabilities of disease (n_subjects,) with the head's statistics fitted to the training split."""
        if subjects:
            self.model.fit_head(self.train_subjects, should_stop)
        return self.model.predict(subjects, should_stop)

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
