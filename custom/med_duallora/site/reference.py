"""What a site's training subjects look like to the frozen trunk, and in millimetres: a few statistics of them.

A state keeps them, so that whoever predicts later can say how far a scan lies from what the model was trained on, with
no training subject at hand. Like everything else in a state they stay at the site.

The distance is that of Mahalanobis (1936), in standardised features, with a covariance that is shrunk to a multiple of
the identity (Ledoit and Wolf 2004): there are fewer subjects than features. What is usual is told by the subjects' own
distances, each from all the others: a subject is nearer to statistics that it is a part of.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from med_duallora.adapter.model import TrunkFeatures
from med_duallora.cohorts.prepared import PreparedSubject

MIN_SUBJECTS = 3
"""Below this, nothing can be said of distances."""
Statistics = Mapping[str, np.ndarray]


def trunk_summary(trunk: TrunkFeatures) -> Tensor:
    """Return what distances are measured in (batch, 2 * dim): the class token and the mean of the patch tokens."""
    return torch.cat([trunk.tokens[:, 0], trunk.tokens[:, 1:].mean(dim=1)], dim=1)


def fit_reference(summaries: np.ndarray, subjects: Sequence[PreparedSubject]) -> dict[str, np.ndarray]:
    """Return the statistics of a site's training subjects.

    Args:
        summaries: (n_subjects, n_features), see ``trunk_summary``.
        subjects: in the same order.

    Returns:
        ``mean`` and ``weight`` (n_features,), the latter one over the standard deviation, 0 where a feature is
        constant; ``axes`` (n_axes, n_features) with their ``variances`` (n_axes,), and the variance of all other
        directions, ``rest`` (1,); ``distances`` (n_subjects,), ascending, of each from all the others, empty below
        ``MIN_SUBJECTS``; ``spacing`` (2, 3), least and largest raw voxel size in mm, empty where no table tells it;
        ``n_slices`` (2,), least and largest number of slices at 10 mm.
    """
    values = np.asarray(summaries, dtype=np.float64)
    spread = values.std(axis=0)
    weight = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6 * np.abs(values).max(initial=1e-12))
    scaled = (values - values.mean(axis=0)) * weight
    found = {"mean": values.mean(axis=0), "weight": weight, **_covariance(scaled)}
    if len(values) >= MIN_SUBJECTS:
        found["distances"] = np.sort(_left_out(scaled, found))
    sizes = np.array([subject.spacing for subject in subjects if subject.spacing], dtype=np.float64).reshape(-1, 3)
    found["spacing"] = np.array([sizes.min(axis=0), sizes.max(axis=0)]) if len(sizes) else np.zeros((0, 3))
    counts = [subject.n_slices for subject in subjects]
    found["n_slices"] = np.array([min(counts), max(counts)], dtype=np.int64)
    return found


def distances(reference: Statistics, summaries: np.ndarray) -> np.ndarray:
    """Return the distances (n,) of summaries (n, n_features) from the training subjects."""
    scaled = (np.asarray(summaries, dtype=np.float64) - reference["mean"]) * reference["weight"]
    return np.asarray(np.sqrt(_squared(scaled, reference)))


def _covariance(scaled: np.ndarray) -> dict[str, np.ndarray]:
    """Return the shrunk covariance of centred rows by its axes."""
    n, n_features = scaled.shape
    if n < MIN_SUBJECTS or not scaled.any():
        nothing = {"axes": np.zeros((0, n_features)), "variances": np.zeros(0)}
        return {**nothing, "rest": np.ones(1), "distances": np.zeros(0)}
    from sklearn.covariance import ledoit_wolf_shrinkage  # here for the reason that ``logistic_head`` gives

    shrinkage = float(ledoit_wolf_shrinkage(scaled, assume_centered=True))
    _, singular, axes = np.linalg.svd(scaled, full_matrices=False)
    kept = singular > 1e-9 * singular[0]
    variances = singular[kept] ** 2 / n
    # a little shrinkage at least: directions that no training subject moves in must not make a distance infinite
    shrinkage = max(shrinkage, 1e-3)
    rest = np.array([shrinkage * variances.sum() / n_features])
    return {"axes": axes[kept], "variances": (1 - shrinkage) * variances, "rest": rest, "distances": np.zeros(0)}


def _squared(scaled: np.ndarray, reference: Statistics, variance_factor: float = 1.0) -> np.ndarray:
    along = scaled @ reference["axes"].T
    rest = float(reference["rest"][0])
    beside = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    inside = (along**2 / (variance_factor * reference["variances"] + rest)).sum(axis=1)
    return np.asarray(beside / rest + inside)


def _left_out(scaled: np.ndarray, reference: Statistics) -> np.ndarray:
    """Return each subject's distance from the others alone, by the formula of Sherman and Morrison.

    Without row x, the mean moves by x / (n - 1) and the scatter loses n / (n - 1) x x'; shrinkage stays as it is.
    """
    n = len(scaled)
    squared = _squared(scaled, reference, n / (n - 1))
    mean_square = float(reference["variances"].sum()) + 1e-300
    total = (scaled**2).sum() / n
    share = mean_square / total if total else 0.0  # 1 - shrinkage
    step = n / (n - 1)
    lost = np.clip(1 - share * step / (n - 1) * squared, 1e-9, None)
    return np.asarray(np.sqrt(step**2 * squared / lost))
