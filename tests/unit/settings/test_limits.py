from dataclasses import dataclass

import pytest

from med_duallora.errors import ConfigError
from med_duallora.settings.limits import (
    Limit,
    Names,
    above,
    below,
    between,
    check_limits,
    limited,
    one_of,
    sha256_or_empty,
    some_of,
)


@pytest.mark.parametrize(
    ("limit", "good", "bad", "text"),
    [
        (between(0, 256), [0, 256], [-1, 257], "between 0 and 256"),
        (between(1, 1e6), [1.0, 1e6], [0.9, 1e7, float("nan")], "between 1 and 1e+06"),
        (between(0, 2**31 - 1), [2**31 - 1], [2**31], "between 0 and 2**31 - 1"),
        (above(0, 1), [1e-9, 1], [0, 1.1, float("nan")], "above 0 and at most 1"),
        (below(0, 1), [0, 0.999], [1, -0.1, float("nan")], "at least 0 and below 1"),
        (one_of("a", "b"), ["a"], ["c", ""], "one of a, b"),
        (some_of("a", "b"), [("a",), ("b", "a")], [(), ("a", "a"), ("c",)], "one or more of a, b, without repetition"),
        (sha256_or_empty(), ["", "0f" * 32], ["0F" * 32, "0f"], "empty, or 64 lower-case hexadecimal digits"),
    ],
    ids=lambda item: item.text if isinstance(item, Limit) else None,
)
def test_a_limit_says_what_it_tests(limit: Limit, good: list[object], bad: list[object], text: str) -> None:
    assert limit.text == text
    assert all(limit.holds(value) for value in good)
    assert not any(limit.holds(value) for value in bad)


@dataclass(frozen=True)
class Pair:
    low: int = limited(0, between(0, 9))
    high: int = limited(5, between(0, 9).also("above low", lambda pair: pair.high > pair.low))
    free: str = ""

    def __post_init__(self) -> None:
        check_limits(self, "pair.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": -1}, "pair.low = -1, but it must be between 0 and 9"),
        ({"high": 10}, "pair.high = 10, but it must be between 0 and 9; above low"),
        ({"low": 7}, "pair.high = 5, but it must be between 0 and 9; above low"),
    ],
)
def test_the_constructor_refuses_with_the_same_text(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Pair(**values)
    assert str(caught.value) == message
    assert f"{caught.value.key} = {caught.value.value}, but it must be {caught.value.limit}" == message


def test_what_is_within_its_limits_passes() -> None:
    assert (Pair(low=4).high, Pair().free) == (5, "")


def test_names_are_those_of_the_table_that_was_handed_down() -> None:
    names, table = Names("a metal"), {"iron": 26}
    assert names.text == "the name of a metal" and names.holds("gold"), "whoever looks a name up has the table"
    names.stand_in(table)
    assert (names.text, names.holds("iron"), names.holds("gold")) == ("one of iron", True, False)
    table["gold"] = 79
    assert (names.text, names.holds("gold")) == ("one of iron, gold", True)
