"""A whole federation on this machine: up, one job, down; nothing it started outlives it unnoticed."""

import contextlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from med_duallora.cohorts.origin import origin_of
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import ConfigError, FederationError
from med_duallora.flare.local import processes
from med_duallora.flare.local.interruptions import not_interrupted
from med_duallora.flare.local.rehearsal.admin import Console, console
from med_duallora.flare.local.rehearsal.provision import provision, read_project, rehearsed, with_own_sites
from med_duallora.flare.local.rehearsal.record import PROVISIONED, RECORD, Federation, private_directory
from med_duallora.flare.local.rehearsal.registration import LOGIN_S, POLL_S, wait_for_sites
from med_duallora.settings.config import SiteConfig
from med_duallora.site.fitness import check
from med_duallora.site_kit.install import SITE_CONFIG_PLACE, install_server, install_site
from med_duallora.site_kit.layout import check_server_layout
from med_duallora.support.files import sha256_of_file

START_TIMEOUT_S = 180.0
POLITE_S = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What ``up`` is asked for.

    Args:
        directory: of the federation; see ``record``.
        project: project.yml.
        cohorts: site -> its prepared cohort.
        backbone_checkpoint: of every site; None: the one shipped for the job's backbone.
        site_settings: ``key=value`` changes of every site's configuration, see ``SiteConfig``.
        port: of the server; 0: a free one.
        timeout_s: until all sites are registered.
        own_sites: a site that the project lacks is added to it; else it is refused.
    """

    directory: Path
    project: Path
    cohorts: Mapping[str, Path]
    backbone_checkpoint: Path | None = None
    site_settings: tuple[str, ...] = ()
    port: int = 0
    timeout_s: float = START_TIMEOUT_S
    own_sites: bool = False

    def places(self, site: str, directory: Path) -> dict[str, str | None]:
        """Return where a site's things are on this machine, for its configuration."""
        own = directory / "sites" / site
        return {
            "data_dir": str(self.cohorts[site].resolve()),
            "state_dir": str(own / "state"),
            "cache_dir": str(own / "cache"),
            "ledger": str(own / "egress_ledger.jsonl"),
            "backbone_checkpoint": str(self.backbone_checkpoint.resolve()) if self.backbone_checkpoint else None,
        }


def announce(message: str) -> None:
    """Print a message at once, also into a pipe."""
    print(message, flush=True)


def up(plan: Plan, say: Say = announce) -> Federation:
    """Provision (once per directory), install the kits, start the processes and wait until all sites are registered.

    Raises:
        MedDualLoRAError: it did not come up; whatever was started has been stopped.
    """
    for cohort in plan.cohorts.values():
        PreparedCohort.read(cohort)
    federation = _provisioned(plan, say)
    refuse_running(federation)
    check_server_layout(federation.kit(federation.server))
    processes.check_port(federation.port)
    checkpoint = plan.backbone_checkpoint
    federation = replace(
        federation,
        backbone_sha256=sha256_of_file(checkpoint) if checkpoint else "",
        origin=origin_of(plan.cohorts.values()).to_dict(),
    )
    federation.write()
    for site in federation.sites:
        kit = federation.kit(site)
        install_site(kit, plan.places(site, federation.directory), plan.site_settings)
        check(SiteConfig.from_file(kit / SITE_CONFIG_PLACE), source=kit / SITE_CONFIG_PLACE)
    return _started(federation, plan.timeout_s, say)


def refuse_running(federation: Federation) -> None:
    """Find out whether a federation can be started.

    Raises:
        FederationError: it runs already.
    """
    running = processes.members(federation.identity)
    if running:
        raise FederationError(
            f"the federation in {federation.directory} runs already (process {running[0].pid}); "
            f"`med-duallora federation down --workspace {federation.directory}` stops it"
        )


def start_one(federation: Federation, name: str) -> Federation:
    """Start the process of one kit and record it; for the server or a site that was stopped."""
    kit = federation.kit(name)
    federation = federation.with_process(processes.start(kit, federation.log(name), federation.identity))
    federation.write()
    return federation


