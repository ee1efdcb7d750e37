"""Predictions of a model, and the head's statistics that they need: functions of a model and its features."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from med_duallora.adapter.model import DualLoRAModel, TrunkFeatures
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.settings.config import TrainConfig
from med_duallora.site.features import FeatureSource
from med_duallora.site.reference import trunk_summary
from med_duallora.support.devices import autocast
from med_duallora.support.interruption import interruptible


@torch.no_grad()
def fit_head_norm(
    model: DualLoRAModel,
    source: FeatureSource,
    reference: Sequence[PreparedSubject],
    settings: TrainConfig,
    *,
    labelled: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Fit the standardisation before the head to subjects' features of view 0; nothing where the head has none.

    Args:
        model: with the adapters active that are to be used.
        source: trunk features of the subjects.
        reference: the site's training subjects.
        settings: batch size and precision.
        labelled: whether their labels count, see ``HeadNorm.fit``.
        should_stop: asked before every subject and every layer.

    Raises:
        TrainingAborted: ``should_stop`` said so.
    """
    model.eval()
    if model.head_norm.active:
        summaries = model.summaries
        found = _unaugmented(model, summaries, reference, source=source, settings=settings, should_stop=should_stop)
        labels = torch.tensor([subject.label for subject in reference], device=found.device)
        model.head_norm.fit(found, labels if labelled else None)


@torch.no_grad()
def predict(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    settings: TrainConfig,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return the probability of disease (n_subjects,) from view 0, in batches, in evaluation mode.

    The head's statistics are those that were fitted last, see ``fit_head_norm``.

    Args:
        model: with the adapters active that are to be used.
        source: trunk features of all subjects.
        subjects: who is classified.
        settings: batch size and precision.
        should_stop: asked before every subject and every layer.

    Raises:
        TrainingAborted: ``should_stop`` said so.
    """
    model.eval()
    if not subjects:
        return np.zeros(0)
    logits = _unaugmented(model, model.tail, subjects, source=source, settings=settings, should_stop=should_stop)
    return torch.softmax(logits, dim=1)[:, 1].cpu().numpy().astype(np.float64)


@torch.no_grad()
def trunk_summaries(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Sequence[PreparedSubject],
    settings: TrainConfig,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return the summaries (n_subjects, n_features) of the frozen trunk's features, see ``trunk_summary``.

    Raises:
        TrainingAborted: ``should_stop`` said so.
    """
    function = trunk_summary
    found = _unaugmented(model, function, subjects, source=source, settings=settings, should_stop=should_stop)
    return found.cpu().numpy()


@torch.no_grad()
def predict_volumes(
    model: DualLoRAModel, source: FeatureSource, volumes: Sequence[np.ndarray], settings: TrainConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Return what ``predict`` and ``trunk_summaries`` return, of volumes at hand, in one pass through the trunk.

    Args:
        model: with the adapters active that are to be used, and the head's statistics.
        source: computes trunk features.
        volumes: one batch, each as ``load_volume`` returns it.
        settings: precision.

    Returns:
        Probabilities of disease (n_volumes,) and summaries (n_volumes, n_features).
    """
    model.eval()
    trunk = source.of_volumes(volumes)
    with autocast(source.device, settings.precision):
        logits = model.tail(trunk)
    chances = torch.softmax(logits.float(), dim=1)[:, 1]
    return chances.cpu().numpy().astype(np.float64), trunk_summary(trunk).cpu().numpy()


@torch.no_grad()
def summaries_of_volume(model: DualLoRAModel, source: FeatureSource, volume: np.ndarray, precision: str) -> Tensor:
    """Return what the heads read of a volume at hand (1, 2 * dim), before its standardisation, adapters acting."""
    model.eval()
    trunk = source.of_volumes([volume])
    with autocast(source.device, precision):
        return model.summaries(trunk).float()


def _unaugmented(
    model: DualLoRAModel,
    function: Callable[[TrunkFeatures], Tensor],
    subjects: Sequence[PreparedSubject],
    *,
    source: FeatureSource,
    settings: TrainConfig,
    should_stop: Callable[[], bool],
) -> Tensor:
    """Return float32 values of a function of the trunk features of view 0, computed batch by batch."""
    found = []
    for start in range(0, len(subjects), settings.batch_size):
        chosen = subjects[start : start + settings.batch_size]
        with interruptible(model, should_stop):
            trunk = source.batch(chosen, [0] * len(chosen), should_stop)
            with autocast(source.device, settings.precision):
                values = function(trunk)
        found.append(values.float())
    return torch.cat(found)


def balanced_loss(labels: np.ndarray, probabilities: np.ndarray, weights: tuple[float, float]) -> float:
    """Return the mean log loss of probabilities of disease (n_subjects,) with a weight for each class."""
    chances = torch.from_numpy(np.stack([1 - probabilities, probabilities], axis=1)).clamp_min(1e-12)
    target = torch.from_numpy(labels)
    return float(functional.nll_loss(chances.log(), target, weight=torch.tensor(weights, dtype=chances.dtype)))
