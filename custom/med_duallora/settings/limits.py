"""What a setting may be: a text and a test of it, kept with the field, so that there is no second list of limits.

A configuration dataclass writes ``rank: int = limited(8, between(0, 256))`` and calls ``check_limits(self, "lora.")``
in ``__post_init__``. What depends on two settings is checked there as well, by ``refuse``, and is part of the text.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from med_duallora.errors import ConfigError
from med_duallora.settings.reading import shown

T = TypeVar("T")
SHA256 = re.compile("[0-9a-f]{64}")
KEY = "limit"


@dataclass(frozen=True)
class Limit:
    """What values a setting may have.

    Args:
        text: completes "it must be ...".
        holds: whether a value of the right type is one of them.
    """

    text: str
    holds: Callable[[Any], bool]

    def also(self, text: str) -> "Limit":
        """Return the same limit with one more condition in its text, which the constructor checks."""
        return Limit(f"{self.text}; {text}", self.holds)


def between(low: float, high: float) -> Limit:
    """Allow ``low`` to ``high``, both included."""
    return Limit(f"between {_number(low)} and {_number(high)}", lambda value: low <= value <= high)


def above(low: float, most: float) -> Limit:
    """Allow more than ``low``, up to ``most``."""
    return Limit(f"above {_number(low)} and at most {_number(most)}", lambda value: low < value <= most)


def below(low: float, end: float) -> Limit:
    """Allow ``low`` or more, but less than ``end``."""
    return Limit(f"at least {_number(low)} and below {_number(end)}", lambda value: low <= value < end)


def one_of(*values: str) -> Limit:
    """Allow these texts."""
    return Limit(f"one of {', '.join(values)}", lambda value: value in values)


def some_of(*values: str) -> Limit:
    """Allow a list of these texts, each at most once."""

    def holds(given: Sequence[str]) -> bool:
        return bool(given) and set(given) <= set(values) and len(set(given)) == len(given)

    return Limit(f"one or more of {', '.join(values)}, without repetition", holds)


def sha256_or_empty() -> Limit:
    """Allow a hash, or nothing."""
    return Limit(
        "empty, or 64 lower-case hexadecimal digits", lambda value: not value or SHA256.fullmatch(value) is not None
    )


def limited(default: T, limit: Limit) -> T:
    """Return a dataclass field with a default and its limit."""
    field: T = dataclasses.field(default=default, metadata={KEY: limit})
    return field


def check_limits(config: Any, prefix: str) -> None:
    """Check every field of a configuration that has a limit.

    Args:
        config: an instance of a configuration dataclass.
        prefix: of the settings' names, e.g. ``"lora."``.

    Raises:
        ConfigError: names the first setting that is out of its limit, its value and the limit.
    """
    for item in dataclasses.fields(config):
        limit = item.metadata.get(KEY)
        if limit is not None and not limit.holds(getattr(config, item.name)):
            refuse(config, item.name, prefix)


def refuse(config: Any, name: str, prefix: str) -> NoReturn:
    """Raise the ConfigError that names a setting, its value and its limit."""
    (item,) = (item for item in dataclasses.fields(config) if item.name == name)
    raise ConfigError(f"{prefix}{name} = {shown(getattr(config, name))}, but it must be {item.metadata[KEY].text}")


def _number(value: float) -> str:
    """Return a number as a person writes it."""
    return "2**31 - 1" if value == 2**31 - 1 else str(value) if isinstance(value, int) else f"{value:g}"
