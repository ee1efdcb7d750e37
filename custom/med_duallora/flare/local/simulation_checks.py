"""What would stop a simulation, found out before FLARE starts: its logs may not quote cohorts."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.errors import CohortError, ConfigError
from med_duallora.support.files import read_json

if TYPE_CHECKING:
    from med_duallora.cohorts.prepared import PreparedCohort
    from med_duallora.flare.local.simulation import Simulation

LOG_MODES = ("concise", "msg_only", "full", "verbose")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def check_inputs(simulation: "Simulation") -> None:
    """Refuse what no site, or one of them, could train with.

    A site without both classes is only said where the job goes on without it (``workflow.min_sites``), and so is a
    score that a site will not have because a class is missing in its val or test split.

    Raises:
        InputError: says what to change.
    """
    from med_duallora.backbone import check_agreed, check_checkpoint, checkpoint_sha256, packaged_checkpoint
    from med_duallora.boundary.contract import EgressContract
    from med_duallora.cohorts.classes import lacking_class
    from med_duallora.cohorts.prepared import PreparedCohort
    from med_duallora.support.devices import resolve_device

    job = simulation.spec.job
    EgressContract.for_job(job)
    checkpoint = simulation.backbone_checkpoint or packaged_checkpoint(job.backbone)
    check_agreed(job.backbone, job.backbone_sha256, checkpoint_sha256(checkpoint))
    check_checkpoint(checkpoint, job.backbone)
    lacks = {}
    for site, folder in simulation.sites.items():
        resolve_device(simulation.site_config(site).device)
        cohort = PreparedCohort.read(folder)
        if lack := lacking_class(cohort):
            lacks[site] = lack
        _say_missing_scores(site, cohort)
    _check_classes(simulation, lacks)


def _say_missing_scores(site: str, cohort: "PreparedCohort") -> None:
    from med_duallora.cohorts.classes import lacking_class

    for split, score in (("val", "validation"), ("test", "the test")):
        if lack := lacking_class(cohort, split):
            print(f"{site} will have no balanced accuracy in {score}: {lack}", file=sys.stderr)


def _check_classes(simulation: "Simulation", lacks: dict[str, str]) -> None:
    others = [site for site in simulation.sites if site not in lacks]
    for site, lack in lacks.items():
        text = f"{site} cannot train, which needs both classes: {lack}"
        if len(others) < simulation.spec.workflow.min_sites:
            raise CohortError(text + (f" (--sites {','.join(others)} runs without it)" if others else ""))
        print(text, file=sys.stderr)


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
        is_whole = isinstance(read_json(place), dict)
    except (OSError, ValueError):
        is_whole = False
    if not is_whole:
        raise ConfigError(
            f"--log-config {text}: it must be {', '.join(LOG_MODES)}, a level ({', '.join(LOG_LEVELS)}), or the JSON "
            "file of a logging configuration"
        )
    check_passable(place, "--log-config")
    return str(place)
