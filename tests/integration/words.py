"""What no log and no message of a run may hold."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

LOUD = re.compile(r"\b(?:DCM|NOR)\b|\barray\(|\btensor\(|\bdtype=|cohort\.csv|_sax_e[ds]")
"""Labels of the tiny cohorts, arrays as Python prints them, and files of any prepared cohort."""


def words_of(cohorts: Mapping[str, Path]) -> list[str]:
    """Every subject identifier, folder and file of some prepared cohorts.

    Args:
        cohorts: folder by site.
    """
    words: list[str] = []
    for folder in cohorts.values():
        with (folder / "cohort.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) >= 10
        words += [row["subject"] for row in rows]
        words += [str(folder), *(str(path.relative_to(folder)) for path in folder.rglob("*"))]
    return words
