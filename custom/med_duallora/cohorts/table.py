"""Reader of a plain table: any cohort whose files a CSV names (paths are relative to the table's folder)."""

from collections.abc import Sequence
from pathlib import Path

from med_duallora.cohorts.csvfile import filled, nearest, needed, read_table, whole_number
from med_duallora.cohorts.prepared import SPLITS
from med_duallora.cohorts.rows import Row, describe_rows
from med_duallora.cohorts.subject import CINEMA_NUMBERS, MNMS_NUMBERS, ImageSource, RawSubject, Refusal, check_name
from med_duallora.cohorts.vocabulary import ANY_DISEASE, NORMAL, STANDARD, Vocabulary
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "table"

# Every column with what belongs into it. Instead of pathology there may be label.
COLUMNS = {
    "subject": "name, unique; letters, digits, '_', '.' and '-'",
    "ed": "end-diastolic NIfTI file, short axis",
    "es": "end-systolic NIfTI file, or the same 4-D file",
    "pathology": "diagnosis, in the words of docs/vocabulary.md or of --label-map",
    "vendor": "maker of the scanner, as DICOM headers or docs/vocabulary.md write it",
    "centre": "where it was scanned; any text",
}
OPTIONAL_COLUMNS = {
    "label": "0 normal (NOR), 1 any disease; instead of pathology or in addition to it",
    "ed_frame": "index of the ED frame, from 0, where ed is 4-D",
    "es_frame": "index of the ES frame, from 0, where es is 4-D",
    "ed_segmentation": "label map of ED; a 4-D one is read at the image's frame",
    "es_segmentation": "label map of ES; a 4-D one is read at the image's frame",
    "segmentation_labels": "rv-myo-lv (1 RV, 2 MYO, 3 LV; default) or lv-myo-rv (M&Ms)",
    "split": "train, val or test, for --official-splits",
    "cine": "4-D file with all frames, which helps to find the heart",
}
REQUIRED = ("subject", "ed", "es", ("pathology", "label"), "vendor", "centre")
LABEL_NUMBERS = {"": CINEMA_NUMBERS, "rv-myo-lv": CINEMA_NUMBERS, "lv-myo-rv": MNMS_NUMBERS}


def read(path: Path, words: Vocabulary = STANDARD) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every row of the table.

    Args:
        path: the table.
        words: for its pathologies and vendors.

    Raises:
        CohortError: no such file, or a column is missing or unknown (a misspelt optional column would
            otherwise go unnoticed).
    """
    known = (*COLUMNS, *OPTIONAL_COLUMNS)
    table = read_table(path, REQUIRED, tuple(OPTIONAL_COLUMNS))
    check_columns(path, table.columns, known)
    folder = path.parent
    return describe_rows(
        table, path, DATASET, lambda row: row.get("subject", ""), lambda row: _subject(row, folder, words)
    )


def check_columns(path: Path, columns: Sequence[str], known: Sequence[str]) -> None:
    """Check that every column is known; CohortError names the first that is not, and what may be meant."""
    unknown = [name for name in columns if name not in known]
    if unknown:
        close = nearest(unknown[0], known)
        meant = f"; is {close!r} meant?" if close else ""
        raise CohortError(f"{path} has the unknown column {unknown[0]!r}{meant}; known are {', '.join(known)}")


def _subject(row: Row, folder: Path, words: Vocabulary) -> RawSubject:
    name = check_name(needed(row, "subject"))
    ed, es = (_image(row, phase, folder) for phase in ("ed", "es"))
    if ed == es:
        raise SubjectRefused("unlabelled", f"ED and ES are the same image, {ed.path}")
    return RawSubject(
        subject=name,
        dataset=DATASET,
        pathology=pathology_of(row, words),
        vendor=words.vendor(needed(row, "vendor", "unknown-vendor")),
        centre=needed(row, "centre"),
        ed=ed,
        es=es,
        ed_segmentation=_segmentation(row, "ed_segmentation", ed, folder),
        es_segmentation=_segmentation(row, "es_segmentation", es, folder),
        label_numbers=LABEL_NUMBERS[choice(row, "segmentation_labels", tuple(LABEL_NUMBERS))],
        official_split=choice(row, "split", ("", *SPLITS)) or None,
        cine=_cine(row, ed, es, folder),
    )


def pathology_of(row: Row, words: Vocabulary) -> str:
    """Return the pathology that the columns pathology and label agree on."""
    text, label = filled(row, "pathology"), _label(row)
    if not text:
        if label is None:
            raise SubjectRefused("unknown-pathology", "neither pathology nor label is filled in")
        return ANY_DISEASE if label else NORMAL
    pathology = words.pathology(text)
    if label not in (None, int(pathology != NORMAL)):
        raise SubjectRefused("bad-metadata", f"pathology {text!r} contradicts label {label} (0 normal, 1 disease)")
    return pathology


def _label(row: Row) -> int | None:
    text = filled(row, "label")
    label = whole_number(text)
    if text and label not in (0, 1):
        raise SubjectRefused("bad-metadata", f"label is {text!r}; expected 0 (normal) or 1 (disease)")
    return label


def _image(row: Row, phase: str, folder: Path) -> ImageSource:
    return ImageSource(folder / needed(row, phase, "missing-file"), frame_of(row, phase))


def frame_of(row: Row, phase: str) -> int | None:
    """Return the frame index, from 0, of ``ed`` or ``es``; None where it is empty."""
    text = filled(row, f"{phase}_frame")
    frame = whole_number(text)
    if text and frame is None:
        raise SubjectRefused("bad-metadata", f"{phase}_frame is {text!r}; expected a frame index")
    return frame


def _segmentation(row: Row, column: str, image: ImageSource, folder: Path) -> ImageSource | None:
    text = filled(row, column)
    return ImageSource(folder / text, image.frame) if text else None


def _cine(row: Row, ed: ImageSource, es: ImageSource, folder: Path) -> ImageSource | None:
    """Return the file of the column cine, else the one of which ED and ES are two frames."""
    text = filled(row, "cine")
    if text:
        return ImageSource(folder / text)
    return ImageSource(ed.path) if ed.path == es.path else None


def choice(row: Row, column: str, allowed: tuple[str, ...]) -> str:
    """Return a cell in lower case if it is one of ``allowed``; SubjectRefused ``bad-metadata``."""
    value = filled(row, column).casefold()
    if value not in allowed:
        raise SubjectRefused(
            "bad-metadata", f"{column} is {row[column]!r}; expected {', '.join(filter(None, allowed))}"
        )
    return value
