"""A federation in the FLARE simulator: one run per workspace, from site configurations to checked results.

Workspace:
    run.json        which run this is, and whether it finished
    site_config/    one SiteConfig per site
    job/            the exported, self-contained job
    flare/          the simulator's own workspace; it empties it at every start
    state/          local adapters and optimizer states of this run
    cache/          trunk features, content-addressed, kept between runs
    simulator.log   everything the simulator printed
"""

import dataclasses
import fcntl
import json
import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import med_duallora
from med_duallora.cohorts.origin import origin_of
from med_duallora.config import SITE_CONFIG_VARIABLE, SiteConfig, assigned
from med_duallora.errors import ConfigError, InputError
from med_duallora.files import sha256_of_file, sha256_of_json, write_json
from med_duallora.flare.export import JobSpec, export_job
from med_duallora.flare.rundir import EVALUATION_FILE, ROUNDS_FILE

RUN_FILE = "run.json"
OF_ONE_RUN = ("site_config", "job", "flare", "state", "report")
LOG_FILE = "simulator.log"
LOCK_FILE = ".lock"
LEARNER = "DualLoRALearner"


@dataclass(frozen=True)
class Simulation:
    """What is to be run, and where.

    Args:
        workspace: folder of the run; see the module's text.
        spec: the job; its code travels with it, so that a run uses the code of its start to its end.
        sites: the prepared cohort of every site.
        n_parallel: how many sites work at the same time (FLARE's threads); the others wait, swapped out.
        device: of every site, see ``SiteConfig``.
        backbone_checkpoint: of every site; None: the one shipped for the job's backbone.
        log_config: FLARE's log configuration: concise, msg_only, full, verbose, a level or a file.
        states: folder with a folder of local states per site, to go on from where the job goes on from an adapter.
        site_settings: ``key=value`` changes of every site's configuration, see ``SiteConfig``.
    """

    workspace: Path
    spec: JobSpec
    sites: Mapping[str, Path]
    n_parallel: int
    device: str = "auto"
    backbone_checkpoint: Path | None = None
    log_config: str = "concise"
    states: Path | None = None
    site_settings: tuple[str, ...] = ()

    @property
    def job_folder(self) -> Path:
        """Return where the job is exported to."""
        return self.workspace / "job" / self.spec.name

    @property
    def server_directory(self) -> Path:
        """Return where the simulated server writes its results."""
        return self.workspace / "flare" / "server" / "simulate_job" / "app_server"

    def site_config(self, site: str) -> SiteConfig:
        """Return a site's configuration; CPU threads do not depend on ``n_parallel``, so neither do results.

        They do depend on the number of threads, which follows the machine: to compare runs, set ``n_threads``.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        config = SiteConfig(
            data_dir=self.sites[site],
            state_dir=self.workspace / "state" / site,
            cache_dir=self.workspace / "cache" / site,
            backbone_checkpoint=self.backbone_checkpoint,
            device=self.device,
            n_threads=max(1, (os.cpu_count() or 1) // len(self.sites)),
        )
        return SiteConfig.from_dict(assigned(_plain(config), self.site_settings))

    def command(self) -> list[str]:
        """Return the simulator's command line."""
        beside = Path(sys.executable).with_name("nvflare")
        program = str(beside) if beside.is_file() else "nvflare"
        places = [str(self.job_folder), "-w", str(self.workspace / "flare")]
        sites = ["-c", ",".join(self.sites), "-t", str(self.n_parallel), "-l", self.log_config]
        return [program, "simulator", *places, *sites]

    def environment(self) -> dict[str, str]:
        """Return what the command needs besides the caller's environment."""
        pattern = self.workspace / "site_config" / "{site}.json"
        return {SITE_CONFIG_VARIABLE: str(pattern), "PYTHONPATH": str(self.job_folder / "app" / "custom")}

    def command_text(self) -> str:
        """Return the line that runs the same simulation from a shell."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        return " ".join([*settings, shlex.join(self.command())])

    def fingerprint(self) -> str:
        """Return a hash of everything that the results depend on."""
        checkpoint = self.backbone_checkpoint
        return sha256_of_json(
            {
                "job": self.spec.job.to_dict(),
                "workflow": dataclasses.asdict(self.spec.workflow),
                "sites": {site: sha256_of_file(folder / "cohort.csv") for site, folder in self.sites.items()},
                "checkpoint": sha256_of_file(checkpoint) if checkpoint else "",
                "device": self.device,
                "site_settings": list(self.site_settings),
                "adapter": sha256_of_file(self.spec.adapter) if self.spec.adapter else "",
                "code": _code_hash(),
            }
        )


def find_sites(data: Path, chosen: list[str] | None = None) -> dict[str, Path]:
    """Return the prepared cohorts below ``data`` by site, in alphabetical order or in the order of ``chosen``.

    Raises:
        ConfigError: there are none, or a chosen site has none.
    """
    found = {path.parent.name: path.parent.resolve() for path in sorted(data.glob("*/cohort.csv"))}
    if not found:
        raise ConfigError(f"no prepared cohort below {data}; `med-duallora prepare --out {data}` writes them")
    missing = [site for site in chosen or [] if site not in found]
    if missing:
        raise ConfigError(f"there is no prepared cohort {data / missing[0]}; there are {', '.join(found)}")
    return {site: found[site] for site in chosen or found}


@contextmanager
def locked(workspace: Path) -> Iterator[None]:
    """Keep the workspace for this process inside the block.

    Raises:
        InputError: another simulation is at work there.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    with (workspace / LOCK_FILE).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another simulation is at work in {workspace}; choose another workspace") from None
        yield


