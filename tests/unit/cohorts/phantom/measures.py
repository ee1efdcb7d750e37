"""What the guards measure: features of pictures, and how well a plain classifier does with them."""

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from med_duallora.cohorts.phantom import Phantom, Rendering
from med_duallora.cohorts.volume import PreparedVolume, prepare_volume

MASK_MM = 88
LV_FIRST = (0, 3, 2, 1)  # a rendering's label numbers as prepare_volume wants them


def prepared(phantom: Phantom, rendering: Rendering) -> PreparedVolume:
    """The rendering's first and last frame as ``med-duallora prepare`` would write them."""
    pose, labels = phantom.pose, rendering.labels
    return prepare_volume(
        rendering.frames[0],
        rendering.frames[-1],
        rendering.affine,
        (pose.spacing, pose.spacing, pose.slice_spacing),
        ed_labels=labels[0],
        es_labels=labels[-1],
        label_numbers=LV_FIRST,
    )


def appearance_features(volume: PreparedVolume) -> np.ndarray:
    """Everything but the heart: histogram, size, empty margin, texture, noise; a wide disc hides the heart."""
    ed, es = volume.ed.astype(np.float32), volume.es.astype(np.float32)
    labels = volume.ed_labels.any(axis=(0, 1)) if volume.ed_labels is not None else np.ones(ed.shape[2], bool)
    x, y = np.indices(ed.shape[:2])
    rows, columns, _ = np.nonzero(volume.ed_labels == 3)
    away = np.hypot(x - (rows.min() + rows.max()) / 2, y - (columns.min() + columns.max()) / 2) > MASK_MM
    background = ed[away]
    fine = background - gaussian_filter(ed, (1.5, 1.5, 0))[away]
    histogram = np.histogram(background, bins=np.linspace(0, 256, 13))[0] / background.size
    halves = [background[:, labels].mean(), ed[away & (x < x.mean())].mean(), ed[away & (y < y.mean())].mean()]
    noise = np.median(np.abs(background - es[away]))
    sizes = [*ed.shape, (background == 0).mean()]
    return np.array([*histogram, *halves, noise, fine.std(), np.abs(fine).mean(), *sizes])


def cross_validated(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Out-of-fold scores of a random forest."""
    model = RandomForestClassifier(60, class_weight="balanced", min_samples_leaf=2, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_predict(model, features, labels, cv=folds, method="predict_proba")[:, 1]


def auc_interval(groups: list[tuple[np.ndarray, np.ndarray]], seed: int = 0) -> tuple[float, float, float]:
    """Mean AUC over groups of (labels, scores), with its 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    # wins[i, j]: whether ill subject i scores above healthy subject j; their mean is the AUC
    tables = [_wins(scores[labels == 1], scores[labels == 0]) for labels, scores in groups]
    again = [np.mean([table[_resampled(table, rng)].mean() for table in tables]) for _ in range(500)]
    low, high = np.percentile(again, [2.5, 97.5])
    return float(np.mean([table.mean() for table in tables])), float(low), float(high)


def _wins(ill: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    difference = ill[:, None] - healthy[None]
    return (difference > 0) + 0.5 * (difference == 0)


def _resampled(table: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ill, healthy = np.ix_(*(rng.integers(n, size=n) for n in table.shape))
    return ill, healthy
