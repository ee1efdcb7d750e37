"""Reader of the raw M&Ms layout: OpenDataset with one table and one folder of 4-D files per subject."""

from collections.abc import Mapping
from pathlib import Path

from med_duallora.cohorts.csvfile import read_rows, whole_number
from med_duallora.cohorts.subject import (
    MNMS_NUMBERS,
    ImageSource,
    RawSubject,
    Refusal,
    canonical_pathology,
    check_name,
    existing,
    vendor_slug,
)
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "mnms"
UNLABELLED = "Training/Unlabeled"
OFFICIAL_SPLITS = {"Training/Labeled": "train", UNLABELLED: "train", "Validation": "val", "Testing": "test"}

# Earlier releases of the table have no Pathology column, so they cannot serve.
COLUMNS = ("External code", "ED", "ES", "Pathology")
VENDOR_COLUMNS = ("VendorName", "Vendor")
VENDOR_LETTERS = {"A": "siemens", "B": "philips", "C": "ge", "D": "canon"}


def read(root: Path) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every subject of the table below ``root``, the folder ``OpenDataset`` or the one that holds it.

    Folders that the table does not name are refused as well, so that every subject is accounted for.

    Raises:
        CohortError: there is no such folder or table, or the table lacks a column.
    """
    base, table = _find_table(root)
    rows = read_rows(table, COLUMNS)
    if rows and not any(column in rows[0][1] for column in VENDOR_COLUMNS):
        raise CohortError(f"{table} lacks the column 'VendorName' (or 'Vendor')")
    folders = _folders(base)
    subjects, refused = [], []
    for number, row in rows:
        code = row["External code"]
        try:
            subjects.append(_subject(row, folders.get(code, []), base))
        except SubjectRefused as error:
            refused.append(Refusal.of(code, DATASET, f"{table}, row {number}", error))
    named = {row["External code"] for _, row in rows}
    for code in sorted(set(folders) - named):
        stray = SubjectRefused("no-metadata", f"{folders[code][0]} has no row in {table.name}")
        refused.append(Refusal.of(code, DATASET, folders[code][0], stray))
    return subjects, refused


def _find_table(root: Path) -> tuple[Path, Path]:
    for base in (root / "OpenDataset", root):
        tables = sorted(base.glob("*M&Ms*nformation*.csv"))
        if len(tables) > 1:
            # With several releases side by side, the one with diagnoses is meant.
            tables = [table for table in tables if "diagnosis" in table.name]
        if len(tables) == 1:
            return base, tables[0]
    raise CohortError(
        f"{root} holds no M&Ms cohort; expected [OpenDataset/]211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
    )


def _folders(base: Path) -> dict[str, list[Path]]:
    """Return the folders of each subject code; more than one is a duplicate."""
    folders: dict[str, list[Path]] = {}
    for place in OFFICIAL_SPLITS:
        for folder in sorted((base / place).glob("*")):
            if folder.is_dir() and not folder.name.startswith((".", "_")):
                folders.setdefault(folder.name, []).append(folder)
    return folders


def _subject(row: Mapping[str, str], folders: list[Path], base: Path) -> RawSubject:
    code = check_name(row["External code"])
    ed, es = _frames(row)
    pathology = canonical_pathology(row["Pathology"])
    vendor = _vendor(row)
    if not folders:
        raise SubjectRefused("missing-file", f"there is no folder {code} in {', '.join(OFFICIAL_SPLITS)}")
    if len(folders) > 1:
        raise SubjectRefused("duplicate-subject", f"{code} is in {' and in '.join(map(str, folders))}")
    folder = folders[0]
    place = folder.parent.relative_to(base).as_posix()
    image = folder / f"{code}_sa.nii.gz"
    # The unlabelled part carries segmentation files too, but without meaning.
    segmentation = folder / f"{code}_sa_gt.nii.gz"
    labelled = place != UNLABELLED
    return RawSubject(
        subject=code,
        dataset=DATASET,
        pathology=pathology,
        vendor=vendor,
        centre=f"{DATASET}-{row['Centre']}" if row.get("Centre") else DATASET,
        ed=ImageSource(image, ed),
        es=ImageSource(image, es),
        ed_segmentation=existing(segmentation, ed) if labelled else None,
        es_segmentation=existing(segmentation, es) if labelled else None,
        label_numbers=MNMS_NUMBERS,
        official_split=OFFICIAL_SPLITS[place],
    )


def _frames(row: Mapping[str, str]) -> tuple[int, int]:
    """Return the indices of ED and ES, counted from 0 as the table does."""
    frames = []
    for column in ("ED", "ES"):
        frame = whole_number(row[column])
        if frame is None and row[column]:
            raise SubjectRefused("bad-metadata", f"{column} is {row[column]!r}; expected a frame index")
        frames.append(frame)
    ed, es = frames
    if ed is None or es is None or ed == es:
        raise SubjectRefused("unlabelled", f"ED is {row['ED']!r} and ES is {row['ES']!r}: no two frames are marked")
    return ed, es


def _vendor(row: Mapping[str, str]) -> str:
    """Return the vendor's slug from its name, its letter, or both where they agree."""
    name, letter = (row.get(column, "") for column in VENDOR_COLUMNS)
    by_letter = VENDOR_LETTERS.get(letter.upper())
    if letter and by_letter is None:
        raise SubjectRefused("unknown-vendor", f"vendor letter {letter!r} is unknown; known are A, B, C and D")
    if not name and by_letter is not None:
        return by_letter
    by_name = vendor_slug(name)
    if by_letter not in (None, by_name):
        raise SubjectRefused("unknown-vendor", f"VendorName says {name!r}, but Vendor {letter!r} is {by_letter}")
    return by_name
