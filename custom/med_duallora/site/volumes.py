"""Prepared volumes of a site's subjects, each read once while it is in use."""

import hashlib
from collections import OrderedDict

import numpy as np

from med_duallora.cohorts.prepared import PreparedSubject, load_volume
from med_duallora.errors import CohortError

BUDGET_BYTES = 32 * 2**20
"""About thirty subjects of the usual size. A process holds little more than that, however large its cohort is."""

FileState = tuple[int, ...]
HASHES: dict[FileState, str] = {}
"""Of files that have not changed since this process read them: a study asks for the same ones in hundreds of runs."""


class Volumes:
    """The volumes that a process has read of prepared subjects, the last ones in memory.

    Augmented views of a subject are asked for one after the other, and to read and unpack its two files takes about as
    long as to change the image.

    Args:
        budget_bytes: of volumes that are kept in memory; those unused for longest go first.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._n_bytes = 0
        self._kept: OrderedDict[str, tuple[FileState, np.ndarray]] = OrderedDict()
        self._sha256: dict[str, str] = {}

    def of(self, subject: PreparedSubject) -> np.ndarray:
        """Return a subject's volume, uint8 (2, X, Y, Z); it is shared, so that nobody may change it.

        Raises:
            CohortError: it is unusable, or changed since it was read first: what is computed of it must not be kept
                under the hash of another.
        """
        name, state = str(subject.ed_path), _state_of(subject)
        known = self._kept.get(name)
        if known and known[0] == state:
            self._kept.move_to_end(name)
            return known[1]
        volume = load_volume(subject)
        volume.flags.writeable = False
        digest = _hash_of(volume)
        if state:
            HASHES[state] = digest
        if self._sha256.setdefault(name, digest) != digest:
            raise CohortError(f"{subject.ed_path} or its ES volume changed while the job runs; start the job again")
        self._keep(name, state, volume)
        return volume

    def sha256(self, subject: PreparedSubject) -> str:
        """Return the hash of a subject's volume; it is read where it never was (CohortError: see ``of``)."""
        name = str(subject.ed_path)
        if name not in self._sha256:
            known = HASHES.get(_state_of(subject))
            if known is None:
                self.of(subject)
            else:
                self._sha256[name] = known
        return self._sha256[name]

    def _keep(self, name: str, state: FileState, volume: np.ndarray) -> None:
        _, former = self._kept.pop(name, (state, None))
        self._n_bytes += volume.nbytes - (0 if former is None else former.nbytes)
        self._kept[name] = state, volume
        while self._n_bytes > self._budget_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._n_bytes -= oldest.nbytes


def _state_of(subject: PreparedSubject) -> FileState:
    """Return what changes with a subject's files; nothing where one is missing, which reading it says better.

    The table's number of slices is a part of it, because reading checks it.
    """
    try:
        found = [path.stat() for path in (subject.ed_path, subject.es_path)]
    except OSError:
        return ()
    return subject.n_slices, *(
        value
        for status in found
        for value in (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


def _hash_of(volume: np.ndarray) -> str:
    header = f"{volume.dtype}{volume.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(volume).tobytes()).hexdigest()
