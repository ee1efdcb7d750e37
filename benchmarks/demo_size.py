"""How likely one training shows that sharing a head pays, for federations of several sizes.

    python benchmarks/demo_size.py --data PREPARED [--data PREPARED ...] [--size 3,12,33 ...] [--draws 14]

PREPARED are cohorts of phantoms with one folder per vendor, whose seeds the demo does not use. For each size (sites of
a vendor, subjects of a site to train on and to test on) the subjects of every vendor are dealt out anew in every draw.
One logistic head for all sites, each standardised by itself, is held against a head of each site's own, both on frozen
features, as the arms `shared-head` and `own-head` of `med-duallora study`. "Shown" is the share of draws in which the
mean gain in balanced accuracy is beyond 1.96 standard errors over the test subjects, which is about what the first
sentence of a report tells. Adapters are not trained: hundreds of draws take minutes.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch

from med_duallora.backbone import packaged_checkpoint
from med_duallora.backbone.checkpoint import checkpoint_sha256
from med_duallora.errors import ConfigError, InputError
from med_duallora.pretraining.data import find_cohorts
from med_duallora.settings.config import JobConfig
from med_duallora.site.baseline import logistic_head, pooled_features
from med_duallora.site.features import FeatureSource
from med_duallora.site.model import network_of
from med_duallora.site.scores import THRESHOLD
from med_duallora.support.progress import track

SIZES = ("2,24,38", "2,16,61", "3,12,33")
CERTAIN = 1.96
LEAST_OF_CLASS = 2
"""To train on and to test on: one alone has no spread."""

Vendor = tuple[np.ndarray, np.ndarray]
"""Features (n_subjects, n_views, n_features) and labels (n_subjects,)."""
Site = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Features (n_train, n_views, n_features) and labels to train on, features (n_test, n_features) and labels to test."""


def main() -> None:
    """Print one line per size."""
    options = _parse()
    torch.set_num_threads(options.threads)
    cohorts = [features_of(folder) for folder in options.data]
    print("sites  train  test  gain    sd of draws  standard error  shown")
    for text in options.size:
        per_vendor, n_train, n_test = map(int, text.split(","))
        found = np.array(
            [
                gain_of(list(dealt(vendors, per_vendor, n_train, n_test, np.random.default_rng([draw, place]))))
                for place, vendors in enumerate(cohorts)
                for draw in range(options.draws)
            ]
        )
        gain, error = found.T
        print(
            f"{per_vendor * len(cohorts[0]):5}  {n_train:5}  {n_test:4}  {gain.mean():+.3f}  {gain.std():11.3f}"
            f"  {error.mean():14.3f}  {np.mean(gain > CERTAIN * error):.2f} of {len(gain)}",
            flush=True,
        )


def features_of(folder: Path) -> list[Vendor]:
    """Return what the frozen backbone says of every view of a folder's subjects, by prepared cohort."""
    job = JobConfig()
    checkpoint = packaged_checkpoint(job.backbone)
    network = network_of(job, checkpoint, "cpu")
    source = FeatureSource(network, job, checkpoint_sha256(checkpoint), None)
    views, vendors = range(job.train.n_views + 1), []
    for cohort in find_cohorts(folder):
        seen = [
            np.concatenate([pooled_features(network, source, [subject], view) for view in views])
            for subject in track(cohort.subjects, f"features of {folder.name}/{cohort.subjects[0].vendor}")
        ]
        vendors.append((np.stack(seen), np.array([subject.label for subject in cohort.subjects])))
    return vendors


def dealt(
    vendors: list[Vendor], per_vendor: int, n_train: int, n_test: int, rng: np.random.Generator
) -> Iterator[Site]:
    """Deal the subjects of each vendor out to its sites, alike in class."""
    for seen, labels in vendors:
        if per_vendor * (n_train + n_test) > len(labels):
            raise ConfigError(f"{per_vendor} sites of {n_train} + {n_test} subjects, but a vendor has {len(labels)}")
        parts: list[tuple[list[int], list[int]]] = [([], []) for _ in range(per_vendor)]
        for label in (0, 1):
            order = list(rng.permutation(np.flatnonzero(labels == label)))
            share = len(order) / len(labels)
            for train, test in parts:
                for part, n in ((train, n_train), (test, n_test)):
                    part.extend(order[: round(n * share)])
                    order = order[round(n * share) :]
        for train, test in parts:
            if (
                min(int((labels[part] == label).sum()) for part, label in product((train, test), (0, 1)))
                < LEAST_OF_CLASS
            ):
                raise ConfigError(f"{n_train} + {n_test} subjects leave a site fewer than {LEAST_OF_CLASS} of a class")
            yield seen[train], labels[train], seen[test][:, 0], labels[test]


def gain_of(sites: list[Site]) -> tuple[float, float]:
    """Return the mean gain of a shared head over own ones in balanced accuracy, and its standard error."""
    scales = [(seen[:, 0].mean(0), seen[:, 0].std(0) + 1e-6) for seen, *_ in sites]
    trained = [(_rows(seen), np.repeat(labels, seen.shape[1])) for seen, labels, *_ in sites]
    standard = [(rows - mean) / sd for (rows, _), (mean, sd) in zip(trained, scales, strict=True)]
    shared = logistic_head().fit(np.concatenate(standard), np.concatenate([labels for _, labels in trained]))
    gains, variances = [], []
    for (_, _, test, truth), (rows, labels), (mean, sd) in zip(sites, trained, scales, strict=True):
        own = logistic_head().fit(rows, labels)
        right = [
            (model.predict_proba(x)[:, 1] >= THRESHOLD) == (truth == 1)
            for model, x in ((shared, (test - mean) / sd), (own, test))
        ]
        better = right[0].astype(float) - right[1]
        by_class = [better[truth == label] for label in (0, 1)]
        gains.append(np.mean([values.mean() for values in by_class]))
        variances.append(sum(values.var(ddof=1) / len(values) for values in by_class) / 4)
    return float(np.mean(gains)), float(np.sqrt(sum(variances)) / len(sites))


def _rows(seen: np.ndarray) -> np.ndarray:
    return seen.reshape(-1, seen.shape[-1])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="prepared phantoms; several times")
    parser.add_argument("--size", nargs="+", default=SIZES, metavar="SITES,TRAIN,TEST", help="per vendor, site, site")
    parser.add_argument("--draws", type=int, default=14, help="per cohort (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"demo_size: {error}", file=sys.stderr)
        sys.exit(2)
