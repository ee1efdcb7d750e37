"""A site's model: backbone, adapters and head of one experiment, with the state that the site keeps of it.

It needs neither labels nor subjects to train on: a saved state holds the statistics of the head, too, so that whoever
has one can predict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from med_duallora import __version__
from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import N_CLASSES, DualLoRAModel, as_payload
from med_duallora.backbone import BackboneConfig, checkpoint_sha256, load_classifier, packaged_checkpoint
from med_duallora.boundary.lineage import ALONE, Lineage
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import EgressViolation, StateError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.features import FeatureSource
from med_duallora.site.prediction import fit_head_norm, predict, trunk_summaries
from med_duallora.site.reference import fit_reference
from med_duallora.site.secret import site_secret
from med_duallora.site.state import Owner, SiteState, SiteStateStore, newest_state, private_folder
from med_duallora.site.training import train_after
from med_duallora.support.devices import resolve_device
from med_duallora.support.files import sha256_of_json

State = Mapping[str, np.ndarray]


class SiteModel:
    """Model, feature cache and state of one site for one experiment.

    Args:
        site: name of the site.
        job: the job scope.
        config: the site scope; its cohort is not read.

    Attributes:
        network: backbone, adapters and head; on the site's device.
        source: trunk features of subjects.
        reference: statistics of the training subjects, see ``site.reference``; empty until they are fitted.
        lineage: the run this site takes part in, and those that it continues.
        directory: what is kept of this run.

    Raises:
        ConfigError: the device is not there, or a setting does not fit the backbone.
        CheckpointError: the backbone checkpoint is unusable.
        StateError: the state directory cannot be written.
    """

    def __init__(self, site: str, job: JobConfig, config: SiteConfig) -> None:
        self.job = job
        self._checkpoint = config.backbone_checkpoint or packaged_checkpoint(job.backbone)
        self._device = config.device
        self.backbone_sha256 = checkpoint_sha256(self._checkpoint)
        self.network = self.network_for(job)
        self.cache = FeatureCache(config.cache_dir, config.cache_budget_mb * 2**20, site_secret(config.state_dir))
        self.source = FeatureSource(self.network, job, self.backbone_sha256, self.cache)
        self.site = site
        self.reference: dict[str, np.ndarray] = {}
        self._reference_of: tuple[PreparedSubject, ...] = ()
        self._owner = Owner(identity_of(site, job), self.backbone_sha256)
        self._experiment = config.state_dir / job.experiment
        self._start = self.kept_state()
        private_folder(self._experiment)  # not after hours of training
        self.follow(ALONE)

    def network_for(self, job: JobConfig) -> DualLoRAModel:
        """Return the network of another job on the same backbone and device, as its training begins."""
        return network_of(job, self._checkpoint, self._device)

    def join(self, lineage: Lineage) -> None:
        """Take part in the run that a task names; a job is one run, so that a new name gives no new answers.

        Raises:
            EgressViolation: it is another run than that of the job's first task, or the name of no run.
        """
        if lineage.run_id == ALONE.run_id or self.lineage not in (ALONE, lineage):
            raise EgressViolation("the task is of another run than the job's first task, or of none")
        self.follow(lineage)

    def follow(self, lineage: Lineage) -> None:
        """Take part in a run: its states are continued, and no other ones."""
        self.lineage = lineage
        self.directory = self._experiment / lineage.run_id
        self.store = SiteStateStore(self.directory, self._owner)

    def sent_state(self) -> dict[str, np.ndarray]:
        """Return what the network now holds of the parameters that leave, as it travels."""
        return as_payload(self.network.values(self.network.plan.sent), self.job)

    def kept_state(self) -> dict[str, np.ndarray]:
        """Return what the network now holds of the trained parameters that stay."""
        return self.network.values(self.network.plan.kept)

    def statistics(self) -> dict[str, np.ndarray]:
        """Return the head's statistics, see ``HeadNorm.statistics``; they stay as well."""
        return self.network.head_norm.statistics()

    def restore(self, global_state: State, before_round: int | None) -> SiteState | None:
        """Put a global state and the site's newest state from before a round into the network, and return the latter.

        The head's statistics are then still to be fitted.

        Raises:
            StateError: see ``newest_state``.
        """
        state = newest_state(self._experiment, self._owner, self.lineage, before_round)
        self._load(global_state, state.kept if state else self._start)
        return state

    def start_from(self, global_state: State) -> None:
        """Put a global state into the network, and what stays as a training begins with it; no saved state is read."""
        self._load(global_state, self._start)

    def finish(
        self,
        state: SiteState | None,
        global_state: State,
        subjects: Sequence[PreparedSubject],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> SiteState | None:
        """Train what the method leaves until a global adapter is done, and return the state with what then stays.

        Args:
            state: that ``restore`` returned with this global adapter.
            global_state: the adapter.
            subjects: the site's training split.
            should_stop: see ``train_after``, which says what can be raised.
        """
        if not self.network.plan.after:
            return state
        self.start_from(global_state)
        train_after(self.network, self.source, subjects, job=self.job, site=self.site, should_stop=should_stop)
        return replace(state, kept=self.kept_state()) if state else None

    def recall(self) -> SiteState:
        """Put the newest saved state into the network whole: both adapters, the head and its statistics.

        Raises:
            StateError: there is none, or see ``newest_state``.
        """
        state = newest_state(self._experiment, self._owner, self.lineage, None)
        if state is None:
            raise StateError(
                f"state_dir holds no state of this site in the experiment {self.job.experiment} that could be used: "
                "take part in a round of its training first"
            )
        self._load(state.sent, state.kept)
        self.network.head_norm.use(state.statistics)
        self.reference = dict(state.reference)
        return state

    def remember(self, state: SiteState) -> None:
        """Save a state together with what the network now holds besides: global adapter and the head's statistics.

        The statistics of the training subjects and, beside the state, the job's settings are kept with them.

        Raises:
            StateError: it cannot be written; what was saved before is intact.
        """
        lineage = self.lineage.to_list()
        facts = {"site": self.site, "job": self.job.to_dict(), "backbone_sha256": self.backbone_sha256}
        self.store.describe({"med_duallora": __version__, **facts, "lineage": lineage})
        whole = replace(state, sent=self.sent_state(), statistics=self.statistics(), reference=self.reference)
        self.store.save(whole)

    def fit_head(
        self,
        reference: Sequence[PreparedSubject],
        should_stop: Callable[[], bool] = lambda: False,
        *,
        labelled: bool = True,
    ) -> None:
        """Fit the head's statistics to subjects, by what the network now holds and its active adapters.

        Without ``labelled`` their labels do not count.

        Raises:
            TrainingAborted: ``should_stop`` said so.
        """
        train = self.job.train
        fit_head_norm(self.network, self.source, reference, train, labelled=labelled, should_stop=should_stop)

    def fit_reference(
        self, reference: Sequence[PreparedSubject], should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Take the statistics of the training subjects, see ``site.reference``; once, because the trunk is frozen.

        Raises:
            TrainingAborted: ``should_stop`` said so.
        """
        if self._reference_of == tuple(reference):
            return
        summaries = trunk_summaries(self.network, self.source, reference, self.job.train, should_stop=should_stop)
        self.reference = fit_reference(summaries, reference)
        self._reference_of = tuple(reference)

    def predict(
        self, subjects: Sequence[PreparedSubject], should_stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray:
        """Return the probabilities of disease (n_subjects,) by what the network now holds and its active adapters.

        Raises:
            TrainingAborted: ``should_stop`` said so.
        """
        return predict(self.network, self.source, subjects, self.job.train, should_stop=should_stop)

    def _load(self, sent: State, kept: State) -> None:
        self.network.load_values(self.network.plan.sent, sent)
        self.network.load_values(self.network.plan.kept, kept)


def network_of(job: JobConfig, checkpoint: Path, device: str) -> DualLoRAModel:
    """Return a job's network on a device, in evaluation mode, as its training begins.

    Raises:
        ConfigError: the device is not there, or a setting does not fit the backbone.
        CheckpointError: the backbone checkpoint is unusable.
    """
    plan = plan_of(job)
    backbone = BackboneConfig.preset(job.backbone)
    classifier = load_classifier(checkpoint, backbone, n_classes=N_CLASSES, drop_path=job.train.drop_path)
    network = DualLoRAModel(classifier, plan, job.train.seed)
    return network.to(resolve_device(device)).eval()


def identity_of(site: str, job: JobConfig) -> str:
    """Return what a saved state must agree with; the length of the federation may change, and what is compared."""
    settings = job.to_dict()
    for name in ("n_rounds", "compare_alone"):
        settings["train"].pop(name)
    settings.pop("backbone_sha256")  # the store checks the checkpoint itself, pinned or not
    return sha256_of_json({"site": site, "job": settings})
