"""The kinds of values that a setting may have: their names for people, and whether a value is of one.

A kind is the type hint of a field: int, float, str, bool, Path, a tuple or a frozenset of these, one of them or None,
or a dataclass, which is a group of settings.
"""

import dataclasses
import math
import os
import types
import typing
from pathlib import Path
from typing import Any

WORDS = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", Path: "a path"}
PLURALS = {int: "whole numbers", float: "finite numbers", str: "texts", Path: "paths"}
GROUP = "a group of settings, written as {...}"
LISTS = (tuple, frozenset)


def kinds_of(cls: Any) -> dict[str, Any]:
    """Return field -> kind of a configuration dataclass."""
    return typing.get_type_hints(cls)


def is_group(kind: Any) -> bool:
    """Return whether a kind is a group of settings."""
    return dataclasses.is_dataclass(kind)


def without_none(kind: Any) -> tuple[Any, bool]:
    """Return a kind without None, and whether None is allowed."""
    if not isinstance(kind, types.UnionType):
        return kind, False
    (inner,) = (option for option in typing.get_args(kind) if option is not types.NoneType)
    return inner, True


def items_of(kind: Any) -> Any:
    """Return the kind of a list's items; None where it is not a list."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) in LISTS else None


def named(kind: Any) -> str:
    """Return a kind in words, with its article: completes "it must be ..."."""
    inner, optional = without_none(kind)
    if optional:
        return f"{named(inner)} or null"
    if is_group(kind):
        return GROUP
    items = items_of(kind)
    return WORDS[kind] if items is None else f"a list of {PLURALS[items]}"


def holds(kind: Any, value: object) -> bool:
    """Return whether a value is of a kind; a whole number serves as a float, a truth value serves as no number."""
    inner, optional = without_none(kind)
    if optional:
        return value is None or holds(inner, value)
    if is_group(kind):
        return isinstance(value, kind)
    items = items_of(kind)
    if items is not None:
        container = typing.get_origin(kind)
        return isinstance(value, container) and all(holds(items, item) for item in typing.cast(Any, value))
    if kind is Path:
        return isinstance(value, Path) and names_a_file(str(value))
    return is_finite_number(value) if kind is float else type(value) is kind


def names_a_file(text: str) -> bool:
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
