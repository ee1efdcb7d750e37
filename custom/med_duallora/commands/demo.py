"""``med-duallora demo``: the whole way from raw phantoms to a report, by the other commands."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from med_duallora.commands.options import add_settings_argument
from med_duallora.errors import InputError, UnfitError

N_PER_VENDOR = 136
SITES_PER_VENDOR = 2
SPLIT = "35/9/56"
"""Hospitals that train on 24 subjects each, at least five of them normal, which is what a closed site kit demands. Most
of the others are there to judge by. How often one run of a size shows a gain: ``benchmarks/demo_size.py``."""
TRAIN, _, TEST = SPLIT.split("/")
LEAST_PER_VENDOR = 16 * SITES_PER_VENDOR
"""With fewer, a hospital may have no normal subject to train on."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="phantoms -> prepared cohorts -> FLARE simulator -> report, in one go",
        description="Run phantom, prepare, simulate and report one after the other; every command is printed and can "
        "be run alone. A second run keeps what is there and redoes only what is missing; a finished federation of "
        "another configuration or program version is refused unless --fresh is given.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that everything is written to")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of the phantoms (default: 0)")
    parser.add_argument(
        "--n-per-vendor",
        type=int,
        default=N_PER_VENDOR,
        metavar="N",
        help=f"phantoms per vendor, dealt out to {SITES_PER_VENDOR} hospitals, {TRAIN} of 100 to train and {TEST} to "
        f"test (default: %(default)s, at least {LEAST_PER_VENDOR}; with fewer it is done sooner, and too few subjects "
        "are left to see a gain)",
    )
    add_settings_argument(parser)
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="move the federation that an earlier demo ran to OUT/run.previous-N, and run it anew",
    )
    parser.set_defaults(run=run)


def steps(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return what is done and the arguments of the command that does it, in order."""
    raw, prepared, workspace = (str(options.out / name) for name in ("raw", "prepared", "run"))
    phantom = ["phantom", "--out", raw, "--preset", "demo", "--seed", str(options.seed)]
    phantom += ["--n-per-vendor", str(options.n_per_vendor)]
    changes = ["--recipe", options.recipe] if options.recipe else []
    changes += [argument for assignment in options.assignments for argument in ("--set", assignment)]
    return {
        "a raw cohort of synthetic hearts from four scanner vendors": phantom,
        f"one prepared cohort for each of {SITES_PER_VENDOR} hospitals per vendor": [
            *("prepare", "--out", prepared, "--acdc", f"{raw}/acdc", "--mnms", f"{raw}/mnms"),
            *("--site-column", "vendor", "--simulated-sites", str(SITES_PER_VENDOR), "--split-percent", SPLIT),
        ],
        "a federation of all hospitals in the FLARE simulator": [
            *("simulate", "--data", prepared, "--workspace", workspace, *(["--fresh"] if options.fresh else [])),
            *changes,
        ],
        "tables and plots": ["report", workspace],
    }


def run(options: argparse.Namespace) -> int:
    """Run every step; the first failure ends the demo with that step's exit code."""
    from med_duallora.cli import build_parser

    parser = build_parser()
    todo = steps(options)
    started = time.monotonic()
    for number, (what, arguments) in enumerate(todo.items(), start=1):
        print(f"\n[{number}/{len(todo)}] {what}\n$ med-duallora {shlex.join(arguments)}", flush=True)
        began = time.monotonic()
        step = parser.parse_args(arguments)
        try:
            code = int(step.run(step))
        except UnfitError as error:
            if options.n_per_vendor >= LEAST_PER_VENDOR:
                raise
            raise InputError(
                f"--n-per-vendor {options.n_per_vendor} leaves hospitals without normal subjects to train on; give at "
                f"least {LEAST_PER_VENDOR}, and another --out"
            ) from error
        if code:
            print(f"demo: step {number}, {arguments[0]}, failed with exit code {code}", file=sys.stderr)
            return code
        print(f"[{number}/{len(todo)}] done in {time.monotonic() - began:.0f} s", flush=True)
    page = options.out / "run" / "report" / "report.html"
    print(f"\ndemo: finished in {time.monotonic() - started:.0f} s; open {page}")
    return 0
