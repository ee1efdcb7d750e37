"""What frozen features say of real patients: a backbone against random weights and against other checkpoints.

    python benchmarks/patient_probe.py --data PREPARED [--backbone-checkpoint FILE] [--against NAME=FILE ...]
        [--random-seeds 5] [--repeats 10] [--out probe.json]

PREPARED is a prepared cohort of patients. A logistic regression (penalty fixed beforehand: C = 0.01, classes balanced)
on standardised features (cls token and mean patch token) tells NOR from disease, by repeated cross-validation in five
folds stratified by pathology. Every patient is judged by models that were fitted without them. Intervals (95 %) are
those of a bootstrap over patients within NOR and disease; a difference is of the same drawn patients. They do not
contain what other patients to fit on would change. There are two controls of random weights, drawn as this package
draws them and as torch does, because their features differ much.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from med_duallora.backbone import (
    BackboneConfig,
    CineMAClassifier,
    build_classifier,
    load_classifier,
    packaged_checkpoint,
)
from med_duallora.cohorts.prepared import PreparedSubject, label_path, load_pair
from med_duallora.pretraining.data import find_cohorts
from med_duallora.pretraining.label_maps import LABELS
from med_duallora.pretraining.marks import standardised, with_marks
from med_duallora.pretraining.probe import Features, Labels, pooled_features
from med_duallora.support.files import sha256_of_file, write_json

PENALTY = 0.01
N_FOLDS = 5
N_BOOTSTRAPS = 5000
METRICS = ("AUROC", "balanced accuracy")
JUDGED = "judged"

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """What cross-validation said, mean over its repeats (and over models where there are several).

    Args:
        wins: (n_disease, n_normal): how often a diseased patient had the higher probability than a normal one.
        right: (n_patients,): how often a patient was on the right side of 0.5.
    """

    wins: Array
    right: Array

    def scores(self, labels: Labels, counts: Labels) -> Array:
        """Return AUROC and balanced accuracy where patient i is there ``counts[i]`` times."""
        disease, normal = counts[labels == 1], counts[labels == 0]
        auroc = disease @ self.wins @ normal / (disease.sum() * normal.sum())
        sensitivity = disease @ self.right[labels == 1] / disease.sum()
        specificity = normal @ self.right[labels == 0] / normal.sum()
        return np.array([auroc, (sensitivity + specificity) / 2])


def cross_validate(features: Features, labels: Labels, groups: Sequence[str], n_repeats: int) -> Judged:
    """Judge every patient by repeated cross-validation, stratified by ``groups``."""
    wins, right = [], []
    for repeat in range(n_repeats):
        probability = np.empty(len(labels))
        folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=repeat)
        for fitted, judged in folds.split(features, groups):
            model = make_pipeline(
                StandardScaler(), LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=5000)
            )
            model.fit(features[fitted], labels[fitted])
            probability[judged] = model.predict_proba(features[judged])[:, 1]
        gap = probability[labels == 1][:, None] - probability[labels == 0]
        wins.append((gap > 0) + 0.5 * (gap == 0))
        right.append((probability > 0.5) == labels)
    return Judged(np.mean(wins, axis=0), np.mean(right, axis=0))


def measures_of(subjects: Sequence[PreparedSubject]) -> Features | None:
    """Return logarithms of what label maps measure (n_subjects, 9); None: a subject has no label map.

    The volumes of RV, wall and LV at ED and at ES, and by how much each of the three changes.
    """
    rows = []
    for subject in subjects:
        paths = [label_path(path) for path in (subject.ed_path, subject.es_path)]
        if not all(path.is_file() for path in paths):
            return None
        volumes = [[np.log1p((frame == label).sum()) for label in LABELS] for frame in load_pair(*paths)]
        rows.append([*volumes[0], *volumes[1], *np.subtract(volumes[1], volumes[0])])
    return np.array(rows, np.float64)


def mean_of(parts: Sequence[Judged]) -> Judged:
    """Return the mean of several models' results."""
    return Judged(np.mean([part.wins for part in parts], axis=0), np.mean([part.right for part in parts], axis=0))


