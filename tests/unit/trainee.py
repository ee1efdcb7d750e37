"""A tiny model with its features, trained round by round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.settings.config import JobConfig, TrainConfig
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.features import FeatureSource
from med_duallora.site.prediction import fit_head_norm, predict
from med_duallora.site.training import RoundResult, train_round

from .tiny import model_of

JOB = JobConfig(backbone="cinema-tiny").with_overrides(
    ["train.n_rounds=4", "train.local_epochs=1", "train.batch_size=4", "train.n_views=1"]
)


@dataclass
class Trainee:
    """A model with its features, trained round by round."""

    model: DualLoRAModel
    source: FeatureSource
    job: JobConfig

    def train(self, subjects, round_index: int = 0, moments=None, **options) -> RoundResult:
        return train_round(
            self.model,
            self.source,
            subjects,
            job=self.job,
            site="philips",
            round_index=round_index,
            moments=moments or {},
            **options,
        )


def trainee(*assignments: str, cache: FeatureCache | None = None) -> Trainee:
    job = JOB.with_overrides(assignments)
    model = model_of(job, job.train.drop_path)
    return Trainee(model, FeatureSource(model, job, "0" * 64, cache), job)


def predicted(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    settings: TrainConfig,
    *,
    reference: Sequence[PreparedSubject],
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Fit the head's statistics to the reference, then predict."""
    fit_head_norm(model, source, reference, settings, should_stop=should_stop)
    return predict(model, source, subjects, settings, should_stop=should_stop)
