"""Linear probe of a pre-trained backbone against random weights of the same architecture.

    python benchmarks/linear_probe.py --data PREPARED [--checkpoint FILE] [--out probe.json]

PREPARED is a prepared cohort or a folder of them; none of its subjects may have been used in pre-training.
Every seed draws a split and, for the control, other random weights.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from med_duallora.backbone import BackboneConfig, build_classifier, load_classifier, packaged_checkpoint
from med_duallora.cohorts.prepared import PreparedSubject
from med_duallora.files import sha256_of_file, write_json
from med_duallora.pretraining.data import find_cohorts
from med_duallora.pretraining.probe import ProbeScore, pooled_features, probe


def main() -> None:
    """Run the probe and print a table."""
    options = _parse()
    torch.set_num_threads(options.threads)
    config = BackboneConfig.preset(options.preset)
    checkpoint = options.checkpoint or packaged_checkpoint(options.preset)
    subjects = [subject for cohort in find_cohorts(options.data) for subject in cohort.subjects]
    trained = pooled_features(load_classifier(checkpoint, config), subjects, "pre-trained features")
    scores: dict[str, list[ProbeScore]] = {"pre-trained": [], "random weights": []}
    for seed in range(options.seeds):
        random = pooled_features(build_classifier(config, seed=seed).eval(), subjects, f"random features {seed}")
        scores["pre-trained"].append(probe(trained, subjects, seed))
        scores["random weights"].append(probe(random, subjects, seed))
    _show(scores, subjects)
    if options.out:
        runs = {name: [asdict(score) for score in rows] for name, rows in scores.items()}
        write_json(options.out, {"checkpoint_sha256": sha256_of_file(checkpoint), "n_subjects": len(subjects), **runs})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="cinema-mini")
    parser.add_argument("--checkpoint", type=Path, help="default: the one shipped with the package")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file with every split's numbers")
    return parser.parse_args()


def _show(scores: dict[str, list[ProbeScore]], subjects: list[PreparedSubject]) -> None:
    n_diseased = sum(subject.label for subject in subjects)
    print(f"{len(subjects)} subjects, {n_diseased} diseased; mean over vendors, then mean (sd) over splits")
    print("| features | AUROC | balanced accuracy |\n|---|---|---|")
    for name, rows in scores.items():
        cells = []
        for metric in ("auroc", "balanced_accuracy"):
            values = [getattr(row, metric) for row in rows]
            cells.append(f"{np.mean(values):.3f} ({np.std(values, ddof=1) if len(values) > 1 else 0:.3f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
