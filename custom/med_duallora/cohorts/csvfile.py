"""Tables of raw and prepared cohorts: text with a header line, as people's programs write it."""

import csv
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.textfile import read_text
from med_duallora.errors import CohortError, SubjectRefused

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}

# What programs and people write into a cell that is empty, without regard to case.
BLANKS = frozenset(("", "-", "--", "na", "n/a", "#n/a", "<na>", "nan", "none", "null"))

Column = str | tuple[str, ...]
"""A column's name, or names of which a table needs one."""


@dataclass(frozen=True)
class BadRow:
    """A row whose cells do not fit the columns.

    Args:
        number: its line as an editor shows it.
        values: its first cells by column; they may stand in the wrong columns.
        detail: what is wrong with it.
    """

    number: int
    values: Mapping[str, str]
    detail: str


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Args:
        columns: names of the columns, those without a name left out.
        rows: (line number as an editor shows it, values by column) of every row that is not blank.
        bad_rows: rows of another length than the header.
    """

    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]
    bad_rows: list[BadRow]


def read_table(path: Path, required: Sequence[Column], optional: Sequence[str] = (), *, hint: str = "") -> Table:
    """Read a table with a header line; cells are stripped.

    Cells are separated by commas, semicolons or tabs: by what a first line ``sep=;`` says, else by what finds
    most of the known columns in the header line. A known column counts in any case, and with blanks, hyphens
    or nothing for its underscores; it is returned by its known name. Unnamed columns, such as the index that data
    frames write first, are left out. Blank rows cost little: M&Ms-2's table ends in about a million of them.

    Args:
        path: the table; see ``textfile.read_text`` for encodings.
        required: columns that must be there; a tuple stands for columns of which one must be.
        optional: further columns that are known; others may be there, too.
        hint: what to do when the file does not exist.

    Raises:
        CohortError: no such file, unreadable text, a missing or repeated column.
    """
    try:
        text, encoding = read_text(path)
    except FileNotFoundError as error:
        raise CohortError(f"{path} does not exist{hint and '; '}{hint}") from error
    known = {column_key(name): name for name in (*_flat(required), *optional)}
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    separator = _declared_separator(lines[first])
    if separator:
        first += 1
    separator = separator or _best_separator(lines[first:], known)
    try:
        cells = list(_rows(lines, first, separator))
    except csv.Error as error:
        raise CohortError(f"{path} cannot be read as a table: {error}") from error
    header = [known.get(column_key(cell), cell) for cell in cells[0][2]] if cells else []
    _check_header(path, header, required, f"read as {encoding} text with {SEPARATORS[separator]} between cells")
    return _table(header, cells[1:])


def read_rows(
    path: Path, required: Sequence[Column], optional: Sequence[str] = (), *, hint: str = ""
) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of ``read_table`` where no row may be lost; a bad one is a CohortError, too."""
    table = read_table(path, required, optional, hint=hint)
    if table.bad_rows:
        raise CohortError(f"{path}, row {table.bad_rows[0].number}: {table.bad_rows[0].detail}")
    return table.rows


def column_key(name: str) -> str:
    """Return a column's name as columns are compared: letters and digits in lower case."""
    return re.sub(r"[\W_]+", "", name.casefold())


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known column that ``name`` may be a misspelling of."""
    keys = {column_key(column): column for column in known}
    close = difflib.get_close_matches(column_key(name), list(keys), 1)
    return keys[close[0]] if close else None


def whole_number(text: str) -> int | None:
    """Return the whole number that ``text`` writes, also as ``12.0``; None for anything else."""
    written = re.fullmatch(r"([0-9]{1,15})(?:\.0*)?", text)
    return int(written[1]) if written else None


def filled(row: Mapping[str, str], column: str) -> str:
    """Return an optional cell's text; "" where the column is missing or the cell means empty (``BLANKS``)."""
    text = row.get(column, "")
    return "" if text.casefold() in BLANKS else text


def needed(row: Mapping[str, str], column: str, reason: str = "bad-metadata") -> str:
    """Return a required cell's text; SubjectRefused where it means empty."""
    if not filled(row, column):
        written = f"{row[column]!r}, which means empty" if row.get(column) else "empty"
        raise SubjectRefused(reason, f"column {column} is {written}; every row must fill it in")
    return row[column]


def _flat(columns: Sequence[Column]) -> list[str]:
    return [name for column in columns for name in ((column,) if isinstance(column, str) else column)]


def _declared_separator(line: str) -> str:
    """Return what Excel's first line ``sep=;`` declares, "" for any other line."""
    declared = re.fullmatch(r'"?sep=([,;\t])"?[,;\t]*', line, re.IGNORECASE)
    return declared[1] if declared else ""


def _best_separator(lines: Sequence[str], known: Mapping[str, str]) -> str:
    def fit(separator: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(lines, delimiter=separator), [])
        except csv.Error:
            return 0, 0
        return sum(column_key(cell) in known for cell in header), len(header)

    return max(SEPARATORS, key=fit)


def _rows(lines: Sequence[str], first: int, separator: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first line, last line, cells) of every row that is not blank."""
    reader = csv.reader(lines[first:], delimiter=separator)
    last = first
    for row in reader:
        start, last = last + 1, first + reader.line_num
        if any(cell and not cell.isspace() for cell in row):
            yield start, last, [cell.strip() for cell in row]


def _table(header: Sequence[str], cells: Sequence[tuple[int, int, list[str]]]) -> Table:
    rows, bad_rows = [], []
    for start, last, row in cells:
        while len(row) > len(header) and not row[-1]:  # a spreadsheet's empty columns at the right
            row.pop()
        values = {name: cell for name, cell in zip(header, row, strict=False) if name}
        if last > start:
            # A quotation mark that is not closed swallows rows; their subjects must not vanish unseen.
            detail = f"a cell goes on to row {last}; is a quotation mark missing or too many?"
            bad_rows.append(BadRow(start, values, detail))
        elif len(row) != len(header):
            bad_rows.append(BadRow(start, values, f"{len(row)} values, but the header has {len(header)} columns"))
        else:
            rows.append((start, values))
    return Table(tuple(name for name in header if name), rows, bad_rows)


def _check_header(path: Path, header: Sequence[str], required: Sequence[Column], how: str) -> None:
    for column in required:
        names = (column,) if isinstance(column, str) else column
        if not set(names) & set(header):
            raise CohortError(f"{path} lacks the column {_either(names)}; {_what_there_is(header, names[0], how)}")
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        raise CohortError(f"{path} has the column {min(repeated)!r} twice ({how})")


def _either(names: Sequence[str]) -> str:
    return f"{names[0]!r}" + (f" (or {', '.join(map(repr, names[1:]))})" if names[1:] else "")


def _what_there_is(header: Sequence[str], missing: str, how: str) -> str:
    found = [name for name in header if name]
    close = nearest(missing, found)
    return f"it has, {how}: {', '.join(found) or 'none'}" + (f"; is {close!r} meant?" if close else "")
