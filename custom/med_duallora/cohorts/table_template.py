"""An example of the table that ``prepare --table`` reads, to be filled in with one's own subjects."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from med_duallora.cohorts.csvfile import table_text
from med_duallora.cohorts.table import COLUMNS, OPTIONAL_COLUMNS
from med_duallora.errors import InputError
from med_duallora.support.files import write_text
from med_duallora.support.private import PRIVATE_FILE

EXAMPLES = (
    {
        "subject": "subject-001",
        "ed": "scans/subject-001_ed.nii.gz",
        "es": "scans/subject-001_es.nii.gz",
        "pathology": "normal",
        "vendor": "SIEMENS",
        "centre": "north",
        "ed_segmentation": "scans/subject-001_ed_labels.nii.gz",
        "es_segmentation": "scans/subject-001_es_labels.nii.gz",
        "segmentation_labels": "rv-myo-lv",
    },
    {
        "subject": "subject-002",
        "ed": "scans/subject-002_cine.nii.gz",
        "es": "scans/subject-002_cine.nii.gz",
        "pathology": "dilated cardiomyopathy",
        "vendor": "Philips Medical Systems",
        "centre": "north",
        "ed_frame": "0",
        "es_frame": "11",
    },
)
"""Two subjects as people have them: two stacks with label maps, and one cine with the numbers of its frames."""


def write_template(path: Path) -> None:
    """Write a CSV with every column and two example rows.

    Raises:
        InputError: the file exists, and may be somebody's work.
    """
    write_example(path, (*COLUMNS, *OPTIONAL_COLUMNS), EXAMPLES)


def write_example(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table to be filled in, mode 0600; a column that a row does not hold is empty there.

    Raises:
        InputError: the file exists, and may be somebody's work.
    """
    if path.exists():
        raise InputError(f"--table-template {path} exists already and is not overwritten; name a new file")
    write_text(path, table_text(columns, rows), PRIVATE_FILE)


def explanation(path: Path) -> list[str]:
    """Return what the columns mean, for whoever fills in the template at ``path``."""
    return [
        f"Wrote {path} with two example rows: put your own in their place, then run",
        f"  med-duallora prepare --table {path} --out DIR",
        "",
        *column_lines(COLUMNS, OPTIONAL_COLUMNS),
        "",
        f"Paths are relative to the folder of {path.name}.",
    ]


def column_lines(needed: Mapping[str, str], optional: Mapping[str, str]) -> list[str]:
    """Return one line per column: its name and what belongs into it."""
    width = max(map(len, (*needed, *optional)))
    return [
        "Needed:",
        *(f"  {name:<{width}}  {text}" for name, text in needed.items()),
        "Optional (leave the cell empty, or take the column out):",
        *(f"  {name:<{width}}  {text}" for name, text in optional.items()),
    ]