def finished_run(simulation: Simulation) -> dict[str, Any] | None:
    """Return the record of the run in the workspace if it finished with exactly this configuration, else None.

    Raises:
        InputError: the workspace holds something else than a run.
    """
    workspace = simulation.workspace
    record = read_record(workspace)
    if record is None:
        if workspace.exists() and any(path.name != LOCK_FILE for path in workspace.iterdir()):
            raise InputError(f"{workspace} is not empty and holds no run ({RUN_FILE}); choose another workspace")
        return None
    same = record.get("status") == "finished" and record.get("fingerprint") == simulation.fingerprint()
    return record if same and not problems(simulation) else None


def read_record(workspace: Path) -> dict[str, Any] | None:
    """Return the workspace's run record, or None where there is none."""
    path = workspace / RUN_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; remove the workspace or choose another one") from error
    return record if isinstance(record, dict) else {}


def start_clean(simulation: Simulation) -> dict[str, Any]:
    """Remove what an older run left (the feature cache stays), write site configurations and the job.

    Returns:
        The record of the new run; it is on disk before anything is removed, so an interrupted start is seen.
    """
    workspace = simulation.workspace
    record = {
        "run_id": time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6],
        "status": "started",
        "fingerprint": simulation.fingerprint(),
        "sites": list(simulation.sites),
        "job": simulation.spec.job.to_dict(),
        "command": simulation.command_text(),
    }
    write_json(workspace / RUN_FILE, record)
    for name in OF_ONE_RUN:
        shutil.rmtree(workspace / name, ignore_errors=True)
        if (workspace / name).exists():
            raise ConfigError(f"{workspace / name} of an older run cannot be removed")
    _take_states(simulation)
    for site in simulation.sites:
        write_json(workspace / "site_config" / f"{site}.json", _plain(simulation.site_config(site)), mode=0o600)
    export_job(simulation.spec, simulation.job_folder)
    return record


def _plain(config: SiteConfig) -> dict[str, Any]:
    """Return a site's configuration as its file holds it."""
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def states_of(adapter: Path) -> Path:
    """Return the local states that belong to an adapter: those of the workspace it lies in.

    Raises:
        ConfigError: it lies in no workspace.
    """
    for folder in adapter.resolve().parents:
        if (folder / RUN_FILE).is_file():
            return folder / "state"
    raise ConfigError(
        f"{adapter} lies in no workspace of simulate, so the sites' local states are not known; name the folder that "
        "holds them (one folder per site) with --states"
    )


def sites_without_state(simulation: Simulation) -> list[str]:
    """Return the sites whose local adapter starts anew although the job goes on from a saved global one."""
    return [site for site, earlier in _earlier_states(simulation).items() if not earlier.is_dir()]


def _earlier_states(simulation: Simulation) -> dict[str, Path]:
    """Return where the experiment's local states of every site are to be taken from."""
    states, experiment = simulation.states, simulation.spec.job.experiment
    return {site: states / site / experiment for site in simulation.sites} if states else {}


def _take_states(simulation: Simulation) -> None:
    """Copy the experiment's local states from the earlier workspace, which stays as it is."""
    for site, earlier in _earlier_states(simulation).items():
        if earlier.is_dir():
            shutil.copytree(earlier, simulation.site_config(site).state_dir / earlier.name)


def problems(simulation: Simulation) -> list[str]:
    """Return why the results are not complete; the simulator's exit code does not tell."""
    directory = simulation.server_directory
    rounds = read_rounds(directory)
    planned = simulation.spec.workflow.rounds(simulation.spec.job)
    found = [f"{len(rounds)} of {len(planned)} rounds were finished"] if len(rounds) < len(planned) else []
    try:
        evaluation = json.loads((directory / EVALUATION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [*found, "the trained adapter was not evaluated"]
    missing = sorted(set(simulation.sites) - set(evaluation["sites"]))
    return [*found, f"no evaluation from {', '.join(missing)}"] if missing else found


def mark_origin(simulation: Simulation) -> None:
    """Note beside the scores where the cohorts come from: only here are both at hand; reports say it."""
    path = simulation.server_directory / EVALUATION_FILE
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, {**evaluation, "origin": origin_of(simulation.sites.values()).to_dict()})


def read_rounds(directory: Path) -> list[dict[str, Any]]:
    """Return the finished rounds so far; a line that is still being written is left for later."""
    try:
        text = (directory / ROUNDS_FILE).read_text(encoding="utf-8")
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def logged_errors(simulation: Simulation) -> list[str]:
    """Return the errors that say why: what failed at a site, else the first error of every process."""
    ours, others = [], []
    for name in ("server", *simulation.sites):
        log = simulation.workspace / "flare" / name / "error_log.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        errors = [line.split(" - ERROR - ", 1) for line in lines if " - ERROR - " in line]
        ours += [f"{name}: {text.rpartition('] - ')[2]}" for where, text in errors if where.endswith(LEARNER)][:1]
        others += [f"{name}: {text.rpartition('] - ')[2]}" for _, text in errors][:1]
    return ours or others


def _code_hash() -> str:
    package = Path(med_duallora.__file__).parent
    files = (path for path in package.rglob("*") if path.suffix in (".py", ".json", ".safetensors"))
    return sha256_of_json({str(path.relative_to(package)): sha256_of_file(path) for path in sorted(files)})
