"""The start of the comparison: the frozen backbone with nothing but a fitted head."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.roles import Role
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.settings.config import TrainConfig
from med_duallora.site.features import FeatureSource
from med_duallora.support.digest import content_digest

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

RIDGE_C = 0.1
"""Inverse regularisation; fixed beforehand, because a site has too few subjects to choose it."""


def backbone_probabilities(
    model: DualLoRAModel,
    source: FeatureSource,
    train: Sequence[PreparedSubject],
    test: Sequence[PreparedSubject],
    settings: TrainConfig,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Fit a logistic head on frozen features of the training subjects and return the test subjects' probabilities.

    The head sees what the model's own heads see, the class token and the mean of the fused patch tokens, and the same
    augmented views as the adapters' training, so that the comparison shows what the adapters add.

    Returns:
        (n_test,) probability of disease.

    Raises:
        TrainingAborted: ``should_stop`` said so before a subject.
    """
    if not test:
        return np.zeros(0)
    views = range(settings.n_views + 1)
    seen = np.concatenate([pooled_features(model, source, train, view, should_stop) for view in views])
    labels = np.tile([subject.label for subject in train], len(views))
    head = logistic_head()
    head.fit(seen, labels)
    chances: np.ndarray = head.predict_proba(pooled_features(model, source, test, 0, should_stop))[:, 1]
    return chances


def logistic_head() -> "Pipeline":
    """Return an unfitted, strongly regularised logistic regression on standardised features."""
    # here, because scikit-learn takes longer to load than a round of a small site, and most processes fit nothing
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=RIDGE_C, class_weight="balanced", max_iter=2000))


@torch.no_grad()
def pooled_features(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    view: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return the backbone's features without adapters: class token and mean patch token (n_subjects, 2 * dim).

    Raises:
        TrainingAborted: ``should_stop`` said so before a subject.
    """
    model.eval()
    rows, tail = [], _digest_of_tail(model)
    with model.using(False, False):
        for subject in subjects:
            rows.append(source.summary(subject, view, tail, should_stop))
    return torch.cat(rows).cpu().numpy().astype(np.float64)


def _digest_of_tail(model: DualLoRAModel) -> str:
    """Return a hash of what acts behind the trunk without adapters and heads, whatever a method may have trained."""
    before = {id(value) for block in list(model.classifier.blocks)[: model.cut] for value in block.parameters()}
    acting = {
        name: value.detach().cpu().numpy()
        for name, value in model.of_roles([Role.FROZEN]).items()
        if id(value) not in before
    }
    return content_digest(acting, {})
