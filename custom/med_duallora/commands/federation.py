"""``med-duallora federation``: production rehearsed on this machine, with real processes and mutual TLS."""

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from med_duallora.commands.options import add_resume_argument, add_settings_argument, add_site_settings_argument
from med_duallora.errors import ConfigError

if TYPE_CHECKING:
    from med_duallora.flare.local.rehearsal.record import Federation
    from med_duallora.flare.local.rehearsal.rehearsal import Plan

PROJECT = Path("poc") / "project.yml"
MAX_TIMEOUT_S = 86_400


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "federation",
        help="rehearse production on this machine: provisioned kits, real processes, mutual TLS",
        description="A FLARE server and one client per site as separate processes on this machine, provisioned from "
        "project.yml with mutual TLS and hardened site kits. poc/guide says how the same is done between hospitals.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    up = _action(actions, "up", _up, "provision, start the server and the sites, wait until all are registered")
    _add_up_arguments(up)
    _action(actions, "status", _status, "show the processes, the registered sites and the jobs")
    submit = _action(actions, "submit", _with_jobs, "submit a job as the project's lead")
    _add_job_arguments(submit)
    submit.add_argument("--wait", action="store_true", help="follow the job, download its result and report on it")
    monitor = _action(actions, "monitor", _with_jobs, "follow a job while it runs; Ctrl-C only stops watching")
    download = _action(actions, "download", _with_jobs, "download a job's result and report on it")
    abort = _action(actions, "abort", _with_jobs, "abort a job")
    for parser_with_job in (monitor, download, abort):
        parser_with_job.add_argument("job_id", nargs="?", metavar="JOB_ID", help="a job's id (default: the latest job)")
    down = _action(actions, "down", _down, "stop every process of the federation; kits, states and results stay")
    down.add_argument(
        "--now", action="store_true", help="end the processes without a shutdown through the console first"
    )
    whole = _action(actions, "run", _run, "up, submit, follow, download, report and down in one go")
    _add_up_arguments(whole)
    _add_job_arguments(whole)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: object, summary: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument(
        "--workspace",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the federation; outside the checkout, because it holds private keys",
    )
    parser.set_defaults(run=run)
    return parser


def _add_up_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder that holds one prepared cohort per site"
    )
    parser.add_argument("--sites", metavar="A,B,...", help="sites that take part (default: every cohort below --data)")
    parser.add_argument(
        "--project",
        type=Path,
        metavar="FILE",
        help="project file (default: poc/project.yml of the checkout, with the sites that it lacks added)",
    )
    parser.add_argument(
        "--backbone-checkpoint",
        type=Path,
        metavar="FILE",
        help="backbone weights (default: those shipped with the package)",
    )
    add_site_settings_argument(parser)
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port of the server (default: a free one)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=180.0,
        metavar="SECONDS",
        help="how long to wait until all sites are registered (default: 180)",
    )


def _add_job_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--job", default="production", metavar="JOB", help="a known job or a job folder (default: production)"
    )
    add_settings_argument(parser)
    add_resume_argument(parser)


def _up(options: argparse.Namespace) -> int:
    from med_duallora.flare.local.interruptions import signals_interrupt
    from med_duallora.flare.local.rehearsal.rehearsal import up

    started = time.monotonic()
    with signals_interrupt():
        federation = up(_plan(options))
    print(f"federation up after {time.monotonic() - started:.0f} s: {', '.join(federation.sites)} registered")
    print(_where(federation))
    return 0


def _status(options: argparse.Namespace) -> int:
    from med_duallora.flare.local import processes
    from med_duallora.flare.local.rehearsal.admin import console
    from med_duallora.flare.local.rehearsal.record import Federation
    from med_duallora.flare.local.rehearsal.registration import registered_sites

    federation = Federation.read(options.workspace)
    running = [process for process in federation.processes if processes.is_running(process, federation.identity)]
    for process in federation.processes:
        state = "runs" if process in running else "does not run"
        print(f"{process.name:<28} process {process.pid:<8} {state}")
    if not any(process.name == federation.server for process in running):
        state = "the server does not run" if federation.processes else "no process of it was started yet"
        print(
            f"{state}; `med-duallora federation up` with --workspace {options.workspace} and --data starts it",
            file=sys.stderr,
        )
        return 1
    with console(federation) as lead:
        known = registered_sites(federation, lead)
        for site in federation.sites:
            print(f"{site:<28} {'registered' if site in known else 'not registered'}")
        for job in lead.jobs():
            print(f"job {job['job_id']}  {job['name']}  {job['status']}  {job.get('duration', '')}")
    return 0 if known >= set(federation.sites) and len(running) == len(federation.processes) else 1


