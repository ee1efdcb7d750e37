"""A hidden folder below the output for files that are only needed while a run lasts."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from med_duallora.errors import CohortError

PREFIX = ".dicom-"


@contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """Create a hidden folder below ``out``, and remove it at the end; also those that killed runs left.

    Args:
        out: created if need be, and removed again if it is empty at the end.

    Raises:
        CohortError: ``out`` cannot be written.
    """
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for leftover in out.glob(f"{PREFIX}*"):
            if not _in_use(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=out))
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CohortError(f"--out {out} cannot be used: {error.strerror or error}") from error
    try:
        # Held while the run lasts; the system lets go of it however the run ends.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
        if not existed and not any(out.iterdir()):
            out.rmdir()


def _in_use(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
