"""``med-duallora montage``: one picture of a cohort."""

import argparse
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "montage",
        help="picture of a cohort: mid slices at ED and ES, difference, histogram",
        description="Draw one row per subject: the middle slice at ED and ES, their difference, and the grey values of "
        "both stacks. Phantoms are labelled as such.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="prepared cohort or folder of them, raw ACDC, M&Ms or M&Ms-2 cohort, phantom cohort, or NIfTI files in "
        "pairs (ED before ES)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture (.png)")
    parser.add_argument(
        "--n-per-vendor",
        type=int,
        default=4,
        metavar="N",
        help="subjects per vendor and cohort, spread over pathologies (default: 4)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the picture and say where it is."""
    from med_duallora.cohorts.montage import read_rows, write_montage
    from med_duallora.errors import InputError

    if options.n_per_vendor < 1:
        raise InputError(f"--n-per-vendor = {options.n_per_vendor}, but it must be at least 1")
    rows = read_rows(options.paths, options.n_per_vendor)
    write_montage(rows, options.out)
    print(f"{len(rows)} subjects in {options.out}")
    return 0