def _with_jobs(options: argparse.Namespace) -> int:
    """Submit, monitor, download or abort; its module is loaded only here, because FLARE's console takes seconds."""
    from med_duallora.flare.local.rehearsal.running import running

    federation = running(options.workspace)  # before what takes seconds
    from med_duallora.commands import federation_jobs

    return {
        "submit": federation_jobs.submit,
        "monitor": federation_jobs.monitor,
        "download": federation_jobs.download,
        "abort": federation_jobs.abort,
    }[options.action](federation, options)


def _down(options: argparse.Namespace) -> int:
    from med_duallora.flare.local.rehearsal.record import Federation
    from med_duallora.flare.local.rehearsal.rehearsal import down

    federation = Federation.read(options.workspace)
    killed = down(federation, polite=not options.now)
    print(f"federation down; nothing of it runs ({len(killed)} processes ended by a signal)")
    return 0


def _run(options: argparse.Namespace) -> int:
    from med_duallora.commands.federation_jobs import fetched, followed, kept_of_failed, submitted
    from med_duallora.flare.local.interruptions import not_interrupted, signals_interrupt
    from med_duallora.flare.local.rehearsal.admin import console
    from med_duallora.flare.local.rehearsal.record import RECORD, Federation
    from med_duallora.flare.local.rehearsal.rehearsal import down, refuse_running, up

    def recorded() -> Federation | None:
        return Federation.read(options.workspace) if (options.workspace / RECORD).is_file() else None

    plan = _plan(options)
    before = recorded()
    if before is not None:
        refuse_running(before)  # or the end of this run would stop somebody else's
    with signals_interrupt():
        try:
            federation = up(plan)
            with console(federation) as lead:
                job_id = submitted(federation, lead, options)
                if followed(federation, lead, job_id):
                    kept_of_failed(federation, lead, job_id)
                    return 1
                return fetched(federation, lead, job_id)
        finally:
            with not_interrupted():
                after = recorded()
                if after is not None:
                    ended = down(after)
                    if ended or after.processes != (before.processes if before else ()):  # else nothing was started
                        print("federation down; nothing of it runs")


def _plan(options: argparse.Namespace) -> "Plan":
    from med_duallora.backbone import check_checkpoint
    from med_duallora.cohorts.sites import find_sites
    from med_duallora.flare.local.rehearsal.rehearsal import Plan

    project = options.project or _default_project()
    if not project.is_file():
        raise ConfigError(f"there is no project file {project}")
    if options.backbone_checkpoint is not None:
        check_checkpoint(options.backbone_checkpoint)
    if not 0 <= options.port < 2**16:
        raise ConfigError(f"--port {options.port}, but it must be between 0 and 65535")
    if not 0 < options.timeout <= MAX_TIMEOUT_S:  # NaN, too, is neither above nor below
        raise ConfigError(f"--timeout {options.timeout}, but it must be above 0 and at most {MAX_TIMEOUT_S} seconds")
    return Plan(
        directory=options.workspace,
        project=project,
        cohorts=find_sites(options.data, options.sites.split(",") if options.sites else None),
        backbone_checkpoint=options.backbone_checkpoint,
        site_settings=tuple(options.site_set),
        port=options.port,
        timeout_s=options.timeout,
        own_sites=options.project is None,
    )


def _default_project() -> Path:
    """Return poc/project.yml of the checkout that this package runs from; where it is installed, of the current folder.

    Raises:
        ConfigError: there is none.
    """
    import med_duallora

    places = (Path(med_duallora.__file__).resolve().parents[2], Path.cwd())
    for place in places:
        if (place / "custom" / "med_duallora").is_dir() and (place / PROJECT).is_file():
            return place / PROJECT
    raise ConfigError(
        f"there is no {PROJECT}: this package is installed without its checkout, and {places[-1]} is not a checkout; "
        "run the command in a checkout, or name a project file with --project"
    )


def _where(federation: "Federation") -> str:
    lead = federation.person("lead")
    kit = shlex.quote(str(federation.kit(lead)))
    directory = shlex.quote(str(federation.directory))
    program = Path(sys.executable).parent
    return "\n".join(
        [
            f"  kits      {federation.kits}",
            f"  logs      {federation.directory / 'logs'} (what the processes print), log.txt in each kit (FLARE's)",
            f"  submit    med-duallora federation submit --workspace {directory} --wait",
            f"  console   PATH={program}:$PATH bash {kit}/startup/fl_admin.sh    (user name: {lead})",
            f"  FLARE's   nvflare job list --startup-kit {kit}",
            f"  stop      med-duallora federation down --workspace {directory}",
        ]
    )
