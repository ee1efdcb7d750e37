"""Reader of the raw M&Ms layout: OpenDataset with one table and, per subject, a 4-D file or its ED and ES stacks."""

import re
from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.csvfile import filled, needed, read_table, whole_number
from med_duallora.cohorts.imagefiles import find_image, need_image
from med_duallora.cohorts.rows import Row, describe_rows
from med_duallora.cohorts.subject import MNMS_NUMBERS, ImageSource, RawSubject, Refusal, check_name
from med_duallora.cohorts.vocabulary import STANDARD, Vocabulary
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "mnms"
UNLABELLED = "Training/Unlabeled"
OFFICIAL_SPLITS = {"Training/Labeled": "train", UNLABELLED: "train", "Validation": "val", "Testing": "test"}

CODE = "External code"
# Earlier releases of the table have no Pathology column, so they cannot serve.
VENDOR_COLUMNS = ("VendorName", "Vendor")
COLUMNS = (CODE, "ED", "ES", "Pathology", VENDOR_COLUMNS)
VENDOR_LETTERS = {"A": "siemens", "B": "philips", "C": "ge", "D": "canon"}

_SUBJECT_FILE = re.compile(r"([A-Za-z0-9]+)_sa(?:_ED)?\.nii(?:\.gz)?")


@dataclass(frozen=True)
class Place:
    """Where a subject's files lie: ``folder``, in ``part`` of the challenge ("" outside all parts)."""

    folder: Path
    part: str


def read(root: Path, words: Vocabulary = STANDARD) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every subject of the table below ``root``, the folder ``OpenDataset`` or the one that holds it.

    A subject's files lie in a folder of its own in a part of the challenge; without such folders, in the part
    itself or beside the table. Folders that the table does not name are refused as well, so that every subject
    is accounted for.

    Args:
        root: the cohort.
        words: for its pathologies and vendors.

    Raises:
        CohortError: there is no such folder or table, or the table lacks a column.
    """
    base, path = _find_table(root)
    table = read_table(path, COLUMNS, ("Centre",))
    places = _places(base)
    subjects, refused = describe_rows(
        table, path, DATASET, _code, lambda row: _subject(row, places.get(row[CODE], []), words)
    )
    rows = [row for _, row in table.rows] + [row.values for row in table.bad_rows]
    for code in sorted(set(places) - {_code(row) for row in rows}):
        folder = places[code][0].folder
        stray = SubjectRefused("no-metadata", f"{code} in {folder} has no row in {path.name}")
        refused.append(Refusal.of(code, DATASET, folder, stray))
    return subjects, refused


def _code(row: Row) -> str:
    return row.get(CODE, "")


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


def _places(base: Path) -> dict[str, list[Place]]:
    """Return the places of each subject code; more than one is a duplicate."""
    places: dict[str, list[Place]] = {}
    for part in ("", *OFFICIAL_SPLITS):
        codes = set()
        for entry in sorted((base / part).glob("*")):
            file = _SUBJECT_FILE.fullmatch(entry.name)
            if part and entry.is_dir() and not entry.name.startswith((".", "_")):
                places.setdefault(entry.name, []).append(Place(entry, part))
            elif file and entry.is_file():
                codes.add(file[1])
        for code in sorted(codes):
            places.setdefault(code, []).append(Place(base / part, part))
    return places


def _subject(row: Row, places: list[Place], words: Vocabulary) -> RawSubject:
    code = check_name(needed(row, CODE))
    pathology = words.pathology(needed(row, "Pathology", "unknown-pathology"))
    vendor = _vendor(row, words)
    centre = filled(row, "Centre").removesuffix(".0")
    if not places:
        raise SubjectRefused("missing-file", f"there is no folder {code} in {', '.join(OFFICIAL_SPLITS)}")
    if len(places) > 1:
        folders = " and in ".join(str(place.folder) for place in places)
        raise SubjectRefused("duplicate-subject", f"{code} is in {folders}")
    images = _images(row, code, places[0].folder)
    # The unlabelled part carries segmentation files too, but without meaning.
    segmentations = (
        {}
        if places[0].part == UNLABELLED
        else {f"{phase}_segmentation": _segmentation(images[phase]) for phase in ("ed", "es")}
    )
    return RawSubject(
        subject=code,
        dataset=DATASET,
        pathology=pathology,
        vendor=vendor,
        centre=f"{DATASET}-{centre}" if centre else DATASET,
        ed=images["ed"],
        es=images["es"],
        ed_segmentation=segmentations.get("ed_segmentation"),
        es_segmentation=segmentations.get("es_segmentation"),
        label_numbers=MNMS_NUMBERS,
        official_split=OFFICIAL_SPLITS.get(places[0].part),
        cine=find_image(places[0].folder, f"{code}_sa"),
    )


def _images(row: Row, code: str, folder: Path) -> dict[str, ImageSource]:
    """Return the ED and ES images: frames of the 4-D file; without one, two files that say which they are."""
    if find_image(folder, f"{code}_sa_ED") and not find_image(folder, f"{code}_sa"):
        return {phase: need_image(folder, f"{code}_sa_{phase.upper()}") for phase in ("ed", "es")}
    ed, es = _frames(row)
    return {phase: need_image(folder, f"{code}_sa", frame=frame) for phase, frame in (("ed", ed), ("es", es))}


def _segmentation(image: ImageSource) -> ImageSource | None:
    """Return the label map beside ``image``, named as it."""
    stem = image.path.name.removesuffix(".gz").removesuffix(".nii")
    return find_image(image.path.parent, f"{stem}_gt", frame=image.frame)


def _frames(row: Row) -> tuple[int, int]:
    """Return the indices of ED and ES, counted from 0 as the table does."""
    frames = []
    for column in ("ED", "ES"):
        text = filled(row, column)
        frame = whole_number(text)
        if frame is None and text:
            raise SubjectRefused("bad-metadata", f"{column} is {text!r}; expected a frame index")
        frames.append(frame)
    ed, es = frames
    if ed is None or es is None or ed == es:
        raise SubjectRefused("unlabelled", f"ED is {row['ED']!r} and ES is {row['ES']!r}: no two frames are marked")
    return ed, es


def _vendor(row: Row, words: Vocabulary) -> str:
    """Return the vendor's slug from its name, its letter, or both where they agree."""
    name, letter = (filled(row, column) for column in VENDOR_COLUMNS)
    by_letter = VENDOR_LETTERS.get(letter.upper())
    if letter and by_letter is None:
        raise SubjectRefused("unknown-vendor", f"vendor letter {letter!r} is unknown; known are A, B, C and D")
    if not name and by_letter is not None:
        return by_letter
    by_name = words.vendor(name)
    if by_letter not in (None, by_name):
        raise SubjectRefused("unknown-vendor", f"VendorName says {name!r}, but Vendor {letter!r} is {by_letter}")
    return by_name