def down(federation: Federation, polite: bool = True, say: Say = announce) -> list[int]:
    """Stop everything of a federation; what already ended is not an error.

    Args:
        federation: which.
        polite: first ask through the admin console, so that sites log out from the server.
        say: takes progress messages.

    Returns:
        The process ids that had to be ended by a signal.

    Raises:
        FederationError: a process did not end although it was killed.
    """
    say = _quiet_if_nobody_listens(say)
    with not_interrupted():
        try:
            if polite and processes.members(federation.identity):
                _ask_to_end(federation, say)
        except Exception as error:  # whatever it is, the processes must not stay
            say(f"the server could not be shut down through the console: {error}")
        return processes.stop(federation.identity)


def _quiet_if_nobody_listens(say: Say) -> Say:
    """Return a way to tell that never fails: a closed terminal must not keep processes from being stopped."""

    def told(message: str) -> None:
        with contextlib.suppress(OSError):
            say(message)

    return told


def _ask_to_end(federation: Federation, say: Say) -> None:
    """Abort what runs, which FLARE asks for, and shut down through the console."""
    with console(federation, "project_admin", LOGIN_S) as admin:
        try:
            _abort_jobs(admin, say)
        except Exception as error:  # whatever it is, the sites can still log out
            say(f"jobs may still run while the federation shuts down: {error}")
        admin.shut_down()
    processes.wait_until("shutting down", lambda: not processes.members(federation.identity), POLITE_S)


def _abort_jobs(admin: Console, say: Say) -> None:
    """Abort every running job that can be aborted, and wait until they have ended."""
    jobs = set()
    for job_id in admin.running_jobs():
        reason = admin.abort_if_possible(job_id)
        say(f"job {job_id} is not aborted: {reason}" if reason else f"aborting job {job_id}")
        jobs |= set() if reason else {job_id}
    processes.wait_until("aborting", lambda: not jobs & set(admin.running_jobs()), POLITE_S, POLL_S)


def _provisioned(plan: Plan, say: Say) -> Federation:
    """Return the directory's federation, provisioned now where there is none."""
    if (plan.directory / RECORD).is_file():
        federation = Federation.read(plan.directory)
        if set(federation.sites) != set(plan.cohorts):
            raise ConfigError(
                f"{plan.directory} holds a federation of {', '.join(federation.sites)}; its kits cannot be used for "
                f"{', '.join(plan.cohorts)}: choose a new directory"
            )
        if plan.port not in (0, federation.port):
            raise ConfigError(f"the kits in {plan.directory} hold port {federation.port}; choose a new directory")
        return federation
    directory = private_directory(plan.directory)
    try:
        return _made(plan, directory, say)
    except BaseException:  # keys without a record would be of no use, and in the way
        for rest in (directory / PROVISIONED, directory / "server"):
            shutil.rmtree(rest, ignore_errors=True)
        raise


def _made(plan: Plan, directory: Path, say: Say) -> Federation:
    """Provision, and record what was made."""
    project = read_project(plan.project)
    if plan.own_sites and not set(plan.cohorts) <= set(project.sites):
        project = with_own_sites(project, list(plan.cohorts))
    port = plan.port or processes.free_port()
    processes.check_port(port)
    project = rehearsed(project, list(plan.cohorts), port)
    kits = provision(project, directory / PROVISIONED)
    say(f"provisioned {project.name}: server {project.server}, sites {', '.join(project.sites)}")
    install_server(kits / project.server, directory / "server")
    federation = Federation(
        directory=directory,
        identity=processes.new_identity(),
        project=project.name,
        port=port,
        kits=kits,
        server=project.server,
        sites=project.sites,
        people=project.people,
    )
    federation.write()
    return federation


def _started(federation: Federation, timeout_s: float, say: Say) -> Federation:
    try:
        for name in federation.participants():
            federation = start_one(federation, name)
            say(f"started {name} (process {federation.processes[-1].pid})")
        wait_for_sites(federation, timeout_s)
    except BaseException:
        down(federation, polite=False)
        raise
    return federation
