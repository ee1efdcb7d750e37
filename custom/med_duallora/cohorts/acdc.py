"""Reader of the raw ACDC layout: database/{training,testing}/patientNNN with an Info.cfg each."""

import re
from pathlib import Path

from med_duallora.cohorts.csvfile import whole_number
from med_duallora.cohorts.imagefiles import find_image, need_image
from med_duallora.cohorts.subject import RawSubject, Refusal, check_name
from med_duallora.cohorts.textfile import read_text
from med_duallora.cohorts.vocabulary import STANDARD, Vocabulary
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "acdc"
INFO = "Info.cfg"
OFFICIAL_SPLITS = {"training": "train", "testing": "test"}


def read(root: Path, words: Vocabulary = STANDARD) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every patient below ``root``, the folder ``database`` or the one that holds it.

    All of ACDC was scanned at one hospital on Siemens scanners. Its makers give no validation split.

    Args:
        root: the cohort.
        words: for its pathologies.

    Raises:
        CohortError: there is no such folder, or no patient in it.
    """
    folders = _folders(root)
    if not folders:
        raise CohortError(f"{root} holds no ACDC cohort; expected [database/]training/patient001/{INFO} and so on")
    subjects, refused = [], []
    for folder, split in folders:
        try:
            subjects.append(_subject(folder, split, words))
        except SubjectRefused as error:
            refused.append(Refusal.of(folder.name, DATASET, folder, error))
    return subjects, refused


def _folders(root: Path) -> list[tuple[Path, str]]:
    """Return the patients' folders with their official splits."""
    for base in (root / "database", root):
        if any((base / part).is_dir() for part in OFFICIAL_SPLITS):
            return [
                (folder, split)
                for part, split in OFFICIAL_SPLITS.items()
                for folder in sorted((base / part).glob("patient*"))
                if folder.is_dir()
            ]
    return []


def _subject(folder: Path, split: str, words: Vocabulary) -> RawSubject:
    name = check_name(folder.name)
    info = _info(folder / INFO)
    ed, es = (_frame(info, key, folder) for key in ("ED", "ES"))
    if ed == es:
        raise SubjectRefused("unlabelled", f"{folder / INFO} says ED = ES = {ed}")
    return RawSubject(
        subject=name,
        dataset=DATASET,
        pathology=words.pathology(info.get("group", "")),
        vendor="siemens",
        centre=DATASET,
        ed=need_image(folder, *_stems(name, ed)),
        es=need_image(folder, *_stems(name, es)),
        ed_segmentation=find_image(folder, *_stems(name, ed, "_gt")),
        es_segmentation=find_image(folder, *_stems(name, es, "_gt")),
        official_split=split,
        cine=find_image(folder, f"{name}_4d"),
    )


def _stems(name: str, frame: int, end: str = "") -> list[str]:
    """Return the names of a frame's image: as published, and with other numbers of leading zeros."""
    return [f"{name}_frame{frame:0{width}d}{end}" for width in (2, 1, 3, 4)]


def _info(path: Path) -> dict[str, str]:
    """Read the lines ``Key: value`` (or ``key = value``) of an Info.cfg; keys in lower case."""
    try:
        text, _ = read_text(path)
    except FileNotFoundError as error:
        raise SubjectRefused("missing-file", f"{path} does not exist") from error
    except CohortError as error:
        raise SubjectRefused("bad-metadata", str(error)) from error
    pairs = (re.split(r"[:=]", line, maxsplit=1) for line in text.split("\n") if ":" in line or "=" in line)
    return {key.strip().casefold(): value.strip().strip("\"'") for key, value in pairs}


def _frame(info: dict[str, str], key: str, folder: Path) -> int:
    text = info.get(key.casefold())
    frame = whole_number(text or "")
    if frame is None:
        raise SubjectRefused("bad-metadata", f"{folder / INFO}: {key} is {text!r}; expected a frame number")
    return frame
