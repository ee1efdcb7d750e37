"""What would stop a simulation, found out before FLARE starts: its logs may not quote cohorts."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.errors import ConfigError, UnfitError
from med_duallora.support.files import read_object

if TYPE_CHECKING:
    from med_duallora.flare.local.simulation import Simulation

LOG_MODES = ("concise", "msg_only", "full", "verbose")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def check_inputs(simulation: "Simulation") -> None:
    """Refuse what no site, or one of them, could run.

    A site that cannot run the job is only said where the job goes on without it (``workflow.min_sites``), and so is a
    score that a site will not have because a class is missing in its val or test split.

    Raises:
        InputError: says what to change.
    """
    from med_duallora.site.fitness import problems

    job = simulation.spec.job
    unfit = {}
    for site in simulation.sites:
        if found := problems(simulation.site_config(site), job):
            unfit[site] = "; ".join(map(str, found))
    others = [site for site in simulation.sites if site not in unfit]
    for site, reasons in unfit.items():
        text = f"{site} cannot run this job: {reasons}"
        if len(others) < simulation.spec.workflow.min_sites:
            hint = f" (--sites {','.join(others)} runs without it)" if others else ""
            raise UnfitError(text + hint, f"{site} cannot run this job")
        print(text, file=sys.stderr)
    for site in others:
        _say_missing_scores(site, simulation.sites[site])


def _say_missing_scores(site: str, folder: Path) -> None:
    from med_duallora.cohorts.classes import lacking_class
    from med_duallora.cohorts.prepared import PreparedCohort

    cohort = PreparedCohort.read(folder)
    for split, score in (("val", "validation"), ("test", "the test")):
        if lack := lacking_class(cohort, split):
            print(f"{site} will have no balanced accuracy in {score}: {lack}", file=sys.stderr)


def known_log_config(text: str) -> str:
    """Return a ``--log-config`` as FLARE takes it, a file by its whole path: its processes have folders of their own.

    Raises:
        InputError: FLARE does not understand it, or does not pass it on to the sites.
    """
    from med_duallora.site_kit.passable import check_passable

    if text in LOG_MODES or text.upper() in LOG_LEVELS:
        return text
    place = Path(text).resolve()
    try:
        read_object(place)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--log-config {text}: it must be {', '.join(LOG_MODES)}, a level ({', '.join(LOG_LEVELS)}), or the JSON "
            "file of a logging configuration"
        ) from error
    check_passable(place, "--log-config")
    return str(place)
