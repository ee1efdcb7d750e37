"""Reader of the raw M&Ms-2 layout: MnM2 with dataset_information.csv and dataset/NNN."""

from collections.abc import Mapping
from pathlib import Path

from med_duallora.cohorts.csvfile import filled, needed, read_table, whole_number
from med_duallora.cohorts.imagefiles import find_image, need_image
from med_duallora.cohorts.rows import Row, describe_rows
from med_duallora.cohorts.subject import MNMS_NUMBERS, RawSubject, Refusal
from med_duallora.cohorts.vocabulary import STANDARD, Vocabulary
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "mnms2"
TABLE = "dataset_information.csv"
COLUMNS = ("SUBJECT_CODE", "DISEASE", "VENDOR")

# The challenge's parts follow each other: 1-160, 161-200, 201-360.
LAST_CODES = {"train": 160, "val": 200, "test": 360}


def read(root: Path, words: Vocabulary = STANDARD) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every subject of the table below ``root``, the folder ``MnM2`` or the one that holds it.

    The table writes codes without the leading zeros of the folders. Folders that it does not name are
    refused as well, so that every subject is accounted for.

    Args:
        root: the cohort.
        words: for its pathologies and vendors.

    Raises:
        CohortError: there is no such folder or table, or the table lacks a column.
    """
    base = next((base for base in (root / "MnM2", root) if (base / TABLE).is_file()), None)
    if base is None:
        raise CohortError(f"{root} holds no M&Ms-2 cohort; expected [MnM2/]{TABLE} and dataset/001 and so on")
    table = read_table(base / TABLE, COLUMNS)
    places = sorted((base / "dataset").glob("*"))
    numbers = {place: whole_number(place.name) for place in places if place.is_dir()}
    folders = {number: place for place, number in numbers.items() if number is not None}
    subjects, refused = describe_rows(table, base / TABLE, DATASET, _name, lambda row: _subject(row, folders, words))
    rows = [row for _, row in table.rows] + [row.values for row in table.bad_rows]
    for code in sorted(set(folders) - {_code(row) for row in rows}):
        stray = SubjectRefused("no-metadata", f"{folders[code]} has no row in {TABLE}")
        refused.append(Refusal.of(folders[code].name, DATASET, folders[code], stray))
    return subjects, refused


def _code(row: Row) -> int | None:
    return whole_number(filled(row, "SUBJECT_CODE"))


def _name(row: Row) -> str:
    code = _code(row)
    return f"{code:03d}" if code is not None else row.get("SUBJECT_CODE", "")


def _subject(row: Row, folders: Mapping[int, Path], words: Vocabulary) -> RawSubject:
    code = _code(row)
    if code is None:
        raise SubjectRefused("bad-metadata", f"SUBJECT_CODE is {row['SUBJECT_CODE']!r}; expected a whole number")
    pathology = words.pathology(needed(row, "DISEASE", "unknown-pathology"))
    vendor = words.vendor(needed(row, "VENDOR", "unknown-vendor"))
    if code not in folders:
        raise SubjectRefused("missing-file", f"there is no folder dataset/{code:03d}")
    folder = folders[code]
    name = folder.name
    return RawSubject(
        subject=name,
        dataset=DATASET,
        pathology=pathology,
        vendor=vendor,
        centre=DATASET,
        ed=need_image(folder, f"{name}_SA_ED"),
        es=need_image(folder, f"{name}_SA_ES"),
        ed_segmentation=find_image(folder, f"{name}_SA_ED_gt"),
        es_segmentation=find_image(folder, f"{name}_SA_ES_gt"),
        label_numbers=MNMS_NUMBERS,
        official_split=next((split for split, last in LAST_CODES.items() if 1 <= code <= last), None),
        cine=find_image(folder, f"{name}_SA_CINE"),
    )
