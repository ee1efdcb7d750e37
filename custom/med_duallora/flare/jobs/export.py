"""Job folders from the recipe: the committed ones (values only), and self-contained ones that carry the package."""

import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nvflare.recipe.secrets import PotentialSecretWarning

import med_duallora
from med_duallora.adapter.methods import METHODS, as_published, plan_of
from med_duallora.errors import ConfigError
from med_duallora.flare.jobs.recipe import PACKAGE, MedDualLoRARecipe
from med_duallora.flare.wire.job import JOB_COMPONENT
from med_duallora.server.resume import SavedRound
from med_duallora.settings.config import JobConfig
from med_duallora.settings.reading import assigned, built, parsed
from med_duallora.settings.screening import ScreeningConfig
from med_duallora.settings.workflow import WorkflowConfig
from med_duallora.support.files import PARTIAL, atomic_path, named, read_object, write_json
from med_duallora.support.folders import replace_folder

WORKFLOW = "workflow"
"""Group of the settings that say how the server waits; all others are the job's."""
SERVER_CONFIG = Path("app/config/config_fed_server.json")
SITE_CONFIG = Path("app/config/config_fed_client.json")
SCREENING = frozenset(item.name for item in fields(ScreeningConfig))
CARRIED_ADAPTER = "config/resume_from.safetensors"
"""Where the adapter that a job goes on from lies in its app, and so in the server's application directory."""
JOB_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")
NOT_IN_JOBS = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


@dataclass(frozen=True)
class JobSpec:
    """A ready job: what differs from the defaults.

    Args:
        name: the job's name on FLARE's console.
        summary: one line for help texts.
        job: the job scope.
        workflow: how the server waits for the sites.
        with_code: the package travels in the job (FLARE calls it bring-your-own-code) instead of being installed.
        adapter: the file of the global adapter that the job goes on from; it travels in the job with its manifest.
    """

    name: str
    summary: str
    job: JobConfig = field(default_factory=JobConfig)
    workflow: WorkflowConfig = field(default_factory=WorkflowConfig)
    with_code: bool = False
    adapter: Path | None = None

    def __post_init__(self) -> None:
        if JOB_NAME.fullmatch(self.name) is None:
            raise ConfigError(
                f"{self.name!r} cannot be the name of a job in FLARE, which takes letters, digits and . _ - and begins "
                "with a letter or digit; rename the job folder"
            )

    def resumed(self, adapter: Path | None, assignments: Iterable[str] = ()) -> "JobSpec":
        """Apply ``key=value`` texts, and let the job go on from a saved global adapter.

        A job with default settings, as the known ones are, takes the settings of the job that trained the adapter.

        Args:
            adapter: its ``.safetensors`` file; None: the job begins anew.
            assignments: see ``with_overrides``.

        Raises:
            ArtifactError: the job cannot go on from this adapter.
            ConfigError: see ``with_overrides``.
        """
        if adapter is None:
            return self.with_overrides(assignments)
        assignments = list(assignments)
        given = parsed(assignments)
        for key in ("workflow.start_round", "workflow.initial_adapter"):
            if key in given:
                why = f"{key} follows from the adapter that the job resumes from; leave it out"
                raise ConfigError(why, key=key, value=given[key])
        saved = SavedRound.read(adapter)
        # which checkpoint the sites have is of the place, not of the settings
        pinned = self.job.backbone_sha256
        known = replace(self.job, backbone_sha256="") == JobConfig()
        settings = replace(saved.job, backbone_sha256=pinned or saved.job.backbone_sha256) if known else self.job
        spec = replace(self, job=settings).with_overrides(assignments)
        saved.check(spec.job)
        workflow = replace(spec.workflow, start_round=saved.next_round, initial_adapter=CARRIED_ADAPTER)
        return replace(spec, workflow=workflow, adapter=adapter.resolve())

    def with_overrides(self, assignments: Iterable[str]) -> "JobSpec":
        """Apply ``key=value`` texts; keys that begin with ``workflow.`` go to the workflow, all others to the job.

        Raises:
            ConfigError: an unknown key, a wrong type or a value out of range.
        """
        values = assigned({**self.job.to_dict(), WORKFLOW: asdict(self.workflow)}, assignments)
        workflow = built(WorkflowConfig, values.pop(WORKFLOW), f"{WORKFLOW}.")
        return replace(self, job=JobConfig.from_dict(values), workflow=workflow)


