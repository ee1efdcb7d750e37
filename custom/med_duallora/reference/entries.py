"""The settings of every scope as plain entries, for people: what docs/settings.md and ``med-duallora config`` show."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS
from med_duallora.backbone.config import PRESETS
from med_duallora.errors import InputError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.docstrings import described
from med_duallora.settings.kinds import is_group, kinds_of, named
from med_duallora.settings.limits import limit_of
from med_duallora.settings.workflow import WorkflowConfig

REQUIRED = "(required)"
TABLES = (METHODS, AGGREGATIONS, PRESETS)
"""Loaded here, because they hand down the names that settings may have; see ``limits.Names``."""


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
WORKFLOW = Scope(
    "workflow",
    "Workflow settings",
    "How the server waits for the sites; it travels with the job.",
    WorkflowConfig,
    "workflow.",
    "--set",
)
SITE = Scope(
    "site",
    "Site settings",
    "What a site decides for itself, in its JSON file; nothing of it ever leaves the site. The defaults of "
    "`policy` are the strict ones that `site-kit` writes; a site's file must name every key of it.",
    SiteConfig,
    "",
    "--site-set",
)


def settings_of(scope: Scope) -> list[Setting]:
    """Return the settings of a scope, those of the groups in it included, in the order of the dataclasses."""
    return list(_settings(scope, scope.cls, scope.prefix))


def _settings(scope: Scope, cls: type[Any], prefix: str) -> Iterator[Setting]:
    kinds, meanings = kinds_of(cls), described(cls)
    for item in dataclasses.fields(cls):
        kind, key = kinds[item.name], prefix + item.name
        if is_group(kind):
            yield from _settings(scope, kind, f"{key}.")
            continue
        limit = limit_of(item)
        words = named(kind).removeprefix("a ").replace("finite ", "")  # the limit of each number is a range
        yield Setting(key, scope, words, _default(item), limit.text if limit else "", meanings[item.name])


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
