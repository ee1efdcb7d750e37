import time
from pathlib import Path

import pytest

from med_duallora.cohorts.csvfile import read_rows, whole_number
from med_duallora.errors import CohortError


def test_rows_come_with_their_line_and_without_padding(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('\ufeff,a , b\n0, 1,"x, y"\n\n,,\n1,2 ,z\n', encoding="utf-8")
    # The byte order mark, the unnamed index column and blank rows go; line numbers are an editor's.
    assert read_rows(table, ("a", "b")) == [(2, {"a": "1", "b": "x, y"}), (5, {"a": "2", "b": "z"})]


def test_a_million_blank_rows_are_quick(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b,c,d,e\n1,2,3,4,5\n" + ",,,,\n" * 1_000_000)
    started = time.monotonic()
    assert len(read_rows(table, ("a",))) == 1
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        (b"", "column 'a'"),  # an empty file has no columns
        (b"b,c\n1,2\n", "column 'a'"),
        (b"a;b\n1;2\n", "column 'a'"),  # saved by a spreadsheet with semicolons
        (b"a,b\n1\n", "row 2"),  # a value is missing
        (b"a,b\n1,2\n1,2,3\n", "row 3"),  # an unquoted comma
        (b"a,b,a\n1,2,3\n", "'a' twice"),
        (b"a,b\n\xff\xfe,2\n", "cannot be read"),  # not UTF-8
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, content: bytes | None, named: str) -> None:
    table = tmp_path / "t.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(CohortError, match=named) as error:
        read_rows(table, ("a",))
    assert str(table) in str(error.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("012", 12),
        ("12.0", 12),  # as data frames write whole numbers beside missing ones
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("x", None),
        (".0", None),
        ("²", None),  # a digit to Unicode, not to int()
    ],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number
