"""``med-duallora report``: tables and plots of a finished run, at the server or at a site."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.commands.options import add_floor_arguments, floors_of

if TYPE_CHECKING:
    from med_duallora.settings.release import ReleaseFloors

DESCRIPTION = """\
Write report.html (one self-contained page), report.md and PNG curves of a finished run: scores by site and variant,
what left the sites, training curves, time, configuration and provenance. Of a site's own run folder
(state_dir/EXPERIMENT/RUN) the page shows what the server never sees: how far the model's probabilities can be taken at
their word, the site's threshold, and whether the model is released there.

With a --min option, the release gate is held against every site's test scores; the worst site decides.
"""
EPILOG = "Exit codes: 0 written, 1 written and the release gate failed, 2 bad input. Research use, not for diagnosis."


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="tables and plots of a run: one HTML page, Markdown, PNG",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_directory",
        metavar="RUN_DIR",
        type=Path,
        help="simulator workspace, downloaded job or the server's run directory, searched for job.json and "
        "round_metrics.jsonl; or a site's run folder, which holds calibration.json",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR/report)")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="of a simulation on this machine: show test subjects with what the model says of them, also where they "
        "are patients (phantoms are always shown); such a report must not leave the machine",
    )
    add_floor_arguments(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read the run, write the report and say where it is."""
    from med_duallora.report.site_run import is_site_run

    out = options.out or options.run_directory / "report"
    floors = floors_of(options)
    if is_site_run(options.run_directory):
        return 0 if _of_site(options.run_directory, out, floors) else 1
    return 0 if _of_server(options.run_directory, out, floors, pictures=options.pictures) else 1


def _of_server(directory: Path, out: Path, floors: "ReleaseFloors", *, pictures: bool) -> bool:
    """Write the report of a federation; return whether its release gate passed."""
    from med_duallora.report import read_run, write_report
    from med_duallora.report.headline import headline
    from med_duallora.report.release import gate_of_run

    found = read_run(directory, pictures=pictures)
    page = write_report(found, out, floors)
    print(headline(found))
    gate = gate_of_run(found.evaluation, floors)
    if gate:
        print(gate.sentence)
    print(f"report: {page}")
    return gate is None or gate.passed


def _of_site(directory: Path, out: Path, floors: "ReleaseFloors") -> bool:
    """Write the page of a site's run folder, readable by its account alone; return whether the model is released."""
    from med_duallora.report.site_page import build
    from med_duallora.report.site_run import read_site_run
    from med_duallora.report.write import write_document

    found = read_site_run(directory, floors)
    page = write_document(build(found), out, 0o600)
    print(found.gate.sentence)
    print(f"page (about this site's subjects; keep it there): {page}")
    return found.gate.passed