def bootstrap(results: dict[str, Judged], labels: Labels) -> dict[str, Array]:
    """Return (N_BOOTSTRAPS, 2) scores of every result on the same drawn patients."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    draws: dict[str, list[Array]] = {name: [] for name in results}
    for _ in range(N_BOOTSTRAPS):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        counts = np.bincount(drawn, minlength=len(labels))
        for name, result in results.items():
            draws[name].append(result.scores(labels, counts))
    return {name: np.array(scores) for name, scores in draws.items()}


def summary(results: dict[str, Judged], labels: Labels) -> dict[str, dict[str, list[float]]]:
    """Return value, lower and upper end of every score, and of the judged backbone's lead over the others."""
    draws, once = bootstrap(results, labels), np.ones(len(labels), np.int64)
    found = {}
    for name, result in results.items():
        found[name] = _intervals(result.scores(labels, once), draws[name])
        if name != JUDGED:
            lead = results[JUDGED].scores(labels, once) - result.scores(labels, once)
            found[f"{JUDGED} - {name}"] = _intervals(lead, draws[JUDGED] - draws[name])
    return found


def _intervals(values: Array, draws: Array) -> dict[str, list[float]]:
    low, high = np.percentile(draws, (2.5, 97.5), axis=0)
    return {metric: [float(values[i]), float(low[i]), float(high[i])] for i, metric in enumerate(METRICS)}


def _drawn_by_package(config: BackboneConfig, seed: int) -> CineMAClassifier:
    return build_classifier(config, seed=seed).eval()


def _drawn_by_torch(config: BackboneConfig, seed: int) -> CineMAClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CineMAClassifier(config).eval()


RANDOM = {"random weights, this package's": _drawn_by_package, "random weights, torch's": _drawn_by_torch}
"""Controls: features of random weights depend much on how these are drawn."""


def main() -> None:
    """Run the probe and print a table."""
    options = _parse()
    torch.set_num_threads(options.threads)
    config = BackboneConfig.preset(options.backbone)
    subjects = [subject for cohort in find_cohorts(options.data) for subject in cohort.subjects]
    labels = np.array([subject.label for subject in subjects])
    groups = [subject.pathology for subject in subjects]
    checkpoints = {JUDGED: options.backbone_checkpoint or packaged_checkpoint(options.backbone)}
    checkpoints |= {name: Path(path) for name, _, path in (text.partition("=") for text in options.against)}
    results = {}
    for name, path in checkpoints.items():
        features = pooled_features(load_classifier(path, config), subjects, name)
        results[name] = cross_validate(features, labels, groups, options.repeats)
    for name, draw in RANDOM.items():
        results[name] = mean_of(
            [
                cross_validate(
                    pooled_features(draw(config, seed), subjects, f"{name} {seed}"), labels, groups, options.repeats
                )
                for seed in range(options.random_seeds)
            ]
        )
    measures = measures_of(subjects)
    if measures is not None:
        everyone = range(len(subjects))
        marked = with_marks(standardised(measures.astype(np.float32), everyone)).astype(np.float64)
        for name, features in {"measures of label maps": measures, "the same by marks": marked}.items():
            results[name] = cross_validate(features, labels, groups, options.repeats)
    found = summary(results, labels)
    _show(found, labels)
    if options.out:
        hashes = {name: sha256_of_file(path) for name, path in checkpoints.items()}
        write_json(options.out, {"checkpoints": hashes, "n_patients": len(labels), **found})


def _show(found: dict[str, dict[str, list[float]]], labels: Labels) -> None:
    print(f"{len(labels)} patients ({int((labels == 0).sum())} NOR + {int(labels.sum())} disease); 95 % intervals")
    print(f"| features | {' | '.join(METRICS)} |\n|---|{'---|' * len(METRICS)}")
    for name, scores in found.items():
        cells = ["{:.3f} ({:.3f} to {:.3f})".format(*scores[metric]) for metric in METRICS]
        print(f"| {name} | {' | '.join(cells)} |")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="cinema-mini")
    parser.add_argument("--backbone-checkpoint", type=Path, help="default: the one shipped with the package")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=FILE", help="another checkpoint")
    parser.add_argument("--random-seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file with the numbers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
