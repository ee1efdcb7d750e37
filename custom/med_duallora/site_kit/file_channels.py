"""Channels through the file system: what other accounts of a machine may change in a kit, or read of a site.

Modes are judged as they stand at the place itself. A folder above that is closed, and access lists, are not looked at.
"""

import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.channel import Channel
from med_duallora.site_kit.modes import KEYS, wide_modes
from med_duallora.support.private import OTHERS, OTHERS_WRITE

MOST_NAMED = 4
PLACES = {
    "data_dir": "prepared images",
    "state_dir": "local states and predictions",
    "cache_dir": "trunk features",
}
"""Folders of a site configuration, and what in them is of patients."""


def kit_files(kit: Path) -> Iterator[Channel]:
    """Give what other accounts may change in a startup kit, and whether they can read its private keys."""
    wide = wide_modes(kit)
    writable = [item.path for item in wide if item.before & OTHERS_WRITE]
    found = _modes(writable) or "local/ and startup/ can be changed by their owner only"
    fix = f"chmod go-w {_named(kit, writable)}" if writable else ""
    yield Channel("the kit changed by other accounts of this machine", bool(writable), found, fix)
    keys = [path for pattern in KEYS for path in sorted(kit.glob(pattern))]
    readable = [path for path in keys if stat.S_IMODE(path.stat().st_mode) & OTHERS]
    found = _modes(readable) or "startup/: private keys are for their owner only"
    fix = f"chmod 600 {_quoted(readable)}" if readable else ""
    yield Channel("private keys of the kit read by other accounts of this machine", bool(readable), found, fix)


def site_files(config: SiteConfig) -> Iterator[Channel]:
    """Give which folders of a site configuration other accounts may read, and whether they can change the ledger."""
    for key, what in PLACES.items():
        yield _folder(key, getattr(config, key), what)
    ledger = config.ledger_path
    writable = [path for path in (ledger, ledger.parent) if path.exists() and path.stat().st_mode & OTHERS_WRITE]
    found = _modes(writable) or "ledger: it and its folder can be changed by their owner only"
    fix = f"chmod go-w {_quoted(writable)}" if writable else ""
    yield Channel("the ledger changed by other accounts of this machine", bool(writable), found, fix)


def _folder(key: str, place: Path, what: str) -> Channel:
    name = f"{what} read by other accounts of this machine"
    if not place.exists():
        return Channel(name, False, f"{key}: not there yet")
    status = place.stat()
    # who is let in by the group of a folder that belongs to somebody else is that owner's decision
    rights = OTHERS if status.st_uid == os.geteuid() else OTHERS & 0o007
    is_open = bool(status.st_mode & rights)
    fix = f"chmod {'go' if rights == OTHERS else 'o'}-rwx {shlex.quote(str(place))}" if is_open else ""
    return Channel(name, is_open, f"{key}: {_modes([place])}", fix)


def _modes(places: Sequence[Path]) -> str:
    if not places:
        return ""
    more = f", and {len(places) - 1} more like it" if len(places) > 1 else ""
    return f"{places[0]} has mode {stat.S_IMODE(places[0].stat().st_mode):o}{more}"


def _named(kit: Path, places: Sequence[Path]) -> str:
    """Return what a command names: the places, or the whole kit where these are many."""
    if len(places) > MOST_NAMED:
        return f"-R {shlex.quote(str(kit))}"
    return _quoted(places)


def _quoted(places: Sequence[Path]) -> str:
    return " ".join(shlex.quote(str(place)) for place in places)
