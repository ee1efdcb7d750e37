"""A hidden folder below the output for files that are only needed while a run lasts."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from med_duallora.errors import CohortError
from med_duallora.support.locks import locked
from med_duallora.support.private import private_folder

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
        private_folder(out)
        for leftover in out.glob(f"{PREFIX}*"):
            if not _in_use(leftover):
                shutil.rmtree(leftover, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=out))
    except OSError as error:
        raise CohortError(f"--out {out} cannot be used: {error.strerror or error}") from error
    try:
        with locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed and not any(out.iterdir()):
            out.rmdir()


def _in_use(folder: Path) -> bool:
    try:
        with locked(folder, busy=BlockingIOError()):
            return False
    except OSError:
        return True
