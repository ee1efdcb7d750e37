import dataclasses
import typing

import pytest

from med_duallora.commands.config import scopes
from med_duallora.settings.docstrings import described


class Example:
    """First line.

    More text: with a colon.

    Args:
        first: what it is; a text: with a colon.
        second: one line
            and the next one.

    Raises:
        ValueError: not an argument.
    """


def test_arguments_are_read_to_the_end_of_their_section() -> None:
    assert described(Example) == {"first": "what it is; a text: with a colon.", "second": "one line and the next one."}


def test_a_class_without_arguments_has_none() -> None:
    assert described(type("Bare", (), {})) == {}


def groups(cls: type) -> list[type]:
    """Return a configuration dataclass and those in it."""
    inner = [hint for hint in typing.get_type_hints(cls).values() if dataclasses.is_dataclass(hint)]
    return [cls, *(found for hint in inner for found in groups(typing.cast(type, hint)))]


CONFIGURATIONS = [cls for scope in scopes() for cls in groups(scope.cls)]


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_every_setting_is_described_and_nothing_else(cls: type) -> None:
    hints = typing.get_type_hints(cls)
    names = {item.name for item in dataclasses.fields(cls) if not dataclasses.is_dataclass(hints[item.name])}
    # the site's policy is a group, described as a whole as well
    assert names <= set(described(cls)) <= set(hints)
    assert all(text.endswith(".") and len(text) > 15 for text in described(cls).values())
