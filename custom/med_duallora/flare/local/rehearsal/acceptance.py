"""Whether the sites of a federation would take a job, asked of their kits before it is submitted."""

from pathlib import Path

from med_duallora.errors import KitError, UnfitError
from med_duallora.flare.jobs.export import read_job
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.install import SITE_CONFIG_PLACE
from med_duallora.site_kit.job_check import judge


def check_taken(federation: Federation, folder: Path) -> dict[str, str]:
    """Refuse a job that too few sites would take; FLARE would end it only after all of them were asked to start.

    Args:
        federation: whose sites' configurations are on this machine.
        folder: the job folder as it would be submitted; one of another kind is left to FLARE.

    Returns:
        Why a site would refuse the job, by site; the job goes on without these.

    Raises:
        UnfitError: fewer sites would take it than it waits for.
        ConfigError: its settings are not valid.
    """
    refusals = {}
    for site in federation.sites:
        try:
            problems = judge(folder, SiteConfig.from_file(federation.kit(site) / SITE_CONFIG_PLACE))[1]
        except KitError:
            return {}
        if problems:
            refusals[site] = "; ".join(map(str, problems))
    n_left, n_wanted = len(federation.sites) - len(refusals), read_job(folder)[1].min_sites
    if refusals and n_left < n_wanted:
        first, why = next(iter(refusals.items()))
        raise UnfitError(
            f"{len(refusals)} of {len(federation.sites)} sites would refuse this job, which waits for {n_wanted}; "
            f"{first}: {why}",
            "too few sites would take this job",
        )
    return refusals
