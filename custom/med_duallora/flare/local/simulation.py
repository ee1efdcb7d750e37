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
import os
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import med_duallora
from med_duallora.errors import ConfigError, InputError
from med_duallora.flare.jobs.export import JobSpec, export_job
from med_duallora.flare.local.detour import Detour
from med_duallora.flare.local.earlier_states import take_states
from med_duallora.flare.local.workspace import RUN_FILE, SERVER, put_secrets, read_record, results_in, secrets_of
from med_duallora.server.rundir import EVALUATION_FILE, SITE_CONFIGS, STATES, read_rounds
from med_duallora.settings.config import SITE_CONFIG_VARIABLE, SiteConfig, assigned
from med_duallora.settings.policy import SitePolicy
from med_duallora.support.files import read_object, sha256_of_file, sha256_of_json, write_json

OF_ONE_RUN = (SITE_CONFIGS, "job", "flare", STATES, "report")
NESTED = {"job": "", "workflow": "workflow."} | {
    group: f"{group}." for group in ("screening", "lora", "train", "augment")
}
"""Groups of what a run is made from, and how the names in them are shown."""
SHOWN = {
    "sites": "sites or cohorts",
    "checkpoint": "backbone checkpoint",
    "site_settings": "--site-set",
    "adapter": "adapter to go on from",
    "code": "version of this program",
}
MAX_NAMED = 4
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
        return self.workspace / SERVER

    def finished_rounds(self) -> list[dict[str, Any]]:
        """Return the records of the rounds so far; none where their file is damaged."""
        try:
            return read_rounds(self.server_directory)
        except (OSError, ValueError):
            return []

    def site_config(self, site: str) -> SiteConfig:
        """Return a site's configuration; CPU threads do not depend on ``n_parallel``, so neither do results.

        They do depend on the number of threads, which follows the machine: to compare runs, set ``n_threads``.

        Raises:
            ConfigError: a setting is unknown or out of range.
        """
        config = SiteConfig(
            data_dir=self.sites[site],
            state_dir=self.workspace / STATES / site,
            cache_dir=self.workspace / "cache" / site,
            backbone_checkpoint=self.backbone_checkpoint,
            device=self.device,
            n_threads=max(1, (os.cpu_count() or 1) // len(self.sites)),
            policy=SitePolicy.for_one_machine(),
        )
        return SiteConfig.from_dict(assigned(_plain(config), self.site_settings))

    def command(self, by: Detour | None = None) -> list[str]:
        """Return the simulator's command line, which reaches the workspace ``by`` a detour where one is given."""
        by = by or Detour(self.workspace)
        program = [str(by.python), "-m", "nvflare.cli"]  # the script nvflare would lead back to the place of Python
        if by.python == Path(sys.executable):
            beside = by.python.with_name("nvflare")
            program = [str(beside) if beside.is_file() else "nvflare"]
        places = [str(by.workspace / self.job_folder.relative_to(self.workspace)), "-w", str(by.workspace / "flare")]
        sites = ["-c", ",".join(self.sites), "-t", str(self.n_parallel), "-l", self.log_config]
        return [*program, "simulator", *places, *sites]

    def environment(self, by: Detour | None = None) -> dict[str, str]:
        """Return what the command needs besides the caller's environment."""
        workspace = by.workspace if by else self.workspace
        pattern = workspace / SITE_CONFIGS / "{site}.json"
        code = workspace / self.job_folder.relative_to(self.workspace) / "app" / "custom"
        return {SITE_CONFIG_VARIABLE: str(pattern), "PYTHONPATH": str(code)}

    def command_text(self, by: Detour | None = None) -> str:
        """Return the line that runs the same simulation from a shell, with the links that it needs."""
        links = [f"ln -s {shlex.quote(str(place))} {link};" for link, place in (by.links if by else {}).items()]
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment(by).items()]
        return " ".join([*links, *settings, shlex.join(self.command(by))])

    def fingerprint(self) -> str:
        """Return a hash of everything that the results depend on."""
        return sha256_of_json(self.made_from())

    def made_from(self) -> dict[str, Any]:
        """Return everything that the results depend on, files and code by their hashes."""
        checkpoint = self.backbone_checkpoint
        return {
            "job": self.spec.job.to_dict(),
            "workflow": dataclasses.asdict(self.spec.workflow),
            "sites": {site: sha256_of_file(folder / "cohort.csv") for site, folder in self.sites.items()},
            "checkpoint": sha256_of_file(checkpoint) if checkpoint else "",
            "device": self.device,
            "site_settings": list(self.site_settings),
            "adapter": sha256_of_file(self.spec.adapter) if self.spec.adapter else "",
            "code": _code_hash(),
        }


