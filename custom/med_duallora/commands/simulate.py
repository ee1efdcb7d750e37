"""``med-duallora simulate``: a whole federation on this machine, in the FLARE simulator."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from med_duallora.commands.options import (
    add_resume_argument,
    add_settings_argument,
    add_site_settings_argument,
    assignments_of,
)
from med_duallora.errors import ConfigError, MedDualLoRAError

if TYPE_CHECKING:
    from med_duallora.flare.jobs.export import JobSpec
    from med_duallora.flare.local.detour import Detour
    from med_duallora.flare.local.simulation import Simulation

POLL_S = 0.25
"""How often the files of a running simulation are looked at."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "simulate",
        help="run a federation in the FLARE simulator",
        description="Export a self-contained job, run it with `nvflare simulator` (the command is printed) and check "
        "its results. The same configuration again does nothing once it has finished. A workspace with finished rounds "
        "of another configuration is refused (exit code 2) unless --fresh is given; nothing of a run is ever deleted.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder that holds one prepared cohort per site"
    )
    parser.add_argument(
        "--workspace",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of this run: a new one, or that of an older run",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="move what an earlier run left in the workspace to WORKSPACE.previous-N, but for the feature cache, and "
        "start anew",
    )
    parser.add_argument(
        "--job", default="simulator", metavar="JOB", help="a known job or a job folder (default: simulator)"
    )
    add_settings_argument(parser)
    add_resume_argument(parser)
    parser.add_argument(
        "--states",
        type=Path,
        metavar="DIR",
        help="with --resume-from: holds the sites' local states, one folder per site (default: those of the "
        "workspace that the adapter is in); they are copied",
    )
    _add_site_arguments(parser)
    parser.add_argument(
        "--log-config",
        default="concise",
        metavar="MODE",
        help="FLARE's logging: concise, full, verbose, or a level like DEBUG",
    )
    parser.set_defaults(run=run)


def _add_site_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sites", metavar="A,B,...", help="sites that take part (default: every cohort below --data)")
    parser.add_argument(
        "--parallel-sites", type=int, metavar="N", help="how many sites work at the same time (default: all)"
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="device of every site: auto, cpu, cuda or cuda:N (default: auto)",
    )
    parser.add_argument(
        "--backbone-checkpoint",
        type=Path,
        metavar="FILE",
        help="backbone weights (default: those shipped with the package)",
    )
    add_site_settings_argument(parser)


def run(options: argparse.Namespace) -> int:
    """Run the simulation, or say that it has been run."""
    _check_given_checkpoint(options.backbone_checkpoint)
    from med_duallora.flare.local.detour import detour
    from med_duallora.flare.local.earlier_states import sites_without_state
    from med_duallora.flare.local.simulation import finished_run, start_clean
    from med_duallora.flare.local.simulation_checks import check_inputs
    from med_duallora.flare.local.workspace import held

    simulation = _simulation(options)
    check_inputs(simulation)
    with held(simulation.workspace):
        done = None if options.fresh else finished_run(simulation)
        if done:
            print(f"run {done['run_id']} in {simulation.workspace} finished with this configuration: nothing to do")
            return 0
        _make_room(simulation, options.fresh)
    with held(simulation.workspace), detour(simulation.workspace) as by:
        record = start_clean(simulation)
        print(f"run {record['run_id']}: {', '.join(simulation.sites)}; {_rounds_text(simulation)}")
        for site in sites_without_state(simulation):
            text = f"no local state of {site} in {simulation.states}: its local adapter starts from scratch"
            print(text, file=sys.stderr)
        print(simulation.command_text(by), flush=True)
        return _run(simulation, record, by)


def _check_given_checkpoint(checkpoint: Path | None) -> None:
    """Refuse a file that no backbone can be loaded from, before importing FLARE takes seconds."""
    from med_duallora.backbone import check_checkpoint

    if checkpoint is not None:
        check_checkpoint(checkpoint)


def _make_room(simulation: "Simulation", fresh: bool) -> None:
    """Move aside what an earlier run left that is worth keeping; refuse to without ``--fresh`` if it is another's."""
    from med_duallora.flare.local.simulation import check_nothing_is_lost
    from med_duallora.flare.local.workspace import RUN_FILE, set_aside

    workspace = simulation.workspace
    if fresh and (workspace / RUN_FILE).exists():
        print(f"the earlier run is kept in {set_aside(workspace)}")
    elif check_nothing_is_lost(simulation):
        print(
            f"the earlier run with this configuration was broken off; it is kept in {set_aside(workspace)}, and this "
            "one starts anew (--resume-from goes on from a saved adapter, in another workspace)"
        )


