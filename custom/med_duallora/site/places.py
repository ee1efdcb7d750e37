"""Whether what a site's configuration names is there and usable: found before a job trains, not in its middle."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from med_duallora.cohorts.prepared import COHORT_TABLE
from med_duallora.settings.config import SiteConfig
from med_duallora.site.problem import Problem

CHANGE_ME = "/CHANGE-ME"
"""How the places of a site configuration begin that its administrator has not filled in yet."""
SEVERAL = "it holds several cohorts, of which this site needs one"
_PATH = re.compile(r"(?:[A-Za-z]:)?[^\s'\"]*[/\\].*?(?=[:;]\s|['\"]|$)", re.DOTALL)


def place_problems(config: SiteConfig, in_flare: bool = True) -> Iterator[Problem]:
    """Give one problem per setting that names no usable place.

    Args:
        config: the site scope.
        in_flare: whether paths must be absolute, because FLARE's processes start in folders of their own.
    """
    for key, path in _named(config):
        if in_flare and not path.is_absolute():
            reason = "it is not an absolute path, and FLARE's processes start in folders of their own"
            yield _problem(key, path, reason, "write the whole path")
        elif str(path).startswith(CHANGE_ME):
            yield _problem(key, path, "it is still the one of the template", "write this site's own path")
        elif found := _reason(key, path):
            yield _problem(key, path, *found)


def _named(config: SiteConfig) -> Iterator[tuple[str, Path]]:
    for key in ("data_dir", "state_dir", "cache_dir", "backbone_checkpoint", "ledger"):
        path = getattr(config, key)
        if path is not None:
            yield key, path


def _reason(key: str, path: Path) -> tuple[str, str] | None:
    """Return why a place cannot be used, and what to do."""
    if key == "data_dir":
        return _cohort(path)
    if key == "backbone_checkpoint":
        good = path.is_file() and os.access(path, os.R_OK)
        return None if good else ("it is not a readable file", "write a checkpoint's path, or null for the shipped one")
    return _writable(path if key != "ledger" else path.parent)


def _cohort(path: Path) -> tuple[str, str] | None:
    if not path.is_dir():
        return "there is no such folder", "write the prepared cohort's, which `med-duallora prepare` makes"
    if not os.access(path, os.R_OK | os.X_OK):
        return "this account may not read it", "let it"
    if (path / COHORT_TABLE).is_file():
        return None
    below = sorted(table.parent.name for table in path.glob(f"*/{COHORT_TABLE}"))
    hint = f"{SEVERAL} ({', '.join(below)})" if below else "write another"
    return f"it has no {COHORT_TABLE}", hint


def _writable(path: Path) -> tuple[str, str] | None:
    """Return why a folder can be neither used nor made; it is not made here."""
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if not nearest.is_dir():
        return f"{nearest} is not a folder", "write a folder that this account can make"
    good = os.access(nearest, os.W_OK | os.X_OK)
    return None if good else (f"this account may not write in {nearest}", "let it, or write another folder")


def _problem(key: str, path: Path, reason: str, todo: str) -> Problem:
    return Problem(key, f"{key} = {str(path)!r}, but {reason}", todo, is_private=todo.startswith(SEVERAL))


def without_paths(text: str) -> str:
    """Return a text for a log that can be read from elsewhere: paths become ``<path>``.

    A path goes from the word with its first slash to the next colon, semicolon or quote: a folder's name can hold
    blanks.
    """
    return _PATH.sub("<path>", text)
