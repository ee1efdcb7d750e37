"""A head fitted to a few labelled subjects, for a site that takes a global adapter and does not train.

A regularised logistic regression on what the network's heads read. It is then written into the heads, so that the
network says what the regression says, and whatever reads a trained model reads this one.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from med_duallora.adapter.lora import SharedHead
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.backbone.classifier import VIEW
from med_duallora.cohorts.classes import MIN_PER_CLASS, NAMES, class_sizes
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.errors import CohortError
from med_duallora.site.baseline import logistic_head
from med_duallora.site.features import FeatureSource
from med_duallora.support.devices import autocast
from med_duallora.support.seeds import generator

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def few(subjects: Sequence[PreparedSubject], k: int | None, seed: int) -> tuple[PreparedSubject, ...]:
    """Return the subjects that a head is fitted to, of both classes as evenly as there are.

    Args:
        subjects: to choose from.
        k: how many; None: all.
        seed: of the choice; it does not depend on the subjects' order.

    Raises:
        CohortError: there are fewer than ``k`` subjects, or than
            ``MIN_PER_CLASS`` of a class, or would be; says how many.
    """
    sizes = class_sizes(subjects)
    found = " and ".join(f"{n} {name}" for n, name in zip(sizes, NAMES, strict=True))
    if min(sizes) < MIN_PER_CLASS or (k is not None and k < 2 * MIN_PER_CLASS):
        asked = "" if k is None else f" and {k} are asked for,"
        raise CohortError(f"there are {found} subjects,{asked} and a head needs at least {MIN_PER_CLASS} of each class")
    if k is None:
        return tuple(subjects)
    if k > len(subjects):
        raise CohortError(f"there are {found} subjects, fewer than the {k} asked for")
    n_diseased = min(max(k // 2, k - sizes[0]), sizes[1])
    names = _drawn(subjects, 1, n_diseased, seed) | _drawn(subjects, 0, k - n_diseased, seed)
    return tuple(subject for subject in subjects if subject.subject in names)


def _drawn(subjects: Sequence[PreparedSubject], label: int, n: int, seed: int) -> set[str]:
    names = sorted(subject.subject for subject in subjects if subject.label == label)
    order = generator(seed, "few", label).permutation(len(names))
    return {names[place] for place in order[:n]}


@torch.no_grad()
def summaries_of(
    model: DualLoRAModel,
    source: FeatureSource,
    subjects: Iterable[PreparedSubject],
    view: int,
    *,
    precision: str,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray:
    """Return what the heads read of a view, before its standardisation (n_subjects, 2 * dim), adapters acting.

    Raises:
        TrainingAborted: ``should_stop`` said so before a subject.
    """
    model.eval()
    rows = []
    for subject in subjects:
        trunk = source.batch([subject], [view], should_stop)
        with autocast(source.device, precision):
            rows.append(model.summaries(trunk).float())
    return torch.cat(rows).cpu().numpy()


@torch.no_grad()
def fit_head(model: DualLoRAModel, views: Sequence[np.ndarray], labels: Sequence[int]) -> "Pipeline":
    """Fit the head's statistics and the head, in place.

    Args:
        model: whose head it is; put into evaluation mode.
        views: what ``summaries_of`` gave of each view of the same subjects, view 0 first.
        labels: of the subjects.

    Returns:
        The regression on standardised summaries; the model's probabilities are its own, to float32.
    """
    model.eval()
    device = next(model.parameters()).device
    norm = model.head_norm
    norm.fit(torch.from_numpy(views[0]).to(device))
    seen = norm(torch.from_numpy(np.concatenate(views)).to(device)).cpu().numpy().astype(np.float64)
    fitted = logistic_head()
    fitted.fit(seen, np.tile(labels, len(views)))
    scaler, regression = (step for _, step in fitted.steps)
    weight = regression.coef_[0] / scaler.scale_
    _write(model, weight, float(regression.intercept_[0] - weight @ scaler.mean_))
    return fitted


def _write(model: DualLoRAModel, weight: np.ndarray, bias: float) -> None:
    """Let the logit of disease be ``weight x + bias`` and that of normal 0; the logits are the mean of both heads'."""
    heads = model.classifier.pred_head_dict
    for name, part in zip(("cls", VIEW), np.split(2 * weight, 2), strict=True):
        head, row, biases = heads[name], torch.from_numpy(part).float(), torch.tensor([0.0, bias])
        if isinstance(head, SharedHead):
            values = {
                "global_a": row[None],
                "global_b": torch.tensor([[0.0], [1 / head.scale]]),
                "bias": biases,
            }
        else:
            values = {"weight": torch.stack([torch.zeros_like(row), row]), "bias": biases}
        head.load_state_dict(values)
