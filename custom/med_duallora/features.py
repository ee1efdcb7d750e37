"""Trunk features, computed once per subject and view: the trunk is frozen, so repeating it in every step is waste.

Entries are named by the hash of everything that decides their content, so a changed volume, backbone, cut or
augmentation can never meet an old entry, and two jobs may share one directory. The cache is only a cache: an
entry that is damaged, half-written or evicted is computed again.
"""

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from med_duallora.backbone import BackboneConfig
from med_duallora.cohorts.prepared import PreparedSubject, load_volume
from med_duallora.config import JobConfig
from med_duallora.errors import ConfigError, TrainingAborted
from med_duallora.files import atomic_path, sha256_of_json
from med_duallora.inputs import INPUTS_VERSION, augment, to_input
from med_duallora.model import DualLoRAModel, TrunkFeatures
from med_duallora.seeds import generator

ABANDONED_AFTER_S = 3600
TRIM_TO = 0.9
RECOUNT_AFTER = 1 / 64
HEADER_BYTES = 1024
"""More than the safetensors header of an entry needs."""
FEATURES = ("tokens", "fusion_term")


class FeatureCache:
    """A bounded directory of safetensors files; least recently used entries go first.

    Args:
        directory: created when missing; may be shared by processes and jobs.
        budget_bytes: the directory is kept at or below this size. Writers in other processes are noticed after each
            64th of it, so every one of them can overshoot by that much for a moment.
    """

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        self.directory = directory
        self.budget_bytes = budget_bytes
        self.n_hits = 0
        self.n_misses = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        self._count()

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored under ``key``, or None; a damaged entry is removed."""
        path = self._path(key)
        try:
            tensors: dict[str, Tensor] = load_file(path)
        except FileNotFoundError:
            tensors = {}
        except (SafetensorError, OSError):
            with suppress(OSError):
                path.unlink()
            tensors = {}
        if tensors:
            self.n_hits += 1
            with suppress(OSError):  # another process may have evicted it meanwhile; touch() would create it anew
                os.utime(path)
            return tensors
        self.n_misses += 1
        return None

    def store(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Store tensors under ``key``; other writers of the same key write the same bytes, so the last one wins."""
        n_bytes = HEADER_BYTES + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if n_bytes > self.budget_bytes:
            return
        with atomic_path(self._path(key), mode=0o600) as partial:
            save_file(tensors, partial)
        self._n_bytes += n_bytes
        self._n_uncounted += n_bytes
        if self._n_uncounted > self.budget_bytes * RECOUNT_AFTER:
            self._count()
        if self._n_bytes > self.budget_bytes:
            self._trim(keep=self._path(key))

    def _path(self, key: str) -> Path:
        return self.directory / key[:2] / f"{key}.safetensors"

    def _entries(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self.directory.glob("??/*.safetensors"):
            if path.name.startswith("."):
                continue
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def _count(self) -> list[tuple[float, int, Path]]:
        entries = self._entries()
        self._n_bytes = sum(size for _, size, _ in entries)
        self._n_uncounted = 0
        return entries

    def _trim(self, keep: Path) -> None:
        entries = self._count()
        if self._n_bytes <= self.budget_bytes:
            return
        for _, size, path in entries:
            if self._n_bytes <= self.budget_bytes * TRIM_TO:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                self._n_bytes -= size

    def _remove_abandoned(self) -> None:
        """Remove what a killed writer left; a living writer's file is younger than an hour."""
        for path in self.directory.glob("??/.partial-*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                    path.unlink()


class FeatureSource:
    """Trunk features of a site's subjects and views.

    View 0 is the unaugmented image; view v > 0 is a random change of it that depends on the experiment's seed, the
    subject and v alone.

    Args:
        model: whose trunk is used; its device decides where the trunk runs.
        job: augmentation, seed, feature dtype.
        backbone_sha256: hash of the checkpoint behind the trunk.
        cache: where features are kept, or None to compute them each time.
    """

    def __init__(self, model: DualLoRAModel, job: JobConfig, backbone_sha256: str, cache: FeatureCache | None) -> None:
        self.model = model
        self.job = job
        self.cache = cache
        self.backbone = BackboneConfig.preset(job.backbone)
        self.dtype: torch.dtype = getattr(torch, job.train.feature_dtype)
        self._common = {
            "inputs": INPUTS_VERSION,
            "backbone": backbone_sha256,
            "preset": self.backbone.to_dict(),
            "cut": model.cut,
            "dtype": job.train.feature_dtype,
        }
        self._volume_hashes: dict[Path, str] = {}

    @property
    def device(self) -> torch.device:
        """Return where the model is."""
        return next(self.model.parameters()).device

    def batch(
        self, subjects: Sequence[PreparedSubject], views: Sequence[int], should_stop: Callable[[], bool] = lambda: False
    ) -> TrunkFeatures:
        """Return the features of a batch on the model's device, float32.

        Raises:
            TrainingAborted: ``should_stop`` said so between two subjects.
            ConfigError: the features cannot be held in the job's ``feature_dtype``.
        """
        parts = []
        for subject, view in zip(subjects, views, strict=True):
            if should_stop():
                raise TrainingAborted("stopped while trunk features were computed")
            parts.append(self._one(subject, view))
        tokens, fusion_term = (
            torch.cat([part[name] for part in parts]).to(self.device, torch.float32) for name in FEATURES
        )
        return TrunkFeatures(tokens, fusion_term)

    def _one(self, subject: PreparedSubject, view: int) -> dict[str, Tensor]:
        if self.cache is None:
            return self._compute(load_volume(subject), subject, view)
        volume = None
        if subject.ed_path not in self._volume_hashes:
            volume = load_volume(subject)
            self._volume_hashes[subject.ed_path] = _hash_of(volume)
        key = self._key(subject, view)
        found = self.cache.load(key)
        if found is None:
            found = self._compute(load_volume(subject) if volume is None else volume, subject, view)
            self.cache.store(key, found)
        return found

    def _key(self, subject: PreparedSubject, view: int) -> str:
        changed = None
        if view:
            # the subject's name picks the random stream, so it is part of an augmented view's content
            changed = [subject.subject, view, self.job.train.seed, asdict(self.job.augment)]
        return sha256_of_json({**self._common, "volume": self._volume_hashes[subject.ed_path], "view": changed})

    def _compute(self, volume: np.ndarray, subject: PreparedSubject, view: int) -> dict[str, Tensor]:
        if view:
            stream = generator(self.job.train.seed, "view", subject.subject, view)
            volume = augment(volume, self.job.augment, stream)
        x = torch.from_numpy(to_input(volume, self.backbone))[None].to(self.device)
        # an entry must not depend on who asked for it first: the trunk runs in full precision whatever the caller does
        with torch.autocast(self.device.type, enabled=False):
            trunk = self.model.trunk(x)
        found = {name: getattr(trunk, name).to("cpu", self.dtype).contiguous() for name in FEATURES}
        if not all(torch.isfinite(value).all() for value in found.values()):
            raise ConfigError(
                f"trunk features are not finite in {self.job.train.feature_dtype}: check the backbone checkpoint, or "
                "set train.feature_dtype to float32"
            )
        return found


def _hash_of(volume: np.ndarray) -> str:
    header = f"{volume.dtype}{volume.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(volume).tobytes()).hexdigest()
