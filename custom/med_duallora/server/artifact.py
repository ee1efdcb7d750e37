"""Adapters on disk: safetensors for the numbers, a JSON manifest beside it for everything else."""

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from med_duallora import __version__
from med_duallora.backbone import agreed_sha256
from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import ArtifactError
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import atomic_path, read_object, sha256_of_file, write_json

INTENDED_USE = "Research use only, not for diagnosis."
MANIFEST_VERSION = "1"
PREVIOUS = "previous"
"""Entry of a manifest, while an adapter is being replaced: the manifest of the one before."""


def adapter_manifest(job: JobConfig, contract: EgressContract, **facts: Any) -> dict[str, Any]:
    """Return what a reader of an adapter must know.

    ``backbone_sha256`` is the hash of the checkpoint that every contributing site trained with; null where the job
    left the choice to the sites.

    Args:
        job: the job scope.
        contract: that follows from it.
        facts: what only the caller knows: round, sites, ...
    """
    return {
        "manifest_version": MANIFEST_VERSION,
        "intended_use": INTENDED_USE,
        "method": job.method,
        "experiment": job.experiment,
        "backbone": job.backbone,
        "backbone_sha256": agreed_sha256(job.backbone, job.backbone_sha256),
        "lora": job.to_dict()["lora"],
        "job": job.to_dict(),
        "contract_sha256": contract.sha256,
        "n_parameters": contract.n_parameters,
        "n_rounds_planned": job.train.n_rounds,
        "versions": versions(),
        **facts,
    }


def versions() -> dict[str, str]:
    """Return the versions of what computed an adapter."""
    installed = {name: importlib.metadata.version(name) for name in ("nvflare", "numpy", "torch", "safetensors")}
    return {"med_duallora": __version__, "python": platform.python_version(), **installed}


def save_adapter(directory: Path, name: str, tensors: Mapping[str, np.ndarray], manifest: Mapping[str, Any]) -> Path:
    """Write ``<name>.safetensors`` and ``<name>.json``; return the first path.

    The manifest holds the tensors' hash, so a reader notices when the two do not belong together. It is written before
    the tensors replace the older ones, and then holds the older manifest as well: at no moment does a crash leave a
    pair that ``load_adapter`` cannot read.
    """
    path = directory / f"{name}.safetensors"
    older = _manifest_beside(path)
    with atomic_path(path) as partial:
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, partial)
        manifest = {**manifest, "sha256": sha256_of_file(partial)}
        write_json(path.with_suffix(".json"), {**manifest, PREVIOUS: older} if older else manifest)
    if older:
        write_json(path.with_suffix(".json"), manifest)
    return path


def load_adapter(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read an adapter and its manifest.

    Raises:
        ArtifactError: a file is missing or damaged, the two do not belong together, or another version wrote them.
    """
    manifest_path = path.with_suffix(".json")
    if path.is_dir() or path == manifest_path:
        raise ArtifactError(
            f"{path} is not an adapter; an adapter is a .safetensors file and its .json: give the former"
        )
    try:
        tensors: dict[str, np.ndarray] = load_file(path)
        found = read_object(manifest_path)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{error.filename or path} is missing; an adapter is a .safetensors file and its .json"
        ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"adapter {path} or its manifest is damaged: {error}") from error
    manifest = _describing(path, found)
    if manifest is None:
        raise ArtifactError(
            f"adapter {path} is not the one its manifest {manifest_path.name} describes (sha256 differs)"
        )
    version = manifest.get("manifest_version", MANIFEST_VERSION)
    if version != MANIFEST_VERSION:
        raise ArtifactError(
            f"adapter {path} was written by another version of med-duallora (manifest_version is {version!r}, this one "
            f"reads {MANIFEST_VERSION!r}): use the version that its manifest names under versions, or train again"
        )
    return tensors, manifest


def _describing(path: Path, manifest: object) -> dict[str, Any] | None:
    """Return the manifest, or the older one that it holds, that describes the tensors in the file."""
    if not isinstance(manifest, dict):
        return None
    older = manifest.pop(PREVIOUS, None)
    return manifest if manifest.get("sha256") == sha256_of_file(path) else _describing(path, older)


def _manifest_beside(path: Path) -> dict[str, Any] | None:
    """Return the manifest of the adapter that is about to be replaced; None where there is none that fits."""
    try:
        return _describing(path, read_object(path.with_suffix(".json")))
    except (OSError, ValueError):
        return None
