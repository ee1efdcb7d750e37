import time
from pathlib import Path

import pytest

from med_duallora.cohorts.csvfile import filled, nearest, needed, read_rows, read_table, table_text, whole_number
from med_duallora.errors import CohortError, SubjectRefused


def write(folder: Path, content: bytes | str) -> Path:
    table = folder / "t.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    return table


def test_rows_come_with_their_line_and_without_padding(tmp_path: Path) -> None:
    table = write(tmp_path, '\ufeff,a , b\n0, 1,"x, y"\n\n,,\n1,2 ,z\n')
    # The byte order mark, the unnamed index column and blank rows go; line numbers are an editor's.
    assert read_rows(table, ("a", "b")) == [(2, {"a": "1", "b": "x, y"}), (5, {"a": "2", "b": "z"})]


def test_a_million_blank_rows_are_quick(tmp_path: Path) -> None:
    table = write(tmp_path, "a,b,c,d,e\n1,2,3,4,5\n" + ",,,,\n" * 1_000_000)
    started = time.monotonic()
    assert len(read_rows(table, ("a",))) == 1
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "content",
    [
        "name,ed frame\nå;b,2\n",  # a semicolon in the data does not separate
        "name;ed frame\nå;b,2\n".replace("å;b,2", '"å;b";2'),
        "name\ted frame\nå;b\t2\n",
        "sep=;\nname;ed frame\n'å;b';2\n".replace("'", '"'),  # Excel's first line
        'SEP=\t\nname\ted frame\n"å;b"\t2\n',
        '\n\nName, ED-Frame \n"å;b","2"\n',
        "NAME,ED_FRAME,,\nå;b,2,,\n",  # empty columns at the right
        "NAME,ED_FRAME\nå;b,2,,\n",
        '"name";"edFrame"\n"å;b";"2"\n',
        "name,ed_frame\rå;b,2\r",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_tables_are_read_as_any_program_writes_them(tmp_path: Path, content: str, encoding: str) -> None:
    table = write(tmp_path, content.encode(encoding))
    ((_, row),) = read_rows(table, ("name",), ("ed_frame",))
    assert row == {"name": "å;b", "ed_frame": "2"}


def test_lines_are_counted_from_the_files_first_one(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "sep=;\n\na;b\n1;2\n\n3\n"), ("a",))
    assert [number for number, _ in table.rows] == [4]
    assert [row.number for row in table.bad_rows] == [6]


@pytest.mark.parametrize(
    ("content", "rows", "bad"),
    [
        ("a,b\n1\n2,3\n", [3], [(2, "1 values, but the header has 2 columns")]),
        ("a,b\n1,2,3\n4,5\n", [3], [(2, "3 values")]),  # an unquoted comma
        # One quotation mark too few: what it swallows is said, and what follows is read.
        ('a,b\n"1,2\n3,4\n5",6\n7,8\n', [5], [(2, "goes on to row 4")]),
        ('a,b\n0,0\n1,"2\n3,4\n', [2], [(3, "goes on to row")]),  # never closed
    ],
)
def test_a_bad_row_is_set_apart_and_costs_no_other(
    tmp_path: Path, content: str, rows: list[int], bad: list[tuple[int, str]]
) -> None:
    path = write(tmp_path, content)
    table = read_table(path, ("a",))
    assert [number for number, _ in table.rows] == rows
    assert len(table.bad_rows) == len(bad)
    for row, (number, detail) in zip(table.bad_rows, bad, strict=True):
        assert (row.number, detail in row.detail) == (number, True)
    with pytest.raises(CohortError, match=f"row {bad[0][0]}: .*{bad[0][1]}"):
        read_rows(path, ("a",))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        (b"", "column 'a'"),  # an empty file has no columns
        (b"b,c\n1,2\n", "column 'a'.*commas between cells: b, c"),
        (b"b;c\n1;2\n", "column 'a'.*read as utf-8 text with semicolons between cells: b, c"),
        (b"b|a\n1|2\n", "column 'a'.*with commas between cells"),
        (b"a,b,a\n1,2,3\n", "'a' twice"),
        (b"a,b,A\n1,2,3\n", "'a' twice"),
        (b"a,b\n\x81\xfe,2\n", "cannot be read.*UTF-8"),
        (b"PK\x03\x04a,b\n", "save it as CSV"),
        (b"a,b\n" + b"x" * 200_000 + b",2\n", "cannot be read as a table"),  # no cell is that long
    ],
)
def test_unusable_tables_are_refused(tmp_path: Path, content: bytes | None, named: str) -> None:
    table = tmp_path / "t.csv" if content is None else write(tmp_path, content)
    with pytest.raises(CohortError, match=named) as error:
        read_rows(table, ("a",))
    assert str(table) in str(error.value)


def test_a_misspelt_column_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, "subject,pathologie\n1,2\n")
    with pytest.raises(CohortError, match=r"lacks the column 'pathology' \(or 'label'\).*is 'pathologie' meant"):
        read_table(table, ("subject", ("pathology", "label")))
    assert read_table(table, ("subject", ("label", "pathologie"))).columns == ("subject", "pathologie")
    assert nearest("ED_segmentatoin", ("ed_frame", "ed_segmentation")) == "ed_segmentation"
    assert nearest("weight", ("ed_frame", "ed_segmentation")) is None


@pytest.mark.parametrize("text", ["NA", "n/a", "#N/A", "nan", "NaN", "None", "null", "<NA>", "-", ""])
def test_what_programs_write_into_empty_cells_is_empty(text: str) -> None:
    assert filled({"a": text}, "a") == ""
    with pytest.raises(SubjectRefused, match=r"column a is .*empty") as refused:
        needed({"a": text}, "a")
    assert refused.value.reason == "bad-metadata"


def test_other_cells_are_full() -> None:
    assert filled({"a": "0"}, "a") == needed({"a": "0"}, "a") == "0"
    assert filled({}, "a") == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("012", 12),
        ("12.0", 12),  # as data frames write whole numbers beside missing ones
        ("12.", 12),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("x", None),
        (".0", None),
        ("²", None),  # a digit to Unicode, not to int()
        ("9" * 5000, None),  # int() refuses to read so many digits
    ],
)
def test_whole_numbers(text: str, number: int | None) -> None:
    assert whole_number(text) == number


def test_a_table_that_was_written_is_read_as_it_was(tmp_path: Path) -> None:
    rows = [{"subject": "a,b", "centre": 'the "north"'}, {"subject": "c"}]
    (tmp_path / "table.csv").write_text(table_text(["subject", "centre"], rows))
    read = [values for _, values in read_rows(tmp_path / "table.csv", ["subject", "centre"])]
    assert read == [rows[0], {"subject": "c", "centre": ""}]
