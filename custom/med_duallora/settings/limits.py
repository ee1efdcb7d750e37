"""What a setting may be, kept with its field, so that there is no second list of limits.

A configuration dataclass writes ``rank: int = limited(8, between(0, 256))`` and calls ``check_limits(self, "lora.")``
in ``__post_init__``; that is all it says about its limits. The type of a field is a limit, too, and needs no more
words. Errors, docs/settings.md and ``med-duallora config`` read the same fields.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from med_duallora.errors import ConfigError
from med_duallora.settings.kinds import holds, kinds_of, named

T = TypeVar("T")
SHA256 = re.compile("[0-9a-f]{64}")
KEY = "limit"


class AnyLimit(Protocol):
    """What a field's limit can do: see ``Limit``, whose arguments these are."""

    @property
    def text(self) -> str:
        """Return what completes "it must be ..."."""

    def holds(self, value: Any, /) -> bool:
        """Return whether a value of the right type is allowed."""

    def fits(self, config: Any, /) -> bool:
        """Return whether the value suits the other settings of its group."""


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True)
class Limit:
    """What values a setting may have.

    Args:
        text: completes "it must be ...".
        holds: whether a value of the right type is one of them.
        fits: whether it suits the other settings of its group; asked once each of them holds by itself.
    """

    text: str
    holds: Callable[[Any], bool]
    fits: Callable[[Any], bool] = _always

    def also(self, text: str, fits: Callable[[Any], bool]) -> "Limit":
        """Return the same limit with one more condition, on the whole group of settings."""
        return Limit(f"{self.text}; {text}", self.holds, fits)


class Names:
    """A limit whose names stand in a table of a higher room, which hands it down when it is loaded.

    Settings cannot import the rooms that give these names their meaning, and a second list of them would have to be
    kept. Whoever uses a name (as ``method_of`` does) has loaded the table; before that, every text is a possible name.
    """

    def __init__(self, what: str, optional: bool = False) -> None:
        self._what = what
        self._optional = optional
        self._table: Collection[str] | None = None

    def stand_in(self, table: Collection[str]) -> None:
        """Take the table that holds the names, a mapping or a collection; what is added to it later counts as well."""
        self._table = table

    @property
    def text(self) -> str:
        """Return the names, in the table's order."""
        names = f"the name of {self._what}" if self._table is None else f"one of {', '.join(self._table)}"
        return f"empty, or {names}" if self._optional else names

    def holds(self, value: str) -> bool:
        """Return whether a text is one of the names."""
        return self._table is None or value in self._table or (self._optional and not value)

    def fits(self, _: object) -> bool:
        """Return that a name suits all other settings."""
        return True


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

    def all_known(given: Sequence[str]) -> bool:
        return bool(given) and set(given) <= set(values) and len(set(given)) == len(given)

    return Limit(f"one or more of {', '.join(values)}, without repetition", all_known)


def sha256_or_empty() -> Limit:
    """Allow a hash, or nothing."""
    return Limit(
        "empty, or 64 lower-case hexadecimal digits", lambda value: not value or SHA256.fullmatch(value) is not None
    )


def limited(default: T, limit: AnyLimit) -> T:
    """Return a dataclass field with a default and its limit."""
    field: T = dataclasses.field(default=default, metadata={KEY: limit})
    return field


def limit_of(field: "dataclasses.Field[Any]") -> AnyLimit | None:
    """Return the limit of a dataclass field; None: every value of its type is allowed."""
    limit: AnyLimit | None = field.metadata.get(KEY)
    return limit


def check_limits(config: Any, prefix: str) -> None:
    """Check every field of a configuration: its type, its limit, and what its limit says of the other fields.

    Args:
        config: an instance of a configuration dataclass.
        prefix: of the settings' names, e.g. ``"lora."``.

    Raises:
        ConfigError: of the first setting that is out of its limit.
    """
    kinds, fields = kinds_of(type(config)), dataclasses.fields(config)
    for field in fields:
        value, limit = getattr(config, field.name), limit_of(field)
        if not holds(kinds[field.name], value):
            raise ConfigError.of(prefix + field.name, value, named(kinds[field.name]))
        if limit and value is not None and not limit.holds(value):
            raise ConfigError.of(prefix + field.name, value, limit.text)
    for field in fields:
        limit = limit_of(field)
        if limit and not limit.fits(config):
            raise ConfigError.of(prefix + field.name, getattr(config, field.name), limit.text)


def _number(value: float) -> str:
    """Return a number as a person writes it."""
    return "2**31 - 1" if value == 2**31 - 1 else str(value) if isinstance(value, int) else f"{value:g}"
