"""An example of the table that ``prepare --table`` reads, to be filled in with one's own subjects."""

from pathlib import Path

from med_duallora.cohorts.table import COLUMNS, OPTIONAL_COLUMNS
from med_duallora.errors import InputError
from med_duallora.support.files import write_text

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
    if path.exists():
        raise InputError(f"--table-template {path} exists already and is not overwritten; name a new file")
    columns = [*COLUMNS, *OPTIONAL_COLUMNS]
    rows = [",".join(example.get(column, "") for column in columns) for example in EXAMPLES]
    write_text(path, "\n".join([",".join(columns), *rows]) + "\n")


def explanation(path: Path) -> list[str]:
    """Return what the columns mean, for whoever fills in the template at ``path``."""
    named = {**COLUMNS, **OPTIONAL_COLUMNS}
    width = max(map(len, named))
    return [
        f"Wrote {path} with two example rows: put your own in their place, then run",
        f"  med-duallora prepare --table {path} --out DIR",
        "",
        "Needed:",
        *(f"  {name:<{width}}  {text}" for name, text in COLUMNS.items()),
        "Optional (leave the cell empty, or take the column out):",
        *(f"  {name:<{width}}  {text}" for name, text in OPTIONAL_COLUMNS.items()),
        "",
        f"Paths are relative to the folder of {path.name}.",
    ]
