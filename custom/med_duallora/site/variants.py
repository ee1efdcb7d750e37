"""What the models that a site compares say of its subjects: functions of a site's model and subjects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.measures import VARIANTS
from med_duallora.site.baseline import backbone_probabilities
from med_duallora.site.model import SiteModel

Subjects = Sequence[PreparedSubject]
Predict = Callable[[Subjects], np.ndarray]


@dataclass(frozen=True)
class Said:
    """What one model says.

    Args:
        val: (n_val,) probability of disease of the validation subjects.
        test: (n_test,) that of the test subjects.
    """

    val: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Split:
    """The subjects of a site.

    Args:
        train: those that are trained on.
        val: those that a model is chosen by.
        test: those that it is scored on.
    """

    train: Subjects
    val: Subjects
    test: Subjects

    def said(self, predict: Predict) -> Said:
        """Return what a model says of those that it was not trained on."""
        return Said(predict(self.val), predict(self.test))


def backbone_said(model: SiteModel, split: Split, should_stop: Callable[[], bool]) -> Said:
    """Return what the frozen backbone with a fitted head says.

    Raises:
        TrainingAborted: ``should_stop`` said so.
    """
    both = backbone_probabilities(
        model.network,
        model.source,
        split.train,
        (*split.val, *split.test),
        model.job.train,
        should_stop=should_stop,
    )
    return Said(both[: len(split.val)], both[len(split.val) :])


def adapters_said(model: SiteModel, split: Split, should_stop: Callable[[], bool]) -> Mapping[str, Said]:
    """Return what the model says by variant, with one adapter or both acting; the network is left with both.

    Raises:
        TrainingAborted: ``should_stop`` said so.
    """
    found = {}
    for name, variant in VARIANTS.items():
        if variant.adapters:
            with model.network.using(*variant.adapters):
                if split.val or split.test:
                    model.fit_head(split.train, should_stop)
                found[name] = split.said(lambda subjects: model.predict(subjects, should_stop))
    return found