CANONICAL = JobSpec("med-duallora", "the job at the top of the repository")
BASELINES = "baselines"
WORKFLOW_OF_HOSPITALS = WorkflowConfig(min_sites=2, wait_s=1800)
JOBS = {
    "simulator": JobSpec(
        "med-duallora-simulator",
        "four vendors in the FLARE simulator; every site takes part in every round",
        workflow=WorkflowConfig(min_sites=4),
        with_code=True,
    ),
    "production": JobSpec(
        "med-duallora-production",
        "hospitals that have the package installed; a round continues with two sites when others are away",
        workflow=WORKFLOW_OF_HOSPITALS,
    ),
    "poc": JobSpec(
        "med-duallora-poc",
        "`nvflare poc` on one machine, where the package travels in the job",
        with_code=True,
    ),
    **{
        f"{BASELINES}/{name}": JobSpec(
            f"baseline-{name}",
            f"for a comparison, where the package is installed: {method.summary}",
            as_published(JobConfig(), name),
            WORKFLOW_OF_HOSPITALS,
        )
        for name, method in METHODS.items()
        if name != JobConfig.method and plan_of(JobConfig(method=name)).sent
    },
}
"""Folders below ``jobs/``, each a few lines on top of the canonical job."""


def export_job(spec: JobSpec, target: Path) -> Path:
    """Write a job folder; it appears whole or not at all, and replaces an older job folder.

    Args:
        spec: which job.
        target: the job folder itself; its parent is created.

    Raises:
        ConfigError: ``target`` exists and is not a job folder.
    """
    if target.exists() and not (target / "meta.json").is_file():
        raise ConfigError(f"{target} exists and is not a FLARE job folder; choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        _code(spec) as code,
        named(target),
        tempfile.TemporaryDirectory(prefix=PARTIAL, dir=target.parent) as scratch,
    ):
        with _hash_is_no_secret():
            MedDualLoRARecipe(spec.name, spec.job, spec.workflow, code).export(scratch)
        fresh = Path(scratch) / spec.name
        for path in (fresh / "meta.json", fresh / SERVER_CONFIG, fresh / SITE_CONFIG):
            write_json(path, _ordered(read_object(path)))
        if spec.adapter:
            for source in (spec.adapter, spec.adapter.with_suffix(".json")):
                shutil.copyfile(source, (fresh / "app" / CARRIED_ADAPTER).with_suffix(source.suffix))
        return replace_folder(fresh, target)


def read_spec(folder: Path, with_code: bool) -> JobSpec:
    """Return a job folder as a spec, so that it can be changed and exported again (ConfigError: see ``read_job``)."""
    job, workflow = read_job(folder)
    adapter = folder.resolve() / "app" / CARRIED_ADAPTER if workflow.initial_adapter == CARRIED_ADAPTER else None
    return JobSpec(folder.resolve().name, f"from {folder}", job, workflow, with_code, adapter)


def read_job(folder: Path) -> tuple[JobConfig, WorkflowConfig]:
    """Return the settings of a job folder, so that they can be exported again with today's code.

    Raises:
        ConfigError: it is not a job folder of this package, or the server's and the sites' settings differ.
    """
    server, site = (_components(folder / path) for path in (SERVER_CONFIG, SITE_CONFIG))
    if server.get(JOB_COMPONENT) != site.get(JOB_COMPONENT):
        raise ConfigError(f"{folder}: the server and the sites have different job settings")
    if JOB_COMPONENT not in server:
        raise ConfigError(f"{folder}: {SERVER_CONFIG} has no component {JOB_COMPONENT!r}; this is another kind of job")
    job = JobConfig.from_dict(server[JOB_COMPONENT].get("config", {}))
    rounds = _workflow(folder / SERVER_CONFIG, "rounds")
    start_round, n_rounds = rounds.get("start_round", 0), rounds.get("num_rounds", 5)
    stop_round = start_round + n_rounds if type(start_round) is type(n_rounds) is int else n_rounds
    values = {
        "min_sites": rounds.get("min_clients", 1000),
        "wait_s": rounds.get("wait_time_after_min_received", 10),
        "round_timeout_s": rounds.get("train_timeout", 0),
        "start_round": start_round,
        "stop_round": 0 if stop_round == job.train.n_rounds else stop_round,
        "initial_adapter": server.get("persistor", {}).get("initial_adapter", ""),
        "screening": {name: limit for name, limit in server.get("aggregator", {}).items() if name in SCREENING},
    }
    return job, built(WorkflowConfig, values, f"{WORKFLOW}.")


