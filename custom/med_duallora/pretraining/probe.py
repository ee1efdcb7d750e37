"""Linear probe: what a frozen backbone's features say about the label, before any adaptation.

A regularised logistic regression on the pooled features (cls token and mean patch token) of each subject, fitted on
one part of a cohort and judged on the rest, over several stratified splits. The same architecture with random weights
goes through the same protocol, so the difference is what pre-training gave.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from med_duallora.backbone import CineMAClassifier
from med_duallora.backbone.inputs import to_input
from med_duallora.cohorts.prepared import PreparedSubject, load_volume
from med_duallora.errors import CohortError
from med_duallora.support.progress import track

Features = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
TEST_FRACTION = 0.4
MIN_PER_GROUP = 5


@dataclass(frozen=True)
class ProbeScore:
    """Result of one split.

    Args:
        seed: of the split.
        auroc: area under the ROC curve, mean over vendors.
        balanced_accuracy: at probability 0.5, mean over vendors.
    """

    seed: int
    auroc: float
    balanced_accuracy: float


@torch.inference_mode()
def pooled_features(model: CineMAClassifier, subjects: Sequence[PreparedSubject], label: str) -> Features:
    """Return (n_subjects, 2*dim): the cls feature and the mean fused patch feature of each subject."""
    rows = []
    for subject in track(subjects, label):
        x = torch.from_numpy(to_input(load_volume(subject), model.config)).unsqueeze(0)
        features_cls, features_sax = model.features(x)
        rows.append(torch.cat([features_cls[0, 0], features_sax[0].mean(0)]))
    return torch.stack(rows).double().numpy()


def probe(features: Features, subjects: Sequence[PreparedSubject], seed: int) -> ProbeScore:
    """Fit on 60 % of every vendor's subjects, judge on the rest, vendor by vendor.

    Args:
        features: (n_subjects, n_features).
        subjects: their labels and vendors.
        seed: of the split, which is stratified by vendor and label.

    Raises:
        CohortError: a vendor has fewer than five subjects of a label.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    labels = np.array([subject.label for subject in subjects])
    vendors = np.array([subject.vendor for subject in subjects])
    fitted, judged = _split(labels, vendors, seed)
    model = _fit(features[fitted], labels[fitted], seed)
    probability = model.predict_proba(features[judged])[:, 1]
    auroc, balanced = [], []
    for vendor in sorted(set(vendors)):
        mine = vendors[judged] == vendor
        truth, score = labels[judged][mine], probability[mine]
        auroc.append(roc_auc_score(truth, score))
        balanced.append(balanced_accuracy_score(truth, score > 0.5))
    return ProbeScore(seed, float(np.mean(auroc)), float(np.mean(balanced)))


def probe_value(features: Features, values: Features, subjects: Sequence[PreparedSubject], seed: int) -> float:
    """Return R2 of a ridge regression of ``values`` (n_subjects,), judged on the part that ``probe`` judges on."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.array([subject.label for subject in subjects])
    fitted, judged = _split(labels, np.array([subject.vendor for subject in subjects]), seed)
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13)))
    model.fit(features[fitted], values[fitted])
    return float(model.score(features[judged], values[judged]))


def _split(labels: Labels, vendors: npt.NDArray[np.str_], seed: int) -> tuple[Labels, Labels]:
    from sklearn.model_selection import train_test_split

    groups = np.array([f"{vendor}, label {label}" for vendor, label in zip(vendors, labels, strict=True)])
    for vendor in sorted(set(vendors)):
        for label in (0, 1):
            n_subjects = int(((vendors == vendor) & (labels == label)).sum())
            if n_subjects < MIN_PER_GROUP:
                raise CohortError(
                    f"{vendor} has {n_subjects} subjects of label {label}; a probe needs at least {MIN_PER_GROUP}"
                )
    fitted, judged = train_test_split(
        np.arange(len(labels)), test_size=TEST_FRACTION, stratify=groups, random_state=seed
    )
    return fitted, judged


def _fit(features: Features, labels: Labels, seed: int) -> Any:
    """Standardise, then fit; the penalty is chosen by cross-validation inside the fitting part."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=5000))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    search = GridSearchCV(model, {"logisticregression__C": PENALTIES}, scoring="roc_auc", cv=folds)
    # the problem is small: more BLAS threads only wait for each other
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("error")
        search.fit(features, labels)
    return search
