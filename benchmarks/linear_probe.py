"""Linear probe of a pre-trained backbone against random weights of the same architecture.

    python benchmarks/linear_probe.py --data PREPARED [--truth truth.csv]
        [--backbone-checkpoint FILE] [--against NAME=FILE ...] [--out probe.json]

PREPARED is a prepared cohort or a folder of them; none of its subjects may have been used in pre-training.
Every seed draws a split and, for the control, other random weights. With the phantoms' table of true values it also
reports how well a linear regression on the same features tells volumes and ejection fractions.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from med_duallora.backbone import BackboneConfig, build_classifier, load_classifier, packaged_checkpoint
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.pretraining.data import find_cohorts
from med_duallora.pretraining.probe import Features, pooled_features, probe, probe_value
from med_duallora.support.files import sha256_of_file, write_json

Truth = dict[str, Features]


VALUES = {"lv_ef": "LV EF", "rv_ef": "RV EF", "lv_edv": "LV EDV", "mass_g": "LV mass"}


def main() -> None:
    """Run the probe and print a table."""
    options = _parse()
    torch.set_num_threads(options.threads)
    config = BackboneConfig.preset(options.backbone)
    checkpoints = {"pre-trained": options.backbone_checkpoint or packaged_checkpoint(options.backbone)}
    checkpoints |= {name: Path(path) for name, _, path in (text.partition("=") for text in options.against)}
    subjects = [subject for cohort in find_cohorts(options.data) for subject in cohort.subjects]
    truth = _read_truth(options.truth, subjects) if options.truth else {}
    trained = {
        name: pooled_features(load_classifier(path, config), subjects, f"{name} features")
        for name, path in checkpoints.items()
    }
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in (*trained, "random weights")}
    for seed in range(options.repetitions):
        random = pooled_features(build_classifier(config, seed=seed).eval(), subjects, f"random features {seed}")
        for name, features in {**trained, "random weights": random}.items():
            scores[name].append(_scores(features, subjects, truth, seed))
    _show(scores, subjects)
    if options.out:
        hashes = {name: sha256_of_file(path) for name, path in checkpoints.items()}
        write_json(options.out, {"checkpoints": hashes, "n_subjects": len(subjects), **scores})


def _scores(features: Features, subjects: list[PreparedSubject], truth: Truth, seed: int) -> dict[str, float]:
    score = probe(features, subjects, seed)
    found = {"AUROC": score.auroc, "balanced accuracy": score.balanced_accuracy}
    return found | {f"{VALUES[k]}, R2": probe_value(features, values, subjects, seed) for k, values in truth.items()}


def _read_truth(path: Path, subjects: list[PreparedSubject]) -> Truth:
    with path.open(newline="", encoding="utf-8") as stream:
        rows = {row["subject"]: row for row in csv.DictReader(stream)}
    return {name: np.array([float(rows[subject.subject][name]) for subject in subjects]) for name in VALUES}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", default="cinema-mini")
    parser.add_argument("--backbone-checkpoint", type=Path, help="default: the one shipped with the package")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=FILE", help="another checkpoint")
    parser.add_argument("--truth", type=Path, help="truth.csv of the phantoms")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file with every split's numbers")
    return parser.parse_args()


def _show(scores: dict[str, list[dict[str, float]]], subjects: list[PreparedSubject]) -> None:
    n_disease = sum(subject.label for subject in subjects)
    print(f"{len(subjects)} subjects ({len(subjects) - n_disease} NOR + {n_disease} disease); mean (sd) over splits")
    metrics = list(scores["pre-trained"][0])
    print(f"| features | {' | '.join(metrics)} |\n|---|{'---|' * len(metrics)}")
    for name, rows in scores.items():
        values = np.array([[row[metric] for metric in metrics] for row in rows])
        spread = values.std(0, ddof=1) if len(rows) > 1 else np.zeros(len(metrics))
        cells = [f"{mean:.2f} ({sd:.2f})" for mean, sd in zip(values.mean(0), spread, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
