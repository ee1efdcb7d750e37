"""From plain JSON values and ``key=value`` texts to configuration dataclasses; every error names the key."""

import copy
import dataclasses
import difflib
import json
import math
import os
import shlex
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from med_duallora.errors import ConfigError
from med_duallora.files import parsed_json

C = TypeVar("C")
TYPES = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", Path: "a path"}
MAX_SHOWN = 60


def assigned(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Return nested settings with ``key=value`` texts applied, such as ``train.n_rounds=4`` or ``device=cpu``.

    The value is read as JSON, e.g. ``lora.targets=["q","kv","fc1"]``, or as text where it is not JSON or where the
    setting was a text.

    Raises:
        ConfigError: a text has no ``=``, or names a setting that is not in ``values``; suggests the one that was meant.
    """
    changed = copy.deepcopy(dict(values))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r} is not an assignment; write key=value, for example train.n_rounds=4")
        _assign(changed, key.strip(), text.strip())
    return changed


def _assign(values: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    group: Any = values
    for parent in parents:
        group = group.get(parent) if isinstance(group, dict) else None
    if not isinstance(group, dict) or last not in group:
        raise ConfigError(unknown_setting(key, full_keys(values)))
    if isinstance(group[last], dict) and group[last]:
        inner = ", ".join(f"{key}.{name}" for name in group[last])
        raise ConfigError(f"{key!r} is a group of settings; write one of them: {inner}")
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
    """Build a configuration dataclass from plain values, checking names and types.

    Args:
        cls: which one; its field types say how values are converted.
        values: name -> plain JSON value.
        prefix: path of the group, for messages, e.g. ``"train."``.

    Raises:
        ConfigError: an unknown, missing or wrongly typed setting; names its whole path.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix or 'the configuration'} must be an object, not {type(values).__name__}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(unknown_setting(prefix + unknown[0], _keys_of(cls, prefix)))
    missing = [
        item.name
        for item in dataclasses.fields(typing.cast(Any, cls))
        if item.name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"setting {prefix + missing[0]!r} is missing; add it")
    limits = {item.name: item.metadata.get("limit") for item in dataclasses.fields(typing.cast(Any, cls))}
    return cls(**{name: _convert(hints[name], value, prefix + name, limits[name]) for name, value in values.items()})


def _keys_of(cls: Any, prefix: str) -> list[str]:
    """Return the whole names of all settings of a dataclass and of the groups in it."""
    found = []
    for name, hint in typing.get_type_hints(cls).items():
        found += _keys_of(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return found


def _convert(hint: Any, value: Any, name: str, limit: Any = None) -> Any:
    if dataclasses.is_dataclass(hint):
        return built(typing.cast(type[Any], hint), value, name + ".")
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} = {shown(value)}, but it must be a list: {_how(name, inner, value, limit)}")
        return tuple(_convert(inner, item, name) for item in value)
    if hint is Path and isinstance(value, str | Path) and _names_a_file(str(value)):
        return Path(value).expanduser()
    if hint is float and is_finite_number(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ConfigError(f"{name} = {shown(value)}, but it must be {TYPES.get(hint, f'of type {hint}')}")


def _names_a_file(text: str) -> bool:
    """Return whether an operating system could know a file by this name; JSON can write texts that none can."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def is_finite_number(value: object) -> bool:
    """Return whether a JSON value is a number that a float can hold: neither infinite, nor NaN, nor too long a row."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def shown(value: object) -> str:
    """Return a value as a message quotes it: whole where it is short."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _how(name: str, inner: Any, value: object, limit: Any) -> str:
    """Return how a list is written, with what was given where that can be guessed, and what may stand in it."""
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else [value]
    example = items if inner is str else [0.9, 0.95]
    text = shlex.quote(f"{name}={json.dumps(example, separators=(',', ':'))}")
    return f"write {text}" + (f"; it must be {limit.text}" if limit else "")
