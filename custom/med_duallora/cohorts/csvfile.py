"""Tables of raw and prepared cohorts: comma-separated text with a header, read strictly."""

import csv
from collections.abc import Sequence
from pathlib import Path

from med_duallora.errors import CohortError


def read_rows(path: Path, required: Sequence[str], *, hint: str = "") -> list[tuple[int, dict[str, str]]]:
    """Return (line number as an editor shows it, values by column) of every row that is not blank.

    Unnamed columns, such as the index that data frames write first, are left out; cells are stripped.
    Blank rows cost little: M&Ms-2's table ends in about a million of them.

    Args:
        path: the table, UTF-8 with or without a byte order mark.
        required: columns that must be there; others may.
        hint: what to do when the file does not exist.

    Raises:
        CohortError: no such file, unreadable text, a missing or repeated column, a row of another length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            header = [cell.strip() for cell in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(cell and not cell.isspace() for cell in row)]
    except FileNotFoundError as error:
        raise CohortError(f"{path} does not exist{hint and '; '}{hint}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{path} cannot be read as a table: {error}") from error
    _check_header(path, header, required)
    for number, row in rows:
        if len(row) != len(header):
            raise CohortError(f"{path}, row {number}: {len(row)} values, but the header has {len(header)} columns")
    return [
        (number, {name: cell.strip() for name, cell in zip(header, row, strict=True) if name}) for number, row in rows
    ]


def whole_number(text: str) -> int | None:
    """Return the whole number that ``text`` writes, also as ``12.0``; None for anything else."""
    digits = text.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        found = ", ".join(name for name in header if name) or "none"
        raise CohortError(f"{path} lacks the column {missing[0]!r}; it needs {', '.join(required)}; it has: {found}")
    repeated = {name for name in header if name and header.count(name) > 1}
    if repeated:
        raise CohortError(f"{path} has the column {min(repeated)!r} twice")
