"""Literal configurations: what the messages say, and what counts as the same."""

from pathlib import Path
from typing import Any

import pytest

from med_duallora.boundary.literal import check_app, check_same, read_literal
from med_duallora.errors import ConfigError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "app" / "config" / "config_fed_client.json"
    found.parent.mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"a": {"b": [1, "x{y}"]}}', r"a\.b\[1\] is a text with a reference"),
        ('{"a": {"{b}": 1}}', "key 1 of a is a reference"),
        ('{"@a": 1}', "key 1 of the whole is a reference"),
        ('{"a": [1e999]}', r"a\[0\] is a number that is not finite"),
        ('{"a": {"b": 1, "b": 2}}', "a key stands there twice"),
        ("[]", "holds a list"),
    ],
)
def test_a_refusal_says_where_and_what_to_do_and_no_value(path: Path, text: str, where: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=where) as caught:
        read_literal(path)
    assert "x{y}" not in str(caught.value)


def test_plain_values_are_read_as_they_are(path: Path) -> None:
    path.write_text('{"a": [1, 2.5, "text", null, true, {"b": "@c"}]}')
    assert read_literal(path) == {"a": [1, 2.5, "text", None, True, {"b": "@c"}]}


def test_a_strange_name_is_quoted_and_short(path: Path) -> None:
    path.write_text("{}")
    (path.parent / f"{'x' * 150}\n.json").write_text("{}")
    with pytest.raises(ConfigError, match="none of the files of a job") as caught:
        check_app(path.parent.parent)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("built", [{"a": 1.0}, {"a": True}, {"a": "1"}, {}, {"a": 1, "b": None}, {"a": object()}, None])
def test_what_differs_in_a_byte_is_another_configuration(built: Any) -> None:
    check_same({"a": 1}, {"a": 1}, "it")
    with pytest.raises(ConfigError, match="it is not what was signed"):
        check_same({"a": 1}, built, "it")
