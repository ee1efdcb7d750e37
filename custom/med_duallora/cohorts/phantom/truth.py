"""The read side of the table of true values that is written beside phantoms."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from med_duallora.cohorts.csvfile import read_rows
from med_duallora.cohorts.phantom.layouts import MNMS_PATHOLOGY
from med_duallora.errors import CohortError

Values = npt.NDArray[np.float32]
TARGETS = {
    "lv_edv": "log",
    "lv_esv": "log",
    "rv_edv": "log",
    "rv_esv": "log",
    "lv_ef": "plain",
    "rv_ef": "plain",
    "mass_g": "log",
    "wall_mean_ed": "log",
    "wall_max_ed": "log",
}
"""Columns of the table of true values, and the scale on which they are compared."""


def read_values(path: Path, names: Sequence[str]) -> Values:
    """Return the values (n_subjects, n_targets) of subjects by a table that ``med-duallora phantom`` wrote.

    Raises:
        CohortError: the table is missing or lacks a column, a subject is not in it or is twice, or a value is not a
            number above 0; the message names the row or the subject.
    """
    hint = "`med-duallora phantom` writes it as truth.csv"
    rows: dict[str, tuple[int, dict[str, str]]] = {}
    for number, row in read_rows(path, ("subject", *TARGETS), hint=hint):
        if row["subject"] in rows:
            raise CohortError(f"{path}, row {number}: subject {row['subject']} appears twice")
        rows[row["subject"]] = (number, row)
    missing = [name for name in names if name not in rows]
    if missing:
        raise CohortError(f"{path} has no row for {len(missing)} of {len(names)} subjects, such as {missing[0]}")
    return np.array([_values(path, *rows[name]) for name in names], np.float32)


def check_same(path: Path, pathologies: Mapping[str, str]) -> None:
    """Refuse a table of other phantoms: cohorts of one seed and different sizes share names, but not hearts.

    Args:
        path: the table.
        pathologies: by subject; each has a row.

    Raises:
        CohortError: a subject has another disease there; says how many.
    """
    there = {row["subject"]: row["pathology"] for _, row in read_rows(path, ("subject", "pathology"), hint="")}
    others = [
        name
        for name, pathology in pathologies.items()
        if pathology not in (there[name], MNMS_PATHOLOGY.get(there[name]))  # what it is called in files like M&Ms
    ]
    if others:
        raise CohortError(
            f"{path} is of other phantoms: {len(others)} of {len(pathologies)} subjects have another disease there, "
            f"such as {others[0]} ({there[others[0]]} instead of {pathologies[others[0]]}); take the cohort's own"
        )


def _values(path: Path, number: int, row: dict[str, str]) -> list[float]:
    values = []
    for column, scale in TARGETS.items():
        try:
            value = float(row[column])
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise CohortError(f"{path}, row {number}: {column} is {row[column]!r}; it must be a number above 0")
        values.append(math.log(value) if scale == "log" else value)
    return values
