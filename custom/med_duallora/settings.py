"""From plain JSON values and ``key=value`` texts to configuration dataclasses; every error names the key."""

import copy
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from med_duallora.errors import ConfigError

C = TypeVar("C")


def assigned(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Return nested settings with ``key=value`` texts applied, such as ``train.n_rounds=4`` or ``device=cpu``.

    The value is read as JSON, e.g. ``lora.targets=["q","kv","fc1"]``, or as text where it is not JSON.

    Raises:
        ConfigError: a text has no ``=``, or names a setting that is not in ``values``.
    """
    changed = copy.deepcopy(dict(values))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"{assignment!r} is not an assignment; write key=value, for example train.n_rounds=4")
        _assign(changed, key.strip(), _parse(text.strip()))
    return changed


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        child = values.get(parent)
        if not isinstance(child, dict):
            raise ConfigError(f"unknown setting {key!r}; there is no group {parent!r}")
        values = child
    if last not in values:
        raise ConfigError(_unknown(key, values))
    values[last] = value


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
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
        raise ConfigError(_unknown(prefix + unknown[0], hints))
    missing = [
        item.name
        for item in dataclasses.fields(typing.cast(Any, cls))
        if item.name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"setting {prefix + missing[0]!r} is missing; add it")
    return cls(**{name: _convert(hints[name], value, prefix + name) for name, value in values.items()})


def _unknown(path: str, known: Iterable[str]) -> str:
    """Return what to say about a setting that is not known: the one that was meant, where it can be guessed."""
    *_, name = path.split(".")
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown setting {path!r}; {meant}known here: {', '.join(sorted(known))}"


def _convert(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return built(typing.cast(type[Any], hint), value, name + ".")
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} = {value!r}, but it must be a list")
        return tuple(_convert(typing.get_args(hint)[0], item, name) for item in value)
    if hint is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ConfigError(f"{name} = {value!r}, but it must be of type {getattr(hint, '__name__', hint)}")
