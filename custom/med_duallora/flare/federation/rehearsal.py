"""A whole federation on this machine: up, one job, down; nothing it started outlives it unnoticed."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from med_duallora.cohorts.phantom.provenance import is_synthetic
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.config import SiteConfig
from med_duallora.errors import ConfigError, FederationError
from med_duallora.files import sha256_of_file, write_json
from med_duallora.flare.federation import processes
from med_duallora.flare.federation.admin import Console, console
from med_duallora.flare.federation.kits import SITE_CONFIG_FILE, install_server, install_site
from med_duallora.flare.federation.progress import JobProgress, read_progress
from med_duallora.flare.federation.provision import provision, read_project, rehearsed
from med_duallora.flare.federation.record import RECORD, Federation, private_directory
from med_duallora.flare.rundir import EVALUATION_FILE
from med_duallora.places import check_places

START_TIMEOUT_S = 180.0
LOGIN_S = 5.0
POLL_S = 0.5
FOLLOW_S = 1.0
QUIET_START_S = 6.0
"""FLARE logs an error in every process for each question about a job whose processes are still starting."""
POLITE_S = 30.0
LOG_TAIL = 5
START_PRECISION_S = 1.0
"""Of the moment when a process started: the kernel tells when the machine was booted in whole seconds."""

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
    """

    directory: Path
    project: Path
    cohorts: Mapping[str, Path]
    backbone_checkpoint: Path | None = None
    site_settings: tuple[str, ...] = ()
    port: int = 0
    timeout_s: float = START_TIMEOUT_S

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
    processes.check_port(federation.port)
    checkpoint = plan.backbone_checkpoint
    federation = replace(
        federation,
        backbone_sha256=sha256_of_file(checkpoint) if checkpoint else "",
        synthetic=all(is_synthetic(cohort) for cohort in plan.cohorts.values()),
    )
    federation.write()
    for site in federation.sites:
        kit = federation.kit(site)
        install_site(kit, plan.places(site, federation.directory), plan.site_settings)
        check_places(SiteConfig.from_file(kit / SITE_CONFIG_FILE), kit / SITE_CONFIG_FILE)
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
            f"`med-duallora federation down --dir {federation.directory}` stops it"
        )


def start_one(federation: Federation, name: str) -> Federation:
    """Start the process of one kit and record it; for the server or a site that was stopped."""
    kit = federation.kit(name)
    federation = federation.with_process(processes.start(kit, federation.log(name), federation.identity))
    federation.write()
    return federation


def wait_for_sites(federation: Federation, timeout_s: float) -> None:
    """Wait until the server answers and all sites are registered with it.

    Raises:
        FederationError: a process ended, or it took too long; names the log and its last lines.
    """
    deadline = time.monotonic() + timeout_s
    with _answering(federation, deadline) as server:
        while missing := set(federation.sites) - registered_sites(federation, server):
            _check_alive(federation)
            if time.monotonic() > deadline:
                name = min(missing)
                raise FederationError(
                    f"{', '.join(sorted(missing))} not registered within {timeout_s:.0f} s; {_tail(federation, name)}"
                )
            time.sleep(POLL_S)


def registered_sites(federation: Federation, person: Console) -> set[str]:
    """Return the sites whose present process is registered with the server.

    The server lists a site that was killed until its heartbeat has been missing for ten minutes, so being listed is
    not enough: the server must have heard from the site since this process started. Both have the same clock here.
    """
    started = {
        process.name: process.started
        for process in federation.processes
        if processes.is_running(process, federation.identity)
    }
    heard = person.last_contacts()
    return {site for site in started.keys() & heard.keys() if heard[site] > started[site] + START_PRECISION_S}


def follow(
    person: Console, job_id: str, show: Callable[[JobProgress], None], timeout_s: float | None = None
) -> JobProgress:
    """Watch a job until it is finished.

    Raises:
        FederationError: it took longer than ``timeout_s``; the job goes on.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ask_from = None
    known: dict[str, Any] = {}
    while True:
        job = person.job(job_id)
        if job.get("status") == "RUNNING" and ask_from is None:
            ask_from = time.monotonic() + QUIET_START_S
        if ask_from is not None and time.monotonic() > ask_from:
            said = person.statistics(job_id)
            known = said if said.get("server") else known  # processes that start or end say nothing
        progress = read_progress(job, known)
        show(progress)
        if progress.finished:
            return progress
        if deadline is not None and time.monotonic() > deadline:
            raise FederationError(f"job {job_id} is still {progress.status} after {timeout_s:.0f} s: {progress.stage}")
        time.sleep(FOLLOW_S)


def fetch(federation: Federation, person: Console, job_id: str) -> Path:
    """Download the result of a finished job, and note in it whether its cohorts are synthetic: the server never knew.

    Returns:
        The folder of the result, ready for ``report``.

    Raises:
        FederationError: nothing came.
    """
    place = person.download(job_id, federation.directory / "results")
    for path in place.glob(f"workspace/app_*/{EVALUATION_FILE}"):
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {**evaluation, "synthetic": federation.synthetic})
    return place


def down(federation: Federation, polite: bool = True, say: Say = announce) -> list[int]:
    """Stop everything of a federation; what already ended is no error.

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
    with processes.not_interrupted():
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
    project = read_project(plan.project)
    port = plan.port or processes.free_port()
    processes.check_port(port)
    project = rehearsed(project, list(plan.cohorts), port)
    kits = provision(project, directory / "provision")
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


@contextlib.contextmanager
def _answering(federation: Federation, deadline: float) -> Iterator[Console]:
    """Log in as soon as the server answers."""
    with contextlib.ExitStack() as stack:
        while True:
            _check_alive(federation)
            try:
                person = stack.enter_context(console(federation, "lead", LOGIN_S))
                break
            except FederationError as error:
                if time.monotonic() > deadline:
                    raise FederationError(f"{error}; {_tail(federation, federation.server)}") from error
                time.sleep(POLL_S)
        yield person


def _check_alive(federation: Federation) -> None:
    for process in federation.processes:
        if not processes.is_running(process, federation.identity):
            raise FederationError(f"{process.name} (process {process.pid}) ended; {_tail(federation, process.name)}")


def _tail(federation: Federation, name: str) -> str:
    """Return where a log is, and its last lines."""
    log = federation.log(name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return f"its log {log} ends with:\n  " + "\n  ".join(lines[-LOG_TAIL:] or ["(nothing)"])