def _simulation(options: argparse.Namespace) -> "Simulation":
    from med_duallora.cohorts.sites import find_sites
    from med_duallora.flare.local.simulation import Simulation
    from med_duallora.flare.local.simulation_checks import known_log_config

    sites = find_sites(options.data, options.sites.split(",") if options.sites else None)
    n_parallel = len(sites) if options.parallel_sites is None else options.parallel_sites
    if not 1 <= n_parallel <= len(sites):
        raise ConfigError(
            f"--parallel-sites {n_parallel}, but it must be between 1 and the number of sites, {len(sites)}"
        )
    checkpoint = options.backbone_checkpoint
    workspace = options.workspace.resolve()
    return Simulation(
        workspace=workspace,
        spec=_spec(options.job, len(sites), [*_pin(checkpoint), *assignments_of(options)], options.resume_from),
        sites=sites,
        n_parallel=n_parallel,
        device=options.device,
        backbone_checkpoint=checkpoint.resolve() if checkpoint else None,
        log_config=known_log_config(options.log_config),
        states=_states(options, workspace),
        site_settings=tuple(options.site_set),
    )


def _pin(checkpoint: Path | None) -> list[str]:
    """Return the setting by which the job is about the given checkpoint; none: it is about the shipped one."""
    from med_duallora.support.files import sha256_of_file

    return [f"backbone_sha256={sha256_of_file(checkpoint)}"] if checkpoint else []


def _states(options: argparse.Namespace, workspace: Path) -> Path | None:
    """Return where the local states of the training to go on with are; None where a new one begins."""
    from med_duallora.flare.local.earlier_states import states_of

    if options.resume_from is None:
        if options.states:
            raise ConfigError("--states is for --resume-from only: a new training begins without local states")
        return None
    states = Path(options.states).resolve() if options.states else states_of(options.resume_from)
    for place in (options.resume_from.resolve(), states):
        if workspace in place.parents:
            raise ConfigError(f"{place} lies in --workspace {workspace}; what goes on needs a workspace of its own")
    if not states.is_dir():
        raise ConfigError(f"there is no folder {states} with the sites' local states; name one with --states")
    return states


def _spec(name: str, n_sites: int, assignments: list[str], resume_from: Path | None) -> "JobSpec":
    """Return the job: every site takes part in every round, unless ``workflow.min_sites`` is set."""
    from dataclasses import replace

    from med_duallora.flare.jobs.export import JOBS, read_spec

    if name in JOBS:
        spec = JOBS[name]
    elif Path(name).is_dir():
        spec = read_spec(Path(name), with_code=True)
    else:
        raise ConfigError(f"--job {name}: no such job folder, and no known job; there are {', '.join(JOBS)}")
    spec = replace(spec, workflow=replace(spec.workflow, min_sites=n_sites), with_code=True)
    return spec.resumed(resume_from, assignments)


def _run(simulation: "Simulation", record: dict[str, Any], by: "Detour") -> int:
    from med_duallora.cohorts.origin import origin_of
    from med_duallora.flare.local.processes import supervised
    from med_duallora.flare.local.rounds_shown import rounds_shown
    from med_duallora.flare.local.simulation import problems
    from med_duallora.flare.local.workspace import LOG_FILE, RUN_FILE
    from med_duallora.server.rundir import EVALUATION_FILE, note_origin
    from med_duallora.support.files import write_json

    started = time.monotonic()
    log = simulation.workspace / LOG_FILE
    with (
        supervised(simulation.command(by), simulation.environment(by), log) as program,
        rounds_shown(simulation.spec.job.train.n_rounds, simulation.spec.workflow.rounds(simulation.spec.job)) as show,
    ):
        while (code := program.poll()) is None:
            show(simulation.finished_rounds())
            time.sleep(POLL_S)
        show(simulation.finished_rounds())
    missing = problems(simulation)
    if not missing:
        note_origin(simulation.server_directory / EVALUATION_FILE, origin_of(simulation.sites.values()).to_dict())
    seconds = time.monotonic() - started
    status = "failed" if missing else "finished"
    write_json(simulation.workspace / RUN_FILE, {**record, "status": status, "seconds": seconds})
    if missing:
        _explain(simulation, missing, code, log)
        return 1
    print(f"run {record['run_id']} finished in {seconds:.0f} s; results: {simulation.server_directory}")
    return 0


def _rounds_text(simulation: "Simulation") -> str:
    rounds, total = simulation.spec.workflow.rounds(simulation.spec.job), simulation.spec.job.train.n_rounds
    if len(rounds) == total:
        return f"{total} round{'s' if total > 1 else ''}"
    return f"rounds {rounds.start + 1} to {rounds.stop} of {total}"


def _explain(simulation: "Simulation", missing: list[str], code: int, log: Path) -> None:
    from med_duallora.flare.local.simulation import logged_errors

    for line in [*logged_errors(simulation), *_diagnosed(simulation)]:
        print(f"  {line}", file=sys.stderr)
    print(
        f"simulate: failed: {'; '.join(missing)} (exit code of the simulator: {code}; its log: {log})", file=sys.stderr
    )


def _diagnosed(simulation: "Simulation") -> list[str]:
    """Return what stops a site from starting: here, at the user's own terminal, the message may be whole."""
    from med_duallora.site.runtime import SiteRuntime

    found = []
    for site in simulation.sites:
        try:
            SiteRuntime(site, simulation.spec.job, simulation.site_config(site))
        except (MedDualLoRAError, OSError) as error:
            found.append(f"{site} cannot start: {error}")
    return found
