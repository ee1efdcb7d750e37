"""Whether what a site's configuration names is there and usable: found before a job trains, not in its middle."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from med_duallora.cohorts.prepared import COHORT_TABLE
from med_duallora.errors import ConfigError
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.wanted import CHANGE_ME

_PATH = re.compile(r"(?:[A-Za-z]:)?[^\s'\"]*[/\\].*?(?=[:;]\s|['\"]|$)", re.DOTALL)


def check_places(config: SiteConfig, source: Path) -> None:
    """Refuse a site configuration whose places cannot be used.

    Args:
        config: the site scope.
        source: the file it was read from, for the message.

    Raises:
        ConfigError: names the file, and for every unusable setting its value and what to write instead.
    """
    problems = list(place_problems(config))
    if problems:
        raise ConfigError(f"site configuration {source.name} in {source.parent}: {'; '.join(problems)}")


def place_problems(config: SiteConfig) -> Iterator[str]:
    """Give one text per setting that names no usable place: the key, its value, the reason and the fix."""
    for key, path in _named(config):
        if not path.is_absolute():
            yield _text(key, path, "it is not an absolute path, and FLARE's processes start in folders of their own")
        elif str(path).startswith(CHANGE_ME):
            yield _text(key, path, "it is still the one of the template: write this site's own path")
        elif reason := _reason(key, path):
            yield _text(key, path, reason)


def _named(config: SiteConfig) -> Iterator[tuple[str, Path]]:
    for key in ("data_dir", "state_dir", "cache_dir", "backbone_checkpoint", "ledger"):
        path = getattr(config, key)
        if path is not None:
            yield key, path


def _reason(key: str, path: Path) -> str:
    if key == "data_dir":
        return _cohort(path)
    if key == "backbone_checkpoint":
        good = path.is_file() and os.access(path, os.R_OK)
        return "" if good else "it is not a readable file: write a checkpoint's path, or null for the shipped one"
    return _writable(path if key != "ledger" else path.parent)


def _cohort(path: Path) -> str:
    if not path.is_dir():
        return "there is no such folder: write the prepared cohort's, which `med-duallora prepare` makes"
    if not os.access(path, os.R_OK | os.X_OK):
        return "this account may not read it"
    if (path / COHORT_TABLE).is_file():
        return ""
    below = sorted(table.parent.name for table in path.glob(f"*/{COHORT_TABLE}"))
    hint = f"it holds several cohorts, of which this site needs one ({', '.join(below)})" if below else "write another"
    return f"it has no {COHORT_TABLE}: {hint}"


def _writable(path: Path) -> str:
    """Return why a folder can be neither used nor made; it is not made here."""
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        return f"{nearest} is not a folder: write a folder that this account can make"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"this account may not write in {nearest}"


def _text(key: str, path: Path, reason: str) -> str:
    return f"{key} = {str(path)!r}, but {reason}"


def without_paths(text: str) -> str:
    """Return a text for a log that can be read from elsewhere: paths become ``<path>``.

    A path goes from the word with its first slash to the next colon, semicolon or quote: a folder's name can hold
    blanks.
    """
    return _PATH.sub("<path>", text)
