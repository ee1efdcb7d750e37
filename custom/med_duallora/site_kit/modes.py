"""Modes of a startup kit: nobody but its owner changes the kit, and nobody but its owner reads its secrets."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from med_duallora.errors import KitError
from med_duallora.support.private import OTHERS, OTHERS_WRITE

PARTS = ("startup", "local")
KEYS = ("startup/*.key", "startup/*.pfx")
"""Private keys of the kit's owner."""
SITE_CONFIGURATIONS = ("local/med_duallora_site.json",)


@dataclass(frozen=True)
class WideMode:
    """A file or folder of a kit whose mode gives other accounts too much.

    Args:
        path: where it is.
        before: its mode.
        after: the mode without those rights.
    """

    path: Path
    before: int
    after: int


def wide_modes(kit: Path) -> list[WideMode]:
    """Return what in a kit other accounts may change, or read although it is secret; links are left out."""
    secret = set(secrets_in(kit))
    found = []
    for path in (kit, *_parts(kit)):
        mode = stat.S_IMODE(path.lstat().st_mode)
        after = mode & ~(OTHERS if path in secret else OTHERS_WRITE)
        if mode != after and not path.is_symlink():
            found.append(WideMode(path, mode, after))
    return found


def secrets_in(kit: Path) -> Iterator[Path]:
    """Give the private keys of a kit, and its site configuration where it lies in the kit."""
    for pattern in (*KEYS, *SITE_CONFIGURATIONS):
        yield from sorted(kit.glob(pattern))


def narrow(found: list[WideMode]) -> None:
    """Take those rights away.

    Raises:
        KitError: this account may not, because the kit belongs to another one.
    """
    for item in found:
        try:
            item.path.chmod(item.after)
        except OSError as error:
            raise KitError(f"the mode of {item.path} cannot be set: {error.strerror or error}") from error


def _parts(kit: Path) -> Iterator[Path]:
    for name in PARTS:
        if (kit / name).is_dir():
            yield kit / name
            yield from sorted((kit / name).rglob("*"))
