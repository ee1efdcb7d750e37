"""The settings of every scope as plain entries, for people: what docs/settings.md and ``med-duallora config`` show."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS
from med_duallora.backbone.config import PRESETS
from med_duallora.errors import InputError
from med_duallora.reference.docstrings import described
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.limits import KEY

TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
PLURALS = {str: "texts", float: "numbers"}
REQUIRED = "(required)"
ELSEWHERE = {
    "method": f"one of {', '.join(METHODS)}",
    "backbone": f"one of {', '.join(PRESETS)}",
    "aggregation": f"empty, or one of {', '.join(AGGREGATIONS)}",
}
"""Limits that are checked where the values are used, not in the constructor."""


@dataclass(frozen=True)
class Scope:
    """Settings that belong together, with one way to set them.

    Args:
        name: job, workflow or site.
        title: of its section.
        summary: who sets it, and where it goes.
        cls: the dataclass, which may hold others.
        prefix: of all its keys, e.g. ``"workflow."``.
        option: of the command line.
    """

    name: str
    title: str
    summary: str
    cls: type[Any]
    prefix: str
    option: str


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        key: as ``--set`` or ``--site-set`` takes it.
        scope: what it belongs to.
        kind: the type of its values, in words.
        default: as JSON, or ``REQUIRED``.
        limit: what values are allowed; empty: any of that type.
        meaning: one or more sentences, with code in double backticks.
    """

    key: str
    scope: Scope
    kind: str
    default: str
    limit: str
    meaning: str

    @property
    def example(self) -> str:
        """Return how it is set on a command line."""
        value = "VALUE" if self.default == REQUIRED else self.default.strip('"') or "VALUE"
        return f"{self.scope.option} {self.key}={value}"


JOB = Scope(
    "job",
    "Job settings",
    "What every site of a federation agrees on; it travels with the job.",
    JobConfig,
    "",
    "--set",
)
SITE = Scope(
    "site",
    "Site settings",
    "What a site decides for itself, in its JSON file; nothing of it ever leaves the site. `site-kit` writes stricter "
    "values of `policy` than these defaults, which suit a study on one machine.",
    SiteConfig,
    "",
    "--site-set",
)


def settings_of(scope: Scope) -> list[Setting]:
    """Return the settings of a scope, those of the groups in it included, in the order of the dataclasses."""
    return list(_settings(scope, scope.cls, scope.prefix))


def _settings(scope: Scope, cls: type[Any], prefix: str) -> Iterator[Setting]:
    hints, meanings = typing.get_type_hints(cls), described(cls)
    for item in dataclasses.fields(cls):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from _settings(scope, typing.cast(type[Any], hint), f"{prefix}{item.name}.")
            continue
        key = prefix + item.name
        limit = item.metadata[KEY].text if KEY in item.metadata else ELSEWHERE.get(key, "")
        yield Setting(key, scope, _kind(hint), _default(item), limit, meanings[item.name])


def _kind(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        inner = next(option for option in typing.get_args(hint) if option is not types.NoneType)
        return f"{_kind(inner)} or null"
    if typing.get_origin(hint) is tuple:
        return f"list of {PLURALS[typing.get_args(hint)[0]]}"
    return TYPES[hint]


def _default(item: "dataclasses.Field[Any]") -> str:
    return REQUIRED if item.default is dataclasses.MISSING else json.dumps(item.default)


def values_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested plain values as key -> JSON text."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= values_of(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = json.dumps(value)
    return found


def find_setting(key: str, settings: Iterable[Setting]) -> Setting:
    """Return the setting of a key; its last part is enough where only one setting has it.

    Raises:
        InputError: there is none, or several; names the one that was most likely meant.
    """
    by_key = {setting.key: setting for setting in settings}
    if key in by_key:
        return by_key[key]
    same_end = [name for name in by_key if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if len(same_end) == 1 and "." not in key:
        return by_key[same_end[0]]
    ends = {name.rpartition(".")[2]: name for name in by_key}
    near = same_end or difflib.get_close_matches(key, by_key, n=1)
    near = near or [ends[name] for name in difflib.get_close_matches(key.rpartition(".")[2], ends, n=1)]
    meant = f"; did you mean {' or '.join(near)}?" if near else "; `med-duallora config show` lists all settings"
    raise InputError(f"unknown setting {key!r}{meant}")
