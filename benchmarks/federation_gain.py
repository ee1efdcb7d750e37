"""What a site gains from the federation, on more test subjects than the demo has.

    python benchmarks/federation_gain.py --data PREPARED [--n-train 36] [--recipe NAME] [--set KEY=VALUE] [--out FILE]

PREPARED is a folder of prepared cohorts, one per vendor, none of which was used to choose anything that is measured
here. Every repetition draws ``--n-train`` training subjects per vendor, stratified by class, takes all others as test
subjects and runs the whole federation in one process, with another seed. Scores are macro averages over the vendors;
``gain`` is what both adapters add to the frozen backbone with a head that is fitted to the site's own subjects.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.engine import run_federation
from med_duallora.measures import SCORES, VARIANTS, score_name
from med_duallora.pretraining.data import find_cohorts
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.settings.recipes import RECIPES, with_recipe
from med_duallora.study.splits import Dealt, rows_of, write
from med_duallora.support.files import write_json
from med_duallora.support.progress import track
from med_duallora.support.seeds import generator

METRICS = {name: score.heading for name, score in SCORES.items() if score.leading}

Scores = dict[str, dict[str, float]]


def main() -> None:
    """Run the repetitions and print a table."""
    options = _parse()
    cohorts = find_cohorts(options.data)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.cache or Path(scratch) / "cache"
        for repetition in track(range(options.repetitions), "federations", options.repetitions):
            settings = with_recipe(options.recipe, [*options.assignments, f"train.seed={repetition}"])
            found.append(_repetition(cohorts, JobConfig().with_overrides(settings), options, cache))
    _show(found, options)
    if options.out:
        write_json(
            options.out,
            {
                "n_train": options.n_train,
                "settings": with_recipe(options.recipe, options.assignments),
                "repetitions": found,
            },
        )


def _repetition(cohorts: list[PreparedCohort], job: JobConfig, options: argparse.Namespace, cache: Path) -> Scores:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sites = {}
        for cohort in cohorts:
            vendor = cohort.directory.name
            _resplit(cohort, folder / vendor, options.n_train, job.train.seed)
            sites[vendor] = SiteConfig(
                folder / vendor,
                cache / "state" / vendor,  # holds the secret that seals the features of all repetitions
                cache / "features",
                options.backbone_checkpoint,
                "cpu",
                options.threads,
                16384,
                SitePolicy.for_one_machine(),
            )
        evaluation = run_federation(job, sites).evaluation
    scores = {
        variant: {
            metric: float(np.mean([site[score_name(variant, metric)] for site in evaluation.values()]))
            for metric in METRICS
        }
        for variant in VARIANTS
        if all(score_name(variant, metric) in site for site in evaluation.values() for metric in METRICS)
    }
    scores["gain"] = {metric: scores["both"][metric] - scores["backbone"][metric] for metric in METRICS}
    return scores


def _resplit(cohort: PreparedCohort, target: Path, n_train: int, seed: int) -> None:
    """Write a cohort that points at the same volumes, with a stratified training split of ``n_train`` subjects.

    The draw is the one that README's numbers were measured with; that of a study is another.
    """
    by_label = defaultdict(list)
    for subject in cohort.subjects:
        by_label[subject.label].append(subject.subject)
    stream = generator(seed, "benchmark", cohort.directory.name)
    train: set[str] = set()
    for names in by_label.values():
        train |= set(stream.permutation(names)[: round(n_train * len(names) / len(cohort.subjects))].tolist())
    rows = [{**row, "split": "train" if row["subject"] in train else "test"} for row in rows_of(cohort.directory)]
    write([Dealt(cohort.directory, tuple(rows))], target)


def _show(found: list[Scores], options: argparse.Namespace) -> None:
    print(f"{options.n_train} training subjects per vendor, {len(found)} repetitions: mean (sd) [lowest, highest]")
    print(f"| | {' | '.join(METRICS.values())} |\n|---{'|---' * len(METRICS)}|")
    for name in found[0]:
        cells = []
        for metric in METRICS:
            values = np.array([scores[name][metric] for scores in found])
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.3f} ({spread:.3f}) [{values.min():.3f}, {values.max():.3f}]")
        print(f"| {name} | {' | '.join(cells)} |")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n-train", type=int, default=36, help="per vendor (default: 36, as in the demo)")
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--recipe", choices=tuple(RECIPES))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments")
    parser.add_argument("--backbone-checkpoint", type=Path, help="default: the one shipped with the package")
    parser.add_argument("--cache", type=Path, help="feature cache to keep; default: a temporary one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file with every repetition's numbers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
