"""``med-duallora doctor``: is a prepared cohort fit to join a federation."""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.errors import ConfigError

if TYPE_CHECKING:
    from med_duallora.cohorts.examination import Examination, Finding
    from med_duallora.settings.config import JobConfig, SiteConfig

DESCRIPTION = """\
Open every volume of one or more prepared cohorts and say, in one sentence first, whether they are fit to join: classes
and splits, damaged volumes, scans that are there twice (within a cohort, across splits, across cohorts), odd
intensities, spacings and heart sizes, hearts that were not found, and whether there are enough subjects for what the
site's privacy floor lets out. With --job, one training step of that job is tried on the cohort. The page shows
subjects' images: it stays at the site.
"""
EPILOG = "Exit codes: 0 fit to join, 1 not yet (an error was found), 2 bad input. Research use, not for diagnosis."


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="is a prepared cohort fit to join? one sentence, the reasons, and a page with pictures",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "cohorts", nargs="+", type=Path, metavar="COHORT", help="a prepared cohort, or a folder that holds several"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("doctor.html"), metavar="FILE", help="the page (default: %(default)s)"
    )
    parser.add_argument("--job", metavar="JOB", help="a known job or a job folder: also say whether it can run here")
    parser.add_argument(
        "--site-config",
        type=Path,
        metavar="FILE",
        help="the site's configuration, whose privacy floor, checkpoint and device count (default: those of a new "
        "site kit)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON instead of text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Examine, print the sentences and findings, write the page."""
    from med_duallora.cohorts.examination import cohorts_at, examine
    from med_duallora.report.cohort_page import build
    from med_duallora.report.html import to_html
    from med_duallora.support.files import write_text

    if options.out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {options.out} must end in .html")
    site = _site(options.site_config)
    job = _job(options.job)
    found = examine(
        cohorts_at(options.cohorts),
        site.policy,
        f"the site configuration {options.site_config.name}" if options.site_config else "a new site kit",
        lambda folder: chain(
            _configuration_problems(folder, site) if options.site_config else (),
            _job_problems(folder, options.job, job, site) if job else (),
        ),
    )
    write_text(options.out, to_html(build(found)), mode=0o600)  # it shows patients
    print(_as_json(found) if options.json else "\n".join(_lines(found, options.out)))
    return 0 if all(item.is_fit for item in found) else 1


def _site(path: Path | None) -> "SiteConfig":
    """Return the site's configuration; without one, that of a new kit, whose floor is the strictest we write."""
    from med_duallora.settings.config import SiteConfig
    from med_duallora.site_kit.wanted import site_config_template

    return SiteConfig.from_file(path) if path else SiteConfig.from_dict(site_config_template(Path()))


def _job(name: str | None) -> "JobConfig | None":
    from med_duallora.flare.jobs.export import JOBS
    from med_duallora.site_kit.job_check import job_settings

    if name is None:
        return None
    if name in JOBS:
        return JOBS[name].job
    if not Path(name).is_dir():
        raise ConfigError(f"--job {name}: there is no such job folder, and no known job; known are {', '.join(JOBS)}")
    return job_settings(Path(name))


def _configuration_problems(folder: Path, site: "SiteConfig") -> "Iterator[Finding]":
    """Give what in the site's own configuration would stop every job, or is about another cohort."""
    from med_duallora.cohorts.examination import WARNING, Finding
    from med_duallora.site.fitness import problems

    for problem in problems(site):
        yield Finding(WARNING, f"every job would fail with this site configuration: {problem}")
    if site.data_dir.resolve() != folder.resolve():
        yield Finding(WARNING, f"the site configuration names another cohort: data_dir is {site.data_dir}")


def _job_problems(folder: Path, name: str, job: "JobConfig", site: "SiteConfig") -> "Iterator[Finding]":
    from med_duallora.site_kit.job_trial import try_job

    return try_job(folder, name, job, site)


def _as_json(found: "list[Examination]") -> str:
    import dataclasses
    import json

    values = [
        {
            "cohort": str(item.cohort.directory),
            "is_fit": item.is_fit,
            "sentence": item.sentence(),
            "findings": [dataclasses.asdict(finding) for finding in item.findings],
        }
        for item in found
    ]
    return json.dumps(values, indent=2)


def _lines(found: "list[Examination]", page: Path) -> list[str]:
    lines = [item.sentence() for item in found]
    for item in found:
        if item.findings:
            lines += ["", f"{item.cohort.directory.name}:"]
            lines += [f"  {finding.severity:<8} {finding.text}" for finding in item.findings]
    return [*lines, "", f"page (with subjects' images; keep it at the site): {page}"]
