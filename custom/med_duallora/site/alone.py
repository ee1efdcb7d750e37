"""What a site reaches by itself: the true rival of joining, trained from the start as if there were no federation.

A federated model with its global adapter switched off is not one: its local adapter and head were trained beside it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from med_duallora.adapter.methods import ALONE, alone
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import TrainingDiverged
from med_duallora.settings.config import JobConfig
from med_duallora.site.features import FeatureSource
from med_duallora.site.model import SiteModel
from med_duallora.site.prediction import fit_head_norm, predict
from med_duallora.site.training import train_round

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedAlone:
    """A model that a site trained by itself.

    Args:
        network: backbone, adapter and head, the head's statistics fitted.
        source: trunk features.
        job: that the training followed.
    """

    network: DualLoRAModel
    source: FeatureSource
    job: JobConfig

    def predict(
        self, subjects: Sequence[PreparedSubject], should_stop: Callable[[], bool] = lambda: False
    ) -> np.ndarray:
        """Return the probabilities of disease (n_subjects,), see ``prediction.predict``."""
        return predict(self.network, self.source, subjects, self.job.train, should_stop=should_stop)


def train_alone(
    model: SiteModel, subjects: Sequence[PreparedSubject], should_stop: Callable[[], bool] = lambda: False
) -> TrainedAlone | None:
    """Train what ``local-lora`` would at this site, with the job's settings and as many passes as all its rounds.

    It begins where that method begins, on the same random streams, so that it is that method to the last bit on one
    machine with one number of threads. The model's
    own network is not touched; a second one is in memory meanwhile, and trunk features come from the same cache.

    Args:
        model: of the site, for another method.
        subjects: the site's training split.
        should_stop: see ``train_round``.

    Returns:
        None where the training diverged, which the log says, or where the job is such a training itself.

    Raises:
        TrainingAborted: ``should_stop`` said so.
    """
    if model.job.method == ALONE:
        return None
    job = alone(model.job)
    network = model.network_for(job)
    source = FeatureSource(network, job, model.backbone_sha256, model.cache, model.source.volumes)
    trained = TrainedAlone(network, source, job)
    try:
        _train(trained, subjects, model.site, should_stop)
    except TrainingDiverged as error:
        logger.warning("the site's training alone, for comparison, is left out: %s", error)
        return None
    fit_head_norm(network, trained.source, subjects, job.train, should_stop=should_stop)
    return trained


def _train(
    trained: TrainedAlone, subjects: Sequence[PreparedSubject], site: str, should_stop: Callable[[], bool]
) -> None:
    job = trained.job
    moments: Mapping[str, np.ndarray] = {}
    for round_index in range(job.train.n_rounds):
        moments = train_round(
            trained.network,
            trained.source,
            subjects,
            job=job,
            site=site,
            round_index=round_index,
            moments=moments,
            should_stop=should_stop,
        ).moments
        logger.info("training alone, for comparison: round %d of %d", round_index + 1, job.train.n_rounds)
