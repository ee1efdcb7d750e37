"""A site's model: backbone, adapters and head of one experiment, with the state that the site keeps of it.

It needs neither labels nor subjects to train on: a saved state holds the statistics of the head, too, so that whoever
has one can predict.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import N_CLASSES, DualLoRAModel
from med_duallora.backbone import BackboneConfig, checkpoint_sha256, load_classifier, packaged_checkpoint
from med_duallora.boundary.lineage import ALONE, Lineage
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import StateError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.features import FeatureSource
from med_duallora.site.prediction import fit_head_norm, predict
from med_duallora.site.secret import site_secret
from med_duallora.site.state import Owner, SiteState, SiteStateStore, newest_state, private_folder
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
        lineage: the run this site takes part in, and those that it continues.
        directory: what is kept of this run.

    Raises:
        ConfigError: the device is not there, or a setting does not fit the backbone.
        CheckpointError: the backbone checkpoint is unusable.
        StateError: the state directory cannot be written.
    """

    def __init__(self, site: str, job: JobConfig, config: SiteConfig) -> None:
        self.job = job
        plan = plan_of(job)
        checkpoint = config.backbone_checkpoint or packaged_checkpoint(job.backbone)
        self.backbone_sha256 = checkpoint_sha256(checkpoint)
        backbone = BackboneConfig.preset(job.backbone)
        classifier = load_classifier(checkpoint, backbone, n_classes=N_CLASSES, drop_path=job.train.drop_path)
        self.network = DualLoRAModel(classifier, plan, job.train.seed)
        self.network.to(resolve_device(config.device)).eval()
        self.cache = FeatureCache(config.cache_dir, config.cache_budget_mb * 2**20, site_secret(config.state_dir))
        self.source = FeatureSource(self.network, job, self.backbone_sha256, self.cache)
        self._owner = Owner(_identity(site, job), self.backbone_sha256)
        self._experiment = config.state_dir / job.experiment
        self._start = self.kept_state()
        private_folder(self._experiment)  # not after hours of training
        self.follow(ALONE)

    def follow(self, lineage: Lineage) -> None:
        """Take part in a run: its states are continued, and no other ones."""
        self.lineage = lineage
        self.directory = self._experiment / lineage.run_id
        self.store = SiteStateStore(self.directory, self._owner)

    def sent_state(self) -> dict[str, np.ndarray]:
        """Return what the network now holds of the parameters that leave."""
        return self.network.values(self.network.plan.sent)

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
        return state

    def remember(self, state: SiteState) -> None:
        """Save a state together with what the network now holds besides: global adapter and the head's statistics.

        Raises:
            StateError: it cannot be written; what was saved before is intact.
        """
        self.store.save(replace(state, sent=self.sent_state(), statistics=self.statistics()))

    def fit_head(self, reference: Sequence[PreparedSubject], should_stop: Callable[[], bool] = lambda: False) -> None:
        """Fit the head's statistics to subjects, by what the network now holds and its active adapters.

        Raises:
            TrainingAborted: ``should_stop`` said so.
        """
        fit_head_norm(self.network, self.source, reference, self.job.train, should_stop=should_stop)

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


def _identity(site: str, job: JobConfig) -> str:
    """Return what a saved state must agree with; the length of the federation may change."""
    settings = job.to_dict()
    settings["train"].pop("n_rounds")
    settings.pop("backbone_sha256")  # the store checks the checkpoint itself, pinned or not
    return sha256_of_json({"site": site, "job": settings})
