"""Which job folder is submitted: a known job, or a folder, with settings changed on the way."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from med_duallora.errors import ConfigError
from med_duallora.flare.jobs.export import JOBS, SITE_CONFIG, JobSpec, export_job, read_spec
from med_duallora.site_kit.layout import check_job_layout
from med_duallora.support.files import read_object

SIGNATURES = ".__nvfl_*"
"""FLARE signs a job where it lies, and leaves these files there."""


def prepare_submission(
    job: str,
    assignments: Sequence[str],
    n_sites: int,
    below: Path,
    *,
    backbone_sha256: str = "",
    resume_from: Path | None = None,
) -> Path:
    """Write the folder that is submitted; the original is left as it is.

    Args:
        job: name of a known job, or a job folder.
        assignments: ``key=value`` changes of its settings, see ``JobSpec.with_overrides``.
        n_sites: sites of the federation; a known job waits for all of them unless ``workflow.min_sites`` is set.
        below: the folder is written below this one.
        backbone_sha256: of the checkpoint that the sites have; a known job is about it. Empty: the shipped one.
        resume_from: global adapter that the job goes on from; None: it begins as its settings say.

    Raises:
        ConfigError: there is no such job, or a setting is wrong.
        ArtifactError: the job cannot go on from that adapter.
        KitError: the folder was exported for an earlier layout of this package, and does not bring its own.
    """
    folder = Path(job)
    if job in JOBS:
        spec = _for_sites(JOBS[job], n_sites, backbone_sha256)
        return export_job(spec.resumed(resume_from, assignments), below / spec.name)
    if not (folder / "meta.json").is_file():
        raise ConfigError(f"--job {job}: no job folder, and no known job; known are {', '.join(JOBS)}")
    if (folder / "custom" / "med_duallora").is_dir():
        raise ConfigError(
            f"--job {job} is a checkout of the project: FLARE would pack all of it. Choose a folder below jobs/"
        )
    if assignments or resume_from:
        spec = read_spec(folder, with_code=_has_code(folder)).resumed(resume_from, assignments)
        return export_job(spec, below / spec.name)
    if not _has_code(folder):
        check_job_layout(folder, _components(folder))
    return _copied(folder, below / folder.resolve().name)


def _for_sites(spec: JobSpec, n_sites: int, backbone_sha256: str) -> JobSpec:
    workflow = replace(spec.workflow, min_sites=n_sites)
    return replace(spec, workflow=workflow, job=replace(spec.job, backbone_sha256=backbone_sha256))


def _has_code(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.glob("*/custom"))


def _components(folder: Path) -> object:
    """Return what a folder's site configuration names; nothing where FLARE itself will say what is wrong with it."""
    try:
        return read_object(folder / SITE_CONFIG)
    except (OSError, ValueError):
        return None


def _copied(folder: Path, target: Path) -> Path:
    if target.exists():
        shutil.rmtree(target)
    return Path(shutil.copytree(folder, target, ignore=shutil.ignore_patterns(SIGNATURES, "__pycache__")))
