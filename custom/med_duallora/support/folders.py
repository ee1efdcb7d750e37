"""Folders: whether one can be made, one that is there for a block or instead of another, and unused names."""

import itertools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from med_duallora.support.files import named


def check_writable(folder: Path) -> None:
    """Find out, before the work whose result will go there, whether a folder can be made and files in it.

    A folder that was not there is not there afterwards either: the command may still be refused.

    Raises:
        OSError: they cannot; names the place.
    """
    missing = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with named(folder), tempfile.TemporaryFile(dir=folder):
            pass
    finally:
        _remove_empty(missing)


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents for the block; where that fails, those that were missing and are empty go again.

    Raises:
        OSError: it cannot be made.
    """
    missing = _missing(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        _remove_empty(missing)
        raise


def _missing(folder: Path) -> list[Path]:
    """Return the folder and its parents as far as they are not there, the innermost one first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of some folders, the innermost one first, that are there and empty."""
    for place in folders:
        with suppress(OSError):
            place.rmdir()


def replace_folder(fresh: Path, target: Path) -> Path:
    """Rename ``fresh`` to ``target`` on the same disk; what was there goes only once the new one is in its place.

    Raises:
        OSError: it cannot be renamed; what was there is there again.
    """
    older = target.with_name(f".replaced-{uuid.uuid4().hex[:12]}")
    if target.exists():
        target.rename(older)
    try:
        fresh.rename(target)
    except OSError:
        if older.exists():
            older.rename(target)
        raise
    shutil.rmtree(older, ignore_errors=True)
    return target


def unused(place: Path, word: str, first: int = 0) -> Path:
    """Return ``PLACE.word-N`` beside a place with the first N that nothing has: what is set aside replaces nothing."""
    numbered = (place.with_name(f"{place.name}.{word}-{number}") for number in itertools.count(first))
    return next(free for free in numbered if not os.path.lexists(free))