def finished_run(simulation: Simulation) -> dict[str, Any] | None:
    """Return the record of the run in the workspace if it finished with exactly this configuration, else None.

    Raises:
        InputError: the workspace holds something else than a run, or a damaged record.
    """
    record = read_record(simulation.workspace)
    if record is None or record.get("status") != "finished" or record.get("fingerprint") != simulation.fingerprint():
        return None
    return record if not problems(simulation) else None


def check_nothing_is_lost(simulation: Simulation) -> bool:
    """Find out what a start in the workspace would wipe.

    Returns:
        Whether rounds of this very configuration are there that did not come to an end: they are to be set aside.

    Raises:
        InputError: there are results of another configuration; says how it differs, and what to do.
    """
    record = read_record(simulation.workspace)
    held = results_in(simulation.workspace)
    if record is None or not held:
        return False
    if record.get("fingerprint") == simulation.fingerprint():
        return True
    raise InputError(
        f"{simulation.workspace} holds {held} of another configuration ({_difference(record, simulation)}). Choose "
        "another --workspace, or give --fresh, which moves that run to "
        f"{simulation.workspace.name}.previous-N beside it and starts anew"
    )


def _difference(record: Mapping[str, Any], simulation: Simulation) -> str:
    """Return in which respects a run's record differs from what is to be run now; settings by their names."""
    old, new = record.get("made_from"), simulation.made_from()
    if not isinstance(old, dict):
        return "its record does not say in which respect"
    before, now = _flat(old), _flat(new)
    names = [SHOWN.get(name, name) for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return f"another {', '.join(names[:MAX_NAMED])}" + (" and more" if len(names) > MAX_NAMED else "")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, dict) and name in NESTED
        found |= _flat(value, prefix + NESTED[name]) if inner else {prefix + name: value}
    return found


def start_clean(simulation: Simulation) -> dict[str, Any]:
    """Remove what a run left that finished no round (the cache stays), write site configurations and the job.

    Returns:
        The record of the new run; it is on disk before anything is removed, so an interrupted start is seen.

    Raises:
        InputError: there are results, which are never removed.
    """
    workspace = simulation.workspace
    if results_in(workspace):
        raise InputError(f"{workspace} holds {results_in(workspace)}; choose another workspace")
    record = {
        "run_id": time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6],
        "status": "started",
        "fingerprint": simulation.fingerprint(),
        "made_from": simulation.made_from(),
        "sites": list(simulation.sites),
        "job": simulation.spec.job.to_dict(),
        "command": simulation.command_text(),
    }
    write_json(workspace / RUN_FILE, record)
    secrets = secrets_of(workspace)
    for name in OF_ONE_RUN:
        shutil.rmtree(workspace / name, ignore_errors=True)
        if (workspace / name).exists():
            raise ConfigError(f"{workspace / name} of an older run cannot be removed")
    put_secrets(workspace, secrets)
    take_states(simulation)
    for site in simulation.sites:
        write_json(workspace / SITE_CONFIGS / f"{site}.json", _plain(simulation.site_config(site)), mode=0o600)
    export_job(simulation.spec, simulation.job_folder)
    return record


def _plain(config: SiteConfig) -> dict[str, Any]:
    """Return a site's configuration as its file holds it."""
    values = dataclasses.asdict(config)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def problems(simulation: Simulation) -> list[str]:
    """Return why the results are not complete; the simulator's exit code does not tell."""
    directory = simulation.server_directory
    rounds = simulation.finished_rounds()
    planned = simulation.spec.workflow.rounds(simulation.spec.job)
    found = [f"{len(rounds)} of {len(planned)} rounds were finished"] if len(rounds) < len(planned) else []
    try:
        evaluated = set(read_object(directory / EVALUATION_FILE)["sites"])
    except (OSError, ValueError, KeyError, TypeError):
        return [*found, "the trained adapter was not evaluated"]
    missing = sorted(set(simulation.sites) - evaluated)
    return [*found, f"no evaluation from {', '.join(missing)}"] if missing else found


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
