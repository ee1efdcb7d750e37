"""Reader of the raw M&Ms-2 layout: MnM2 with dataset_information.csv and dataset/NNN."""

from collections.abc import Mapping
from pathlib import Path

from med_duallora.cohorts.csvfile import read_rows, whole_number
from med_duallora.cohorts.subject import (
    MNMS_NUMBERS,
    ImageSource,
    RawSubject,
    Refusal,
    canonical_pathology,
    existing,
    vendor_slug,
)
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "mnms2"
TABLE = "dataset_information.csv"
COLUMNS = ("SUBJECT_CODE", "DISEASE", "VENDOR")

# The challenge's parts follow each other: 1-160, 161-200, 201-360.
LAST_CODES = {"train": 160, "val": 200, "test": 360}


def read(root: Path) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every subject of the table below ``root``, the folder ``MnM2`` or the one that holds it.

    The table writes codes without the leading zeros of the folders. Folders that it does not name are
    refused as well, so that every subject is accounted for.

    Raises:
        CohortError: there is no such folder or table, or the table lacks a column.
    """
    base = next((base for base in (root / "MnM2", root) if (base / TABLE).is_file()), None)
    if base is None:
        raise CohortError(f"{root} holds no M&Ms-2 cohort; expected [MnM2/]{TABLE} and dataset/001 and so on")
    rows = read_rows(base / TABLE, COLUMNS)
    places = sorted((base / "dataset").glob("*"))
    folders = {int(place.name): place for place in places if place.is_dir() and whole_number(place.name) is not None}
    subjects, refused = [], []
    for number, row in rows:
        code = whole_number(row["SUBJECT_CODE"])
        name = f"{code:03d}" if code is not None else row["SUBJECT_CODE"]
        try:
            subjects.append(_subject(row, code, folders))
        except SubjectRefused as error:
            refused.append(Refusal.of(name, DATASET, f"{base / TABLE}, row {number}", error))
    named = {whole_number(row["SUBJECT_CODE"]) for _, row in rows}
    for code in sorted(set(folders) - named):
        stray = SubjectRefused("no-metadata", f"{folders[code]} has no row in {TABLE}")
        refused.append(Refusal.of(folders[code].name, DATASET, folders[code], stray))
    return subjects, refused


def _subject(row: Mapping[str, str], code: int | None, folders: Mapping[int, Path]) -> RawSubject:
    if code is None:
        raise SubjectRefused("bad-metadata", f"SUBJECT_CODE is {row['SUBJECT_CODE']!r}; expected a whole number")
    pathology, vendor = canonical_pathology(row["DISEASE"]), vendor_slug(row["VENDOR"])
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
        ed=ImageSource(folder / f"{name}_SA_ED.nii.gz"),
        es=ImageSource(folder / f"{name}_SA_ES.nii.gz"),
        ed_segmentation=existing(folder / f"{name}_SA_ED_gt.nii.gz"),
        es_segmentation=existing(folder / f"{name}_SA_ES_gt.nii.gz"),
        label_numbers=MNMS_NUMBERS,
        official_split=next((split for split, last in LAST_CODES.items() if 1 <= code <= last), None),
    )
