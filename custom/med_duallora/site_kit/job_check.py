"""What a job folder asks of a site: the egress contract that follows from it, and whether the site's policy agrees."""

from pathlib import Path

from med_duallora.boundary.contract import EgressContract, demands_of
from med_duallora.errors import ConfigError, KitError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.support.files import read_object

SETTINGS_PATH = "med_duallora.flare.wire.job.FederatedJob"
CLIENT_CONFIG = "config_fed_client.json"


def job_settings(folder: Path) -> JobConfig:
    """Return the settings of a FLARE job folder, as every site will read them.

    Raises:
        KitError: the folder holds no job of this package.
        ConfigError: its settings are not valid.
    """
    found = sorted(folder.glob(f"*/config/{CLIENT_CONFIG}")) or sorted(folder.glob(f"config/{CLIENT_CONFIG}"))
    if len(found) != 1:
        raise KitError(f"{folder} holds {len(found)} client configurations, expected one: give a job folder")
    try:
        components = read_object(found[0])["components"]
        settings = [item["args"]["config"] for item in components if item.get("path") == SETTINGS_PATH]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KitError(f"{found[0]} is not a client configuration of a FLARE job: {error}") from error
    if len(settings) != 1:
        raise KitError(f"{found[0]} has {len(settings)} components {SETTINGS_PATH}, expected one")
    return JobConfig.from_dict(settings[0])


def judge(folder: Path, config: SiteConfig | None) -> tuple[EgressContract, str]:
    """Return the contract of a job folder, and why the site would refuse the job; empty where it takes it.

    Args:
        folder: of the job.
        config: the site's configuration; None: no policy to ask.
    """
    job = job_settings(folder)
    contract = EgressContract.for_job(job)
    if config is None:
        return contract, ""
    try:
        config.policy.check_job(**demands_of(job, contract))
    except ConfigError as error:
        return contract, str(error)
    return contract, ""
