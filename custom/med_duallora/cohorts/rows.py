"""From the rows of a raw cohort's table to its subjects: each row is described or refused, none is lost."""

from collections.abc import Callable, Mapping
from pathlib import Path

from med_duallora.cohorts.csvfile import Table
from med_duallora.cohorts.subject import RawSubject, Refusal
from med_duallora.errors import SubjectRefused

Row = Mapping[str, str]


def describe_rows(
    table: Table, path: Path, dataset: str, name: Callable[[Row], str], describe: Callable[[Row], RawSubject]
) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every row of ``table``.

    Args:
        table: as it was read.
        path: of the table, for messages.
        dataset: acdc, mnms, mnms2 or table.
        name: gives the subject's name in a row, for messages; of a bad row some columns may be missing.
        describe: turns a row into a subject, or raises SubjectRefused.
    """
    subjects, refused = [], []
    for row in table.bad_rows:
        bad = SubjectRefused("bad-metadata", row.detail)
        refused.append(Refusal.of(name(row.values), dataset, f"{path}, row {row.number}", bad))
    for number, values in table.rows:
        try:
            subjects.append(describe(values))
        except SubjectRefused as error:
            refused.append(Refusal.of(name(values), dataset, f"{path}, row {number}", error))
    return subjects, refused
