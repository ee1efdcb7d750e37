"""A head fitted to a few labelled subjects, for a site that takes a global adapter and does not train.

A regularised logistic regression on what the network's heads read. It is then written into the heads, so that the
network says what the regression says, and whatever reads a trained model reads this one. Where the sites of a
federation share a head, the regression is drawn to that one instead of to nothing: a few labels correct what many
sites learnt, and do not replace it.
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

CORRECTION_C = 1e-4
"""Inverse regularisation of a correction. Of 1e-5 to 1e-2 on phantoms of seed 402, whose site took no part, those up to
1e-3 kept what the shared head reaches with 4 to 24 labels, and larger ones lost it."""


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


@torch.no_grad()
def correct_head(model: DualLoRAModel, views: Sequence[np.ndarray], labels: Sequence[int]) -> None:
    """Fit the head's statistics, then correct the head that the network has, in place.

    The most probable logistic regression if its weights lie around those of the present head: classes are balanced, the
    intercept is free, and the squared length of the change, per standard deviation of a feature, is penalised by
    ``1 / (2 * CORRECTION_C)`` of the summed loss.

    Args:
        model: see ``fit_head``.
        views: likewise.
        labels: likewise.
    """
    from scipy.optimize import minimize  # here, because it takes longer to load than most processes need

    model.eval()
    device = next(model.parameters()).device
    model.head_norm.fit(torch.from_numpy(views[0]).to(device))
    seen = model.head_norm(torch.from_numpy(np.concatenate(views)).to(device)).cpu().numpy().astype(np.float64)
    truth = np.tile(np.asarray(labels) == 1, len(views))
    share, sign = np.where(truth, truth.mean(), 1 - truth.mean()), np.where(truth, 1.0, -1.0)
    centre, spread = seen.mean(0), seen.std(0)
    unit = np.sqrt(CORRECTION_C) / np.where(spread > 0, spread, 1.0)  # of a change, so that its penalty is its square
    scaled = (seen - centre) * unit
    weight, bias = margin_of(model)
    prior = seen @ weight + bias

    def loss(change: np.ndarray) -> tuple[float, np.ndarray]:
        signed = sign * (prior + scaled @ change[:-1] + change[-1])
        cost = (np.logaddexp(0, -signed) / (2 * share)).sum() + change[:-1] @ change[:-1] / 2
        slope = -sign * np.exp(-np.logaddexp(0, signed)) / (2 * share)
        return float(cost), np.append(scaled.T @ slope + change[:-1], slope.sum())

    options = {"maxiter": 10_000, "gtol": 1e-9, "ftol": 1e-14}
    change = minimize(loss, np.zeros(len(weight) + 1), jac=True, method="L-BFGS-B", options=options).x
    step = change[:-1] * unit
    _write(model, weight + step, float(bias + change[-1] - step @ centre))


@torch.no_grad()
def margin_of(model: DualLoRAModel) -> tuple[np.ndarray, float]:
    """Return weight and bias of the logit of disease minus that of normal, as the network's heads give it."""
    weights, bias = [], 0.0
    for name in ("cls", VIEW):
        head = model.classifier.pred_head_dict[name]
        zero = torch.zeros(1, model.classifier.config.embed_dim, device=next(head.parameters()).device)
        at_zero = head(zero)
        rows = head(torch.eye(zero.shape[1], device=zero.device)) - at_zero
        weights.append((rows[:, 1] - rows[:, 0]).cpu().double().numpy() / 2)  # the logits are the mean of both heads'
        bias += float(at_zero[0, 1] - at_zero[0, 0]) / 2
    return np.concatenate(weights), bias


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
