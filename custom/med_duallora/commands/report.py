"""``med-duallora report``: tables and plots of a finished run."""

import argparse
from pathlib import Path


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="tables and plots of a run: one HTML page, Markdown, PNG",
        description="Write report.html (one self-contained page), report.md and PNG curves of a finished run: scores "
        "by site and variant, what left the sites, training curves, time, configuration and provenance.",
    )
    parser.add_argument(
        "run_directory",
        metavar="RUN_DIR",
        type=Path,
        help="simulator workspace, downloaded job or the server's run directory; "
        "searched for job.json and round_metrics.jsonl",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: RUN_DIR/report)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Read the run, write the report and say where it is."""
    from med_duallora.report import read_run, write_report
    from med_duallora.report.content import headline

    found = read_run(options.run_directory)
    page = write_report(found, options.out or options.run_directory / "report")
    print(headline(found))
    print(f"report: {page}")
    return 0
