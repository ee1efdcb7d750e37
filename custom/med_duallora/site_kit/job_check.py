"""What a job folder asks of a site: the egress contract that follows from it, and whether the site can run it."""

from pathlib import Path

from med_duallora.boundary.contract import EgressContract, demands_of
from med_duallora.boundary.literal import check_app
from med_duallora.errors import ConfigError, KitError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.fitness import job_problems
from med_duallora.site.problem import Problem
from med_duallora.site_kit.layout import check_job_layout
from med_duallora.support.files import read_object

SETTINGS_PATH = "med_duallora.flare.wire.job.FederatedJob"
CLIENT_CONFIG = "config_fed_client.json"


def job_settings(folder: Path) -> JobConfig:
    """Return the settings of a FLARE job folder, as every site will read them.

    Raises:
        KitError: the folder holds no job of this package, or one of an earlier layout of it.
        ConfigError: its settings are not valid.
    """
    path = _client_config(folder)
    try:
        components = read_object(path)["components"]
        settings = [item["args"]["config"] for item in components if item.get("path") == SETTINGS_PATH]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KitError(f"{path} is not a client configuration of a FLARE job: {error}") from error
    check_job_layout(folder, components)
    if len(settings) != 1:
        raise KitError(f"{path} has {len(settings)} components {SETTINGS_PATH}, expected one")
    return JobConfig.from_dict(settings[0])


def strict_refusal(job: JobConfig) -> str:
    """Return why a site with the policy that ``site-kit`` writes refuses a job; empty where it takes it."""
    try:
        SitePolicy().check_job(**demands_of(job, EgressContract.for_job(job)))
    except ConfigError as error:
        return str(error)
    return ""


def _client_config(folder: Path) -> Path:
    found = sorted(folder.glob(f"*/config/{CLIENT_CONFIG}")) or sorted(folder.glob(f"config/{CLIENT_CONFIG}"))
    if len(found) != 1:
        raise KitError(f"{folder} holds {len(found)} client configurations, expected one: give a job folder")
    return found[0]


def judge(folder: Path, config: SiteConfig | None) -> tuple[EgressContract, list[Problem]]:
    """Return the contract of a job folder, and why the site cannot run this job; empty where it can.

    Args:
        folder: of the job.
        config: the site's configuration; None: no site to ask.

    Raises:
        KitError: see ``job_settings``.
        ConfigError: its settings are not valid, or its files are not literal JSON (see ``boundary.literal``).
    """
    check_app(_client_config(folder).parent.parent)
    job = job_settings(folder)
    return EgressContract.for_job(job), job_problems(config, job) if config else []
