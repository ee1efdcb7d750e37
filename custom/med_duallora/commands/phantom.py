"""``med-duallora phantom``: a raw cohort of synthetic hearts."""

import argparse
import os
from pathlib import Path

PRESETS = ("demo", "study", "pretrain")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "phantom",
        help="write a raw four-vendor cohort of synthetic hearts",
        description="Write synthetic cine MRI of four scanner vendors in the raw layouts of ACDC and M&Ms, with "
        "segmentations and a table of the true volumes. Synthetic phantoms, not for diagnosis. A second run with the "
        "same arguments completes what is missing.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the cohort; new or empty")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default="demo",
        help="demo: 28 subjects per vendor; study: 120 per vendor; pretrain: an unlabelled pool of 400 Siemens "
        "subjects that shares none with the others (default: demo)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed gives the same voxels on one machine (default: 0)",
    )
    parser.add_argument("--n-per-vendor", type=int, metavar="N", help="subjects per vendor instead of the preset's")
    parser.add_argument("--processes", type=int, metavar="N", help="number of processes (default: one per core)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the cohort and say how to prepare it."""
    from med_duallora.cohorts.phantom import Recipe, write_cohort

    recipe = Recipe(options.preset, options.seed, options.n_per_vendor)
    n_processes = len(os.sched_getaffinity(0)) if options.processes is None else options.processes
    n_subjects = write_cohort(options.out, recipe, n_processes)
    sources = " ".join(f"--{name} {options.out / name}" for name in ("acdc", "mnms") if (options.out / name).is_dir())
    print(f"{n_subjects} synthetic phantoms (not for diagnosis) in {options.out}")
    print(f"next: med-duallora prepare --out PREPARED {sources}")
    return 0
