"""Trunk features, computed once per subject and view: the trunk is frozen, so repeating it in every step is waste.

Entries are named by the hash of everything that decides their content, so a changed volume, backbone, cut or
augmentation can never meet an old entry, and two jobs may share one directory. The cache is only a cache: an
entry that is damaged, half-written or evicted is computed again, and so is one that the disk has no room for.
"""

import errno
import hashlib
import logging
import os
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from med_duallora.adapter.model import DualLoRAModel, TrunkFeatures
from med_duallora.backbone import BackboneConfig
from med_duallora.backbone.inputs import INPUTS_VERSION, augment, to_input
from med_duallora.cohorts.prepared import PreparedSubject, load_volume
from med_duallora.errors import CohortError, ConfigError, TrainingAborted
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import atomic_path, sha256_of_json
from med_duallora.support.seeds import generator

logger = logging.getLogger(__name__)

ABANDONED_AFTER_S = 3600
TRIM_TO = 0.9
RECOUNT_AFTER = 1 / 64
HEADER_BYTES = 1024
"""More than the safetensors header of an entry needs."""
FEATURES = ("tokens", "fusion_term")
CHECKSUM = "crc32"
"""Against flipped bytes, not against people: cheap beside a training step, where a cryptographic hash would not be."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class FeatureCache:
    """A bounded directory of safetensors files; least recently used entries go first.

    Args:
        directory: created when missing; may be shared by processes and jobs.
        budget_bytes: the directory is kept at or below this size. Writers in other processes are noticed after each
            64th of it, so every one of them can overshoot by that much for a moment.

    Raises:
        ConfigError: the directory cannot be made for another reason than a full disk.
    """

    def __init__(self, directory: Path, budget_bytes: int) -> None:
        self.directory = directory
        self.budget_bytes = budget_bytes
        self.n_hits = 0
        self.n_misses = 0
        self._said_full = False
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in NO_ROOM:
                message = f"cache_dir {directory} cannot be used: {error.strerror or error}"
                raise ConfigError(message, key="cache_dir", value=directory) from error
            self._say_full(error)
        self._remove_abandoned()
        self._count()

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored under ``key``, or None; a damaged entry is removed."""
        path = self._path(key)
        try:
            tensors = _read_entry(path)
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
        """Store tensors under ``key``; other writers of the same key write the same bytes, so the last one wins.

        Where they cannot be written, a full disk above all, it is said once and the work goes on without.
        """
        n_bytes = HEADER_BYTES + sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if n_bytes > self.budget_bytes:
            return
        try:
            with atomic_path(self._path(key), mode=0o600) as partial:
                save_file(tensors, partial, metadata={CHECKSUM: _checksum(tensors)})
        except (OSError, SafetensorError) as error:
            self._say_full(error)
            return
        self._n_bytes += n_bytes
        self._n_uncounted += n_bytes
        if self._n_uncounted > self.budget_bytes * RECOUNT_AFTER:
            self._count()
        if self._n_bytes > self.budget_bytes:
            self._trim(keep=self._path(key))

    def _say_full(self, error: Exception) -> None:
        if not self._said_full:
            reason = getattr(error, "strerror", None) or str(error).partition(" at path ")[0]
            logger.warning(
                "the feature cache cannot be written (%s): what is not in it is computed in every step, which is slow; "
                "make room in cache_dir of the site configuration",
                reason,
            )
        self._said_full = True

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
        for path in self.directory.glob("??/.*"):
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
            CohortError: a volume is unusable, or changed while the job runs.
        """
        parts = []
        for subject, view in zip(subjects, views, strict=True):
            if should_stop():
                raise TrainingAborted("stopped while trunk features were computed")
            parts.append(self._one(subject, view))
        return self._joined(parts)

    def of_volumes(self, volumes: Sequence[np.ndarray]) -> TrunkFeatures:
        """Return the features of view 0 of prepared volumes at hand, as ``batch`` does; the cache has no part in it."""
        return self._joined([self._compute(to_input(volume, self.backbone)) for volume in volumes])

    def _joined(self, parts: Sequence[dict[str, Tensor]]) -> TrunkFeatures:
        tokens, fusion_term = (
            torch.cat([part[name] for part in parts]).to(self.device, torch.float32) for name in FEATURES
        )
        return TrunkFeatures(tokens, fusion_term)

    def _one(self, subject: PreparedSubject, view: int) -> dict[str, Tensor]:
        if self.cache is None:
            return self._compute(self._input(load_volume(subject), subject, view))
        volume = None if subject.ed_path in self._volume_hashes else self._volume(subject)
        key = self._key(subject, view)
        found = self.cache.load(key)
        if found is None:
            found = self._compute(self._input(self._volume(subject) if volume is None else volume, subject, view))
            self.cache.store(key, found)
        return found

    def _volume(self, subject: PreparedSubject) -> np.ndarray:
        """Load a subject's volume; one that changed while the job runs must not be stored under its old address."""
        volume = load_volume(subject)
        digest = _hash_of(volume)
        if self._volume_hashes.setdefault(subject.ed_path, digest) != digest:
            raise CohortError(f"{subject.ed_path} or its ES volume changed while the job runs; start the job again")
        return volume

    def _key(self, subject: PreparedSubject, view: int) -> str:
        changed = None
        if view:
            # the subject's name picks the random stream, so it is part of an augmented view's content
            changed = [subject.subject, view, self.job.train.seed, asdict(self.job.augment)]
        return sha256_of_json({**self._common, "volume": self._volume_hashes[subject.ed_path], "view": changed})

    def _input(self, volume: np.ndarray, subject: PreparedSubject, view: int) -> np.ndarray:
        if view:
            stream = generator(self.job.train.seed, "view", subject.subject, view)
            volume = augment(volume, self.job.augment, stream)
        return to_input(volume, self.backbone)

    def _compute(self, image: np.ndarray) -> dict[str, Tensor]:
        x = torch.from_numpy(image)[None].to(self.device)
        # an entry must not depend on who asked for it first: the trunk runs in full precision whatever the caller does
        with torch.autocast(self.device.type, enabled=False):
            trunk = self.model.trunk(x)
        found = {name: getattr(trunk, name).to("cpu", self.dtype).contiguous() for name in FEATURES}
        if not all(torch.isfinite(value).all() for value in found.values()):
            raise ConfigError(
                f"trunk features are not finite in {self.job.train.feature_dtype}: check the backbone checkpoint, or "
                "set train.feature_dtype to float32",
                key="train.feature_dtype",
                value=self.job.train.feature_dtype,
                limit="float32",
            )
        return found


def _read_entry(path: Path) -> dict[str, Tensor]:
    """Return an entry's tensors (SafetensorError, OSError: it is damaged)."""
    with safe_open(path, framework="pt") as stream:
        written = (stream.metadata() or {}).get(CHECKSUM)
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    if written != _checksum(tensors):
        raise SafetensorError("bytes of a cached entry changed on disk")
    return tensors


def _checksum(tensors: dict[str, Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(tensors[name].contiguous().numpy().data, found)
    return f"{found:08x}"


def _hash_of(volume: np.ndarray) -> str:
    header = f"{volume.dtype}{volume.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(volume).tobytes()).hexdigest()