def committed_differences(repository: Path) -> list[str]:
    """Return what the committed job folders hold that the recipe does not give, one line per file; empty: no drift."""
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for folder, spec in committed_jobs(repository).items():
            fresh = export_job(replace(spec, with_code=False), Path(scratch) / spec.name)
            for relative in (Path("meta.json"), SERVER_CONFIG, SITE_CONFIG):
                path = folder / relative
                if not path.is_file():
                    found.append(f"{path.relative_to(repository)} is missing")
                elif path.read_bytes() != (fresh / relative).read_bytes():
                    found.append(f"{path.relative_to(repository)} differs from the recipe")
        return found


def write_committed(repository: Path) -> None:
    """Bring the committed job folders up to date with the recipe."""
    with tempfile.TemporaryDirectory() as scratch:
        for folder, spec in committed_jobs(repository).items():
            fresh = export_job(replace(spec, with_code=False), Path(scratch) / spec.name)
            shutil.copytree(fresh, folder, copy_function=_copied_whole, dirs_exist_ok=True)


def _copied_whole(source: str, target: str) -> None:
    """Copy one file; on a full disk the older one stays."""
    with atomic_path(Path(target)) as partial:
        shutil.copyfile(source, partial)


def committed_jobs(repository: Path) -> dict[Path, JobSpec]:
    """Return the committed job folders of a checkout and what each must hold.

    Raises:
        ConfigError: ``repository`` is not a checkout of this project.
    """
    if not (repository / "custom" / PACKAGE).is_dir():
        raise ConfigError(f"{repository} is not a checkout of this project: it has no folder custom/{PACKAGE}")
    return {repository: CANONICAL, **{repository / "jobs" / name: spec for name, spec in JOBS.items()}}


@contextmanager
def _hash_is_no_secret() -> Iterator[None]:
    """Keep FLARE quiet about hexadecimal texts: the only one a job can hold is the public hash of its backbone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*high-entropy hex string", category=PotentialSecretWarning)
        yield


@contextmanager
def _code(spec: JobSpec) -> Iterator[str]:
    """Give a folder with a clean copy of the running package, or an empty text where no code travels."""
    if not spec.with_code:
        yield ""
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(med_duallora.__file__).parent
        shutil.copytree(source, Path(folder) / PACKAGE, ignore=NOT_IN_JOBS)
        yield folder


def _ordered(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with its filters' tasks in one order: FLARE keeps them as a set."""
    for chain in ("task_data_filters", "task_result_filters"):
        for entry in config.get(chain, []):
            entry["tasks"] = sorted(entry["tasks"])
    return config


def _components(path: Path) -> dict[str, dict[str, Any]]:
    return _arguments(path, "components")


def _workflow(path: Path, workflow_id: str) -> dict[str, Any]:
    found = _arguments(path, "workflows")
    if workflow_id not in found:
        raise ConfigError(f"{path} has no workflow {workflow_id!r}")
    return found[workflow_id]


def _arguments(path: Path, part: str) -> dict[str, dict[str, Any]]:
    """Return the arguments of everything that a part of a configuration lists, by its id."""
    items = _read(path).get(part, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ConfigError(f"{path}: {part} must be a list of objects")
    found = {str(item.get("id")): item.get("args", {}) for item in items}
    if not all(isinstance(arguments, dict) for arguments in found.values()):
        raise ConfigError(f"{path}: args must be an object everywhere in {part}")
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
