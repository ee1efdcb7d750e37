"""The feature cache: a bounded folder of sealed entries, least recently used ones go first.

Each entry is sealed with the site's secret (HMAC-SHA256 over its name and its tensors), so one that somebody else
wrote, or that belongs to another name, is not taken, and neither is a file that other accounts can write. The seal is
computed once per process and file: afterwards the file is known by its inode and times, and a checksum is enough, which
costs a third. The cache is only a cache: an entry that is damaged, foreign, half-written or evicted is computed again,
and so is one that the disk has no room for.
"""

import errno
import hmac
import logging
import os
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from med_duallora.errors import ConfigError
from med_duallora.support.files import atomic_path, canonical_json
from med_duallora.support.private import OTHERS_WRITE, open_own, private_folder, refuse_link
from med_duallora.support.tensors import read_tensors

logger = logging.getLogger(__name__)

ABANDONED_AFTER_S = 3600
TRIM_TO = 0.9
RECOUNT_AFTER = 1 / 64
HEADER_BYTES = 1024
"""More than the safetensors header of an entry needs."""
SEAL, CHECKSUM = "hmac-sha256", "crc32"
"""Facts of an entry: against people, and against flipped bytes."""
FOLDER = re.compile("[0-9a-f]{2}")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class FeatureCache:
    """A bounded directory of safetensors files; least recently used entries go first.

    Args:
        directory: created when missing; may be shared by processes and jobs.
        budget_bytes: the directory is kept at or below this size. Writers in other processes are noticed after each
            64th of it, so every one of them can overshoot by that much for a moment.
        secret: of the site, see ``site_secret``; entries that were sealed with another one are computed again.

    Raises:
        ConfigError: the directory cannot be made for another reason than a full disk.
    """

    def __init__(self, directory: Path, budget_bytes: int, secret: bytes) -> None:
        self.directory = directory
        self.budget_bytes = budget_bytes
        self._secret = secret
        self._known: dict[str, tuple[int, ...]] = {}
        self.n_hits = 0
        self.n_misses = 0
        self._said_full = self._said_foreign = False
        try:
            private_folder(directory)
        except OSError as error:
            if error.errno not in NO_ROOM:
                message = f"cache_dir {directory} cannot be used: {error.strerror or error}"
                raise ConfigError(message, key="cache_dir", value=directory) from error
            self._say_full(error)
        self._remove_abandoned()
        self._n_bytes, self._n_uncounted = 0, budget_bytes  # counted at the first entry that is written, not to read

    def load(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored under ``key``, or None; one that is damaged or not this site's is removed."""
        path = self._path(key)
        tensors: dict[str, Tensor] = {}
        try:
            if not path.parent.is_symlink():
                tensors = self._opened(path, key)
        except FileNotFoundError:
            pass
        except (SafetensorError, OSError, ValueError):
            self._say_foreign()
            with suppress(OSError):
                path.unlink()
        if tensors:
            self.n_hits += 1
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
            refuse_link(self._path(key).parent)
            with atomic_path(self._path(key), mode=0o600, durable=False) as partial:  # its seal tells a torn one
                save_file(tensors, partial, metadata={SEAL: self._seal(key, tensors), CHECKSUM: _checksum(tensors)})
        except (OSError, SafetensorError) as error:
            self._say_full(error)
            return
        self._n_bytes += n_bytes
        self._n_uncounted += n_bytes
        if self._n_uncounted > self.budget_bytes * RECOUNT_AFTER:
            self._count()
        if self._n_bytes > self.budget_bytes:
            self._trim(keep=self._path(key))

    def _opened(self, path: Path, key: str) -> dict[str, Tensor]:
        """Return an entry's tensors (SafetensorError, OSError, ValueError: it is damaged or not this site's)."""
        with open_own(path) as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
                raise SafetensorError("other accounts can change a cached entry")
            known = self._known.get(key) == _identity(status)
            facts, tensors = read_tensors(stream, "pt")
            name, wanted = (CHECKSUM, _checksum(tensors)) if known else (SEAL, self._seal(key, tensors))
            if not hmac.compare_digest(facts.get(name, "").encode(), wanted.encode()):
                raise SafetensorError("a cached entry is not the one that this site wrote")
            with suppress(OSError):
                os.utime(stream.fileno())
            self._known[key] = _identity(os.fstat(stream.fileno()))
        return tensors

    def _seal(self, key: str, tensors: dict[str, Tensor]) -> str:
        """Return what only this site can compute of an entry: of its name, and of names, kinds and bytes in it."""
        found = hmac.new(self._secret, key.encode(), "sha256")
        for name, value in sorted(tensors.items()):
            found.update(canonical_json([name, str(value.dtype), list(value.shape)]).encode() + b"\n")
            found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    def _say_foreign(self) -> None:
        if not self._said_foreign:
            logger.warning(
                "the feature cache holds entries that this site did not write, that were damaged, or that are of an "
                "earlier version: they are computed again"
            )
        self._said_foreign = True

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
        for path in self._files():
            if path.suffix == ".safetensors" and not path.name.startswith("."):
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def _files(self) -> Iterator[Path]:
        """Give what lies in the cache's own folders: a link would lead to files that are not its to remove."""
        for folder in self.directory.glob("??"):
            if FOLDER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                yield from folder.iterdir()

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
        for path in self._files():
            with suppress(FileNotFoundError):
                if path.name.startswith(".") and time.time() - path.lstat().st_mtime > ABANDONED_AFTER_S:
                    path.unlink()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file that only this account can write from others: nobody else can set its times."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _checksum(tensors: dict[str, Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found = zlib.crc32(canonical_json([name, str(value.dtype), list(value.shape)]).encode(), found)
        found = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"
