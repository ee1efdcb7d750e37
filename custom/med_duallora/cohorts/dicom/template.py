"""The table for ``prepare --dicom-table`` with a row per study that was found, to be filled in with diagnoses."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from med_duallora.cohorts.dicom.reader import COLUMNS, OPTIONAL_COLUMNS
from med_duallora.cohorts.dicom.studies import Study, find_studies
from med_duallora.cohorts.table_template import column_lines, write_example


def write_dicom_template(path: Path, root: Path) -> list[str]:
    """Write the table, and return what to do with it.

    A study whose folder tells who the patient is gets no row, because nothing of an identity is written here.

    Args:
        path: a new file.
        root: folder of the studies.

    Raises:
        InputError: the file exists, or pydicom is not installed.
        CohortError: there is no DICOM picture below ``root``.
    """
    studies = find_studies(root).studies
    rows = [{"subject": name} for name in subject_cells(studies)]
    write_example(path, (*COLUMNS, *OPTIONAL_COLUMNS), rows)
    return explanation(path, root, len(rows), len(studies) - len(rows))


def subject_cells(studies: Sequence[Study]) -> list[str]:
    """Return what the column ``subject`` calls each study: its folder's name where that is unique, else its path."""
    titles = Counter(study.title for study in studies)
    return [
        study.title if titles[study.title] == 1 else study.folder.as_posix()
        for study in studies
        if not study.tells_identity
    ]


def explanation(path: Path, root: Path, n_rows: int, n_identities: int) -> list[str]:
    """Return what the columns mean, for whoever fills in the table at ``path``."""
    lines = [
        f"Wrote {path}; studies with a row: {n_rows}. Fill in pathology or label, then run",
        f"  med-duallora prepare --dicom {root} --dicom-table {path} --out DIR",
    ]
    if n_identities:
        lines.append(
            f"Studies without a row: {n_identities}, because their folders' names say who the patient is, by the "
            "headers. Add a row for each, with the folder's name in subject and a name of your own in name."
        )
    return [*lines, "", *column_lines(COLUMNS, OPTIONAL_COLUMNS)]
