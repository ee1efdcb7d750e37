"""From plain JSON values and ``key=value`` texts to configuration dataclasses; every error names the key.

``--set`` and ``--site-set`` have one grammar, ``parsed``, whatever the setting belongs to. Reading only brings a value
into the form that its field has; whether it may be that value is the constructor's to say (``limits.check_limits``).
"""

import copy
import dataclasses
import difflib
import json
import shlex
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from med_duallora.errors import ConfigError
from med_duallora.settings.kinds import (
    GROUP,
    holds,
    is_finite_number,
    is_group,
    items_of,
    kinds_of,
    names_a_file,
    without_none,
)
from med_duallora.settings.limits import limit_of
from med_duallora.support.files import parsed_json

C = TypeVar("C")


def parsed(assignments: Iterable[str]) -> dict[str, str]:
    """Return ``key=value`` texts as key -> text of the value; of a key that comes twice, the later text counts.

    Raises:
        ConfigError: a text has no ``=``.
    """
    found = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r} is not an assignment; write key=value, for example train.n_rounds=4")
        found[key.strip()] = text.strip()
    return found


def assigned(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Return nested settings with ``key=value`` texts applied, such as ``train.n_rounds=4`` or ``device=cpu``.

    The value is read as JSON, e.g. ``lora.targets=["q","kv","fc1"]``, or as text where it is not JSON or where the
    setting was a text.

    Raises:
        ConfigError: a text has no ``=``, or names a setting that is not in ``values``; suggests the one that was meant.
    """
    changed = copy.deepcopy(dict(values))
    for key, text in parsed(assignments).items():
        _assign(changed, key, text)
    return changed


def _assign(values: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    group: Any = values
    for parent in parents:
        group = group.get(parent) if isinstance(group, dict) else None
    if not isinstance(group, dict) or last not in group:
        raise ConfigError(unknown_setting(key, full_keys(values)), key=key, value=text)
    if isinstance(group[last], dict) and group[last]:
        inner = ", ".join(f"{key}.{name}" for name in group[last])
        raise ConfigError(f"{key!r} is a group of settings; write one of them: {inner}", key=key, value=text)
    value = _parse(text)
    # experiment=2024 is a text, as are 64 hexadecimal digits without a letter among them
    group[last] = text if isinstance(group[last], str) and not isinstance(value, str) else value


def full_keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the whole names of all settings in nested values, such as ``train.n_rounds``."""
    found = []
    for name, value in values.items():
        nested = isinstance(value, dict) and value
        found += full_keys(value, f"{prefix}{name}.") if nested else [prefix + name]
    return found


def unknown_setting(key: str, known: Iterable[str]) -> str:
    """Return what to say about a name that is not a setting: which one was most likely meant.

    Args:
        key: what was written, with or without its group, right or misspelt.
        known: whole names of all settings.
    """
    known = list(known)
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    last = key.rpartition(".")[2]
    meant = [name for name in known if name.rpartition(".")[2] == last]
    meant = meant or [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1)]
    if meant:
        return f"unknown setting {key!r}; did you mean {' or '.join(meant)}?"
    return f"unknown setting {key!r}; there are {', '.join(known)}"


def _parse(text: str) -> Any:
    try:
        return parsed_json(text)
    except ValueError:
        return text


def built(cls: type[C], values: Mapping[str, Any], prefix: str) -> C:
    """Build a configuration dataclass from plain values; its constructor checks them.

    Args:
        cls: which one; its field types say how values are converted.
        values: name -> plain JSON value.
        prefix: path of the group, for messages, e.g. ``"train."``.

    Raises:
        ConfigError: an unknown or missing setting, or one out of its limit; names its whole path.
    """
    if not isinstance(values, Mapping):
        raise ConfigError.of(prefix.removesuffix(".") or "the configuration", values, GROUP)
    kinds = kinds_of(cls)
    unknown = sorted(set(values) - set(kinds))
    if unknown:
        key = prefix + unknown[0]
        raise ConfigError(unknown_setting(key, _keys_of(cls, prefix)), key=key, value=values[unknown[0]])
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    missing = [name for name, field in fields.items() if name not in values and _is_required(field)]
    if missing:
        key = prefix + missing[0]
        raise ConfigError(f"setting {key!r} is missing; add it", key=key)
    return cls(**{name: _converted(kinds[name], value, prefix, fields[name]) for name, value in values.items()})


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _keys_of(cls: Any, prefix: str) -> list[str]:
    """Return the whole names of all settings of a dataclass and of the groups in it."""
    found = []
    for name, kind in kinds_of(cls).items():
        found += _keys_of(kind, f"{prefix}{name}.") if is_group(kind) else [prefix + name]
    return found


def _converted(kind: Any, value: Any, prefix: str, field: "dataclasses.Field[Any]") -> Any:
    """Return a plain value in the form that a field has; unchanged where it has none, which the constructor refuses."""
    kind, _ = without_none(kind)
    key = prefix + field.name
    if is_group(kind):
        return built(typing.cast(type[Any], kind), value, f"{key}.")
    items = items_of(kind)
    if items is None:
        return _one(kind, value)
    if isinstance(value, list | tuple):
        found = [_one(items, item) for item in value]
        return typing.get_origin(kind)(found) if all(holds(items, item) for item in found) else found
    raise ConfigError.of(key, value, "a list", _how(key, items, value, field))


def _one(kind: Any, value: Any) -> Any:
    if kind is float and is_finite_number(value):
        return float(value)
    if kind is Path and isinstance(value, str | Path) and names_a_file(str(value)):
        return Path(value).expanduser()
    return value


def _how(key: str, items: Any, value: object, field: "dataclasses.Field[Any]") -> str:
    """Return how a list is written, with what was given where that can be guessed, and what may stand in it."""
    given = [item.strip() for item in value.split(",")] if isinstance(value, str) else [value]
    example = given if items is str else [0.9, 0.95]
    text = shlex.quote(f"{key}={json.dumps(example, separators=(',', ':'))}")
    limit = limit_of(field)
    return f"write {text}" + (f"; it must be {limit.text}" if limit else "")
