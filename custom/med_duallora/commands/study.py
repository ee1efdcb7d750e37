"""``med-duallora study``: methods, seeds, settings and cohorts compared, with intervals."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.commands.options import add_settings_argument, whole_number
from med_duallora.errors import ConfigError

if TYPE_CHECKING:
    from med_duallora.study.plan import Cohort, RunSpec

DESCRIPTION = """\
Compare federated methods, and what each must be held against: a site's own head and one shared head on the frozen
backbone, training alone (local-lora), training on all subjects in one place (central-lora), permuted labels, random
weights, and sites that join after the training. Every run deals the subjects of every site out anew and runs the whole
federation in one process, through the same core as in FLARE.

OUT holds one record per run (it names subjects, and stays where the patients are), results.csv and results.json (no
subject), and study.html and study.md with tables and plots. The same command does only what is missing, also after
Ctrl-C; changed settings are other runs.

Research use only, not for diagnosis.
"""
MOST = 1_000_000


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "study",
        help="compare methods over seeds and cohorts, with intervals and tests",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="folder that holds one prepared cohort per site; repeatable, one federation each",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="CSV",
        help="true values of the phantoms (the truth.csv that `phantom` wrote): adds latent-ceiling, what could be "
        "told from them without an image",
    )
    _add_design_arguments(parser)
    add_settings_argument(parser)
    parser.add_argument(
        "--processes",
        type=whole_number(1, 1024),
        metavar="N",
        help="runs at the same time, each with one thread (default: one per core)",
    )
    parser.add_argument(
        "--backbone-checkpoint", type=Path, metavar="FILE", help="backbone weights (default: the shipped ones)"
    )
    parser.add_argument(
        "--draws", type=whole_number(100, 100_000), default=1000, metavar="N", help="bootstrap draws (default: 1000)"
    )
    parser.set_defaults(run=run)


def _add_design_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods", metavar="A,B,...", help="what is compared (default: all; docs/study.md lists them)"
    )
    parser.add_argument(
        "--seeds", type=whole_number(1, 1000), default=10, metavar="N", help="seeds 0 to N - 1 (default: 10)"
    )
    parser.add_argument(
        "--control-seeds",
        type=whole_number(1, 1000),
        default=2,
        metavar="N",
        help="seeds of permuted-labels, random-weights and new-site, which cost much and differ little (default: 2)",
    )
    parser.add_argument(
        "--n-train",
        type=whole_number(6, MOST),
        default=24,
        metavar="N",
        help="training subjects per site (default: 24)",
    )
    parser.add_argument(
        "--n-test",
        type=whole_number(2, MOST),
        default=60,
        metavar="N",
        help="test subjects per site, or all others where there are fewer (default: 60)",
    )
    parser.add_argument(
        "--recipe-set",
        action="append",
        default=[],
        metavar='"NAME: KEY=VALUE ..."',
        help="settings under which all methods are run, or the name of a known recipe; repeatable, one set each "
        "(default: the settings as they are)",
    )


def run(options: argparse.Namespace) -> int:
    """Do what is missing, then write tables and page of all runs."""
    from med_duallora.backbone import check_checkpoint
    from med_duallora.study.plan import alone_in
    from med_duallora.study.pool import run_all
    from med_duallora.study.write import write_study

    if options.backbone_checkpoint is not None:
        check_checkpoint(options.backbone_checkpoint)
    cohorts = _cohorts(options.data)
    if options.truth is not None:
        _check_truth(options.truth, cohorts)
    n_processes = len(os.sched_getaffinity(0)) if options.processes is None else options.processes
    _check_place(options)
    _check_dealt(options, cohorts)
    planned = _specs(options, cohorts)
    with alone_in(options.out):
        n_done = run_all(planned, n_processes)
        page = write_study(planned, options.out, options.draws)
    print(f"{len(planned)} runs, {n_done} of them new; page: {page}")
    print("Research use only, not for diagnosis.")
    return 0


def _cohorts(folders: list[Path]) -> "list[Cohort]":
    from med_duallora.cohorts.origin import origin_of
    from med_duallora.cohorts.sites import find_sites
    from med_duallora.study.plan import Cohort

    found = []
    for data in folders:
        sites = find_sites(data)
        synthetic = {"all": True, "none": False, "some": None}[origin_of(sites.values()).phantoms]
        found.append(Cohort.of(data, sites, synthetic))
    names = [cohort.name for cohort in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--data: two folders are called {twice}, which names their cohort; rename one")
    return found


def _check_dealt(options: argparse.Namespace, cohorts: "list[Cohort]") -> None:
    """Refuse, before anything runs, a site with too few subjects."""
    from med_duallora.study.splits import deal

    for cohort in cohorts:
        for site, folder in cohort.sites.items():
            deal(folder, site, options.n_train, options.n_test, 0)


def _check_place(options: argparse.Namespace) -> None:
    from med_duallora.support.folders import check_writable

    out = options.out.resolve()
    for data in options.data:
        if data.resolve() in (out, *out.parents):
            raise ConfigError(
                f"--out {options.out} lies in --data {data}, whose folders are sites; choose another place"
            )
    check_writable(options.out)


def _check_truth(path: Path, cohorts: "list[Cohort]") -> None:
    """Refuse, before anything runs, a table that does not have every subject."""
    from med_duallora.cohorts.phantom.truth import check_same, read_values
    from med_duallora.study.splits import rows_of

    for cohort in cohorts:
        rows = [row for folder in cohort.sites.values() for row in rows_of(folder)]
        read_values(path, [row["subject"] for row in rows])
        check_same(path, {row["subject"]: row["pathology"] for row in rows})


def _specs(options: argparse.Namespace, cohorts: "list[Cohort]") -> "list[RunSpec]":
    from med_duallora.settings.config import JobConfig
    from med_duallora.study.arms import NEW_SITE, chosen
    from med_duallora.study.plan import DEFAULT, Recipe, refuse_own, specs

    recipes = [Recipe.read(text) for text in options.recipe_set] or [Recipe(DEFAULT)]
    names = [recipe.name for recipe in recipes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"--recipe-set: two are called {twice}")
    arms = chosen(options.methods, truth=options.truth is not None)
    if options.methods is None and any(len(cohort.sites) < 2 for cohort in cohorts):
        arms = [arm for arm in arms if arm.name != NEW_SITE]
        print(f"{NEW_SITE} is left out: it needs two sites in every federation")
    refuse_own(options.assignments)
    job = JobConfig().with_overrides(options.assignments)
    return specs(
        arms,
        recipes,
        cohorts,
        range(options.seeds),
        n_few=options.control_seeds,
        job=job,
        checkpoint=options.backbone_checkpoint,
        n_train=options.n_train,
        n_test=options.n_test,
        out=options.out.resolve(),
        truth=options.truth,
    )
