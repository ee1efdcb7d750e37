"""Reader of a plain table: any cohort whose files a CSV names.

Columns (paths are relative to the table's folder)::

    subject, ed, es            name; end-diastolic and end-systolic NIfTI file, short axis
    pathology, vendor, centre  as in ``subject.PATHOLOGIES`` and ``subject.VENDOR_NAMES``; any text
    ed_frame, es_frame         optional: frame index from 0, where the file is 4-D
    ed_segmentation, es_segmentation   optional: label maps; a 4-D one is read at the image's frame
    segmentation_labels        optional: rv-myo-lv (1 RV, 2 MYO, 3 LV; default) or lv-myo-rv (M&Ms)
    split                      optional: train, val or test, for --official-splits
"""

from collections.abc import Mapping
from pathlib import Path

from med_duallora.cohorts.csvfile import read_rows, whole_number
from med_duallora.cohorts.prepared import SPLITS
from med_duallora.cohorts.subject import (
    CINEMA_NUMBERS,
    MNMS_NUMBERS,
    ImageSource,
    RawSubject,
    Refusal,
    canonical_pathology,
    check_name,
    vendor_slug,
)
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "table"
COLUMNS = ("subject", "ed", "es", "pathology", "vendor", "centre")
OPTIONAL_COLUMNS = ("ed_frame", "es_frame", "ed_segmentation", "es_segmentation", "segmentation_labels", "split")
LABEL_NUMBERS = {"": CINEMA_NUMBERS, "rv-myo-lv": CINEMA_NUMBERS, "lv-myo-rv": MNMS_NUMBERS}


def read(path: Path) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every row of the table.

    Raises:
        CohortError: no such file, or a column is missing or unknown (a misspelt optional column would
            otherwise go unnoticed).
    """
    rows = read_rows(path, COLUMNS)
    unknown = [name for name in (rows[0][1] if rows else ()) if name not in COLUMNS + OPTIONAL_COLUMNS]
    if unknown:
        known = ", ".join(COLUMNS + OPTIONAL_COLUMNS)
        raise CohortError(f"{path} has the unknown column {unknown[0]!r}; known are {known}")
    subjects, refused = [], []
    for number, row in rows:
        try:
            subjects.append(_subject(row, path.parent))
        except SubjectRefused as error:
            refused.append(Refusal.of(row["subject"], DATASET, f"{path}, row {number}", error))
    return subjects, refused


def _subject(row: Mapping[str, str], folder: Path) -> RawSubject:
    ed, es = (_image(row, phase, folder) for phase in ("ed", "es"))
    if ed == es:
        raise SubjectRefused("unlabelled", f"ED and ES are the same image, {ed.path}")
    return RawSubject(
        subject=check_name(row["subject"]),
        dataset=DATASET,
        pathology=canonical_pathology(row["pathology"]),
        vendor=vendor_slug(row["vendor"]),
        centre=row["centre"],
        ed=ed,
        es=es,
        ed_segmentation=_segmentation(row, "ed_segmentation", ed, folder),
        es_segmentation=_segmentation(row, "es_segmentation", es, folder),
        label_numbers=LABEL_NUMBERS[_choice(row, "segmentation_labels", tuple(LABEL_NUMBERS))],
        official_split=_choice(row, "split", ("", *SPLITS)) or None,
    )


def _image(row: Mapping[str, str], phase: str, folder: Path) -> ImageSource:
    if not row[phase]:
        raise SubjectRefused("missing-file", f"column {phase} is empty")
    text = row.get(f"{phase}_frame", "")
    frame = whole_number(text)
    if text and frame is None:
        raise SubjectRefused("bad-metadata", f"{phase}_frame is {text!r}; expected a frame index")
    return ImageSource(folder / row[phase], frame)


def _segmentation(row: Mapping[str, str], column: str, image: ImageSource, folder: Path) -> ImageSource | None:
    return ImageSource(folder / row[column], image.frame) if row.get(column) else None


def _choice(row: Mapping[str, str], column: str, allowed: tuple[str, ...]) -> str:
    value = row.get(column, "")
    if value not in allowed:
        raise SubjectRefused("bad-metadata", f"{column} is {value!r}; expected {', '.join(filter(None, allowed))}")
    return value
