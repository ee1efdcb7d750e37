"""Where an export goes: a file or folder that is whole or absent, and that replaces nothing."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from med_duallora.errors import InputError
from med_duallora.support.files import PARTIAL, named
from med_duallora.support.folders import check_writable, made
from med_duallora.support.private import private_folder


def check_new(target: Path) -> None:
    """Refuse a file's place where something is already (InputError)."""
    if target.is_symlink() or target.exists():
        raise InputError(f"{target} is there already; choose a new file, an export replaces nothing")


def check_free(target: Path) -> None:
    """Find out before the work whether a folder can be made there.

    Raises:
        InputError: something is there; an export replaces nothing.
        OSError: nothing can be written there.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"{target} is there already; choose a new or empty folder, an export replaces nothing")
    check_writable(target.parent)


@contextmanager
def whole_folder(target: Path, private: bool) -> Iterator[Path]:
    """Give a folder beside ``target`` that becomes it when the block ends without error, and is gone otherwise.

    Args:
        target: see ``check_free``.
        private: whether only this account can look into it; otherwise it is as the umask says.

    Raises:
        InputError: see ``check_free``.
        OSError: likewise; names ``target``.
    """
    check_free(target)
    with made(target.parent), named(target):
        partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{target.name}")
        if private:
            private_folder(partial)
        else:
            partial.mkdir()
        try:
            yield partial
            if target.exists():
                target.rmdir()
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
