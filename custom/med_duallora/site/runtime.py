"""A site at work: one object that validates, trains a round and evaluates, in a study and inside FLARE alike."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import ALONE
from med_duallora.cohorts.classes import class_sizes
from med_duallora.cohorts.prepared import COHORT_TABLE, SPLITS, PreparedCohort, PreparedSubject
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.errors import EgressViolation
from med_duallora.measures import FEDERATED
from med_duallora.settings.config import TRAIN, JobConfig, SiteConfig
from med_duallora.settings.policy import ClassSizes
from med_duallora.settings.workflow import LAST
from med_duallora.site.alone import train_alone
from med_duallora.site.budget import AnswerBudget, Question
from med_duallora.site.calibration import calibrate
from med_duallora.site.deployed import keep_chosen
from med_duallora.site.evaluated import EvaluatedSite
from med_duallora.site.fitness import check
from med_duallora.site.kept_calibration import KeptCalibration, KeptChoice, KeptCounts, keep, keep_predictions
from med_duallora.site.model import SiteModel, State
from med_duallora.site.offer import EVALUATES_ONLY, Offer, SiteUpdate
from med_duallora.site.prediction import balanced_loss
from med_duallora.site.scores import scores
from med_duallora.site.state import STATE_FILE, SiteState, state_checksum
from med_duallora.site.training import class_weights, train_round
from med_duallora.site.variants import Split, adapters_said, backbone_said
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
        with self.model.network.training_first(self._config.rank_limit):
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
        self, global_state: State, should_stop: Callable[[], bool] = lambda: False, *, kind: str = LAST
    ) -> dict[str, float]:
        """Score a global adapter on the test split with the site's own local state, in every variant.

        The variants are those of ``measures.VARIANTS``; ``alone`` and ``chosen`` are there for the last adapter of a
        job only. Predictions stay at the site (predictions.json).

        Returns:
            ``<variant>.<metric>`` where defined, and ``n_test_subjects``, ``n_positive``, ``n_negative``, as far as the
            site's policy lets them out.

        The state then also holds this global adapter and the head's statistics for it; where the site chose another
        model, that one is kept beside it: whoever predicts later uses what was evaluated and chosen here.

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
            return self._answered(kind, global_state, lambda: self._evaluated(global_state, kind, should_stop))

    def _evaluated(self, global_state: State, kind: str, should_stop: Callable[[], bool]) -> Offer:
        split = Split(self.train_subjects, self.cohort.split("val"), self.cohort.split("test"))
        found = self._compared(global_state, split, kind, should_stop)
        keep_predictions(self.model.directory, found.rows())
        if FEDERATED in found.said:  # else there is no model that stays
            self._keep_deployed(found, should_stop)
        return Offer(self.allowed_metrics(found.metrics()))

    def _compared(self, global_state: State, split: Split, kind: str, should_stop: Callable[[], bool]) -> EvaluatedSite:
        """Ask every variant, train alone where the job says so, and choose; keep the state of the federation."""
        state = self._restored(global_state, None)
        state = self.model.finish(state, global_state, split.train, should_stop)
        said = {"backbone": backbone_said(self.model, split, should_stop)}
        said |= adapters_said(self.model, split, should_stop)
        if state:
            self.model.fit_head(split.train, should_stop)
            self.model.fit_reference(split.train, should_stop)
            self.model.remember(state)
        if kind != LAST:
            return EvaluatedSite(split, said, state)
        alone = train_alone(self.model, split.train, should_stop) if self.job.train.compare_alone else None
        said |= {"alone": split.said(partial(alone.predict, should_stop=should_stop))} if alone else {}
        return EvaluatedSite(split, said, state, alone).chosen(self.policy.min_subjects)

    def _keep_deployed(self, found: EvaluatedSite, should_stop: Callable[[], bool]) -> None:
        """Keep the model that the site uses, with temperature and threshold for it; nothing of it leaves."""
        floors, model = self._config.release, self.model
        variant, state = found.variant, found.state
        kept_as = keep_chosen(model, variant, state, found.split.train, found.alone, should_stop) if state else ""
        checksum = state_checksum(model.directory / STATE_FILE)
        facts = (self.site, self.job.experiment, is_synthetic(self._config.data_dir), checksum)
        labels, said = found.labels, found.said[variant]
        fitted = calibrate(labels.val, said.val, floors)
        counted = KeptCounts(**vars(fitted.counts(labels.test, said.test)))
        chosen = KeptChoice(variant, found.choice.why if found.choice else "", kept_as)
        keep(model.directory, KeptCalibration(*facts, fitted, floors, counted, chosen))

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
