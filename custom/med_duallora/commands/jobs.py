"""``med-duallora jobs``: FLARE job folders from the recipe."""

import argparse
import sys
from pathlib import Path

from med_duallora.commands.options import add_resume_argument, add_settings_argument, assignments_of
from med_duallora.errors import ConfigError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "jobs",
        help="export FLARE job folders, or check the committed ones",
        description="FLARE job folders are made by the recipe (med_duallora.flare.jobs.recipe), never by hand.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser(
        "export",
        help="write ready job folders",
        description="Write ready job folders. A self-contained one carries the package and runs with "
        "`nvflare simulator FOLDER`; where med_duallora is installed, FLARE uses the installed package.",
    )
    export.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder that the job folders are written to"
    )
    export.add_argument("--job", metavar="JOB", help="export only this known job (default: every known job)")
    add_settings_argument(export)
    add_resume_argument(export)
    export.set_defaults(run=_export)
    check = actions.add_parser(
        "check",
        help="compare the committed job folders with the recipe",
        description="Compare meta.json, app/ and jobs/ of a checkout with what the recipe gives; exit code 1 on drift.",
    )
    check.add_argument("--checkout", type=Path, default=Path(), metavar="DIR", help="the checkout (default: here)")
    check.add_argument("--write", action="store_true", help="bring the committed folders up to date instead")
    check.set_defaults(run=_check)


def _export(options: argparse.Namespace) -> int:
    from med_duallora.flare.jobs.export import JOBS, export_job
    from med_duallora.site_kit.job_check import strict_refusal

    if options.job is not None and options.job not in JOBS:
        raise ConfigError(f"--job {options.job}: no known job; known are {', '.join(JOBS)}")
    for name in [options.job] if options.job else JOBS:
        spec = JOBS[name].resumed(options.resume_from, assignments_of(options))
        folder = export_job(spec, options.out / name)
        kind = "self-contained" if spec.with_code else "for sites that have med_duallora installed"
        print(f"{folder}: {spec.summary} ({kind})")
        if refusal := strict_refusal(spec.job):
            print(f"{folder}: a site with the policy that site-kit writes would refuse it: {refusal}", file=sys.stderr)
    return 0


def _check(options: argparse.Namespace) -> int:
    from med_duallora.flare.jobs.export import committed_differences, committed_jobs, write_committed

    root = options.checkout.resolve()
    if options.write:
        write_committed(root)
    differences = committed_differences(root)
    for line in differences:
        print(line, file=sys.stderr)
    if differences:
        print("run `med-duallora jobs check --write` and commit the result", file=sys.stderr)
        return 1
    print(f"{len(committed_jobs(root))} committed job folders are as the recipe gives them")
    return 0
