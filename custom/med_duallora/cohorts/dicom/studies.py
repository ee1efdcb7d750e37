"""The studies below a folder, and the folder by which each is known."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from med_duallora.cohorts.dicom.headers import NoPicture, Picture, need_pydicom, read_header
from med_duallora.cohorts.subject import SUBJECT_NAME
from med_duallora.errors import CohortError
from med_duallora.support.progress import track

MAX_FILES = 1_000_000
HERE = PurePosixPath(".")


@dataclass
class Study:
    """One examination of one person.

    Args:
        root: the folder that was searched.
        folder: the subject's, relative to ``root``: that of all studies at the least depth that tells them apart; "."
            is ``root`` itself.
        own: the lowest folder that holds all of it.
        pictures: all that can be used.
        n_enhanced: files in the Enhanced form, of which no picture was taken.
        manufacturers: as the headers write them.
        identifiers: texts of the headers that identify a person or an examination; only to compare with.
        alone: whether ``own`` holds no other study.
        number: its place in the order of folders, from 1.
    """

    root: Path
    folder: PurePosixPath = HERE
    own: PurePosixPath = HERE
    pictures: list[Picture] = field(default_factory=list)
    n_enhanced: int = 0
    manufacturers: set[str] = field(default_factory=set)
    identifiers: set[str] = field(default_factory=set)
    alone: bool = True
    number: int = 0

    @property
    def title(self) -> str:
        """Return the name of its folder; of the folder that was searched, where that is it."""
        return self.folder.name or self.root.resolve().name

    @property
    def names(self) -> set[str]:
        """Return what a table may call it: a folder's path or name."""
        folders = [self.folder, self.own, *(at for at in self.own.parents if self.folder in at.parents)]
        return {name for at in folders for name in (at.as_posix(), at.name) if name not in ("", ".")} | {self.title}

    @property
    def tells_identity(self) -> bool:
        """Return whether the path to its folder holds a word of the headers' identifying texts."""
        parts = [self.title, *self.own.parts]
        return any(_tells(part, self.identifiers) for part in parts)

    @property
    def subject(self) -> str | None:
        """Return the folder's name where that can name a subject and tells nothing that a header does."""
        usable = SUBJECT_NAME.fullmatch(self.title) and not self.tells_identity
        return self.title if usable else None

    @property
    def place(self) -> str:
        """Return where it lies, in words that may be written and printed."""
        if self.tells_identity:
            return f"study {self.number} in the order of folders"
        return self.own.as_posix() if self.own.name else self.title


@dataclass(frozen=True)
class Found:
    """What lies below a folder.

    Args:
        studies: in the order of their folders.
        skipped: number of files without a picture of use, by what they are.
    """

    studies: list[Study]
    skipped: Mapping[str, int]


def find_studies(root: Path) -> Found:
    """Read the headers of all files below ``root`` and sort their pictures into studies.

    Raises:
        InputError: pydicom is not installed.
        CohortError: there is no DICOM picture, or an absurd number of files.
    """
    need_pydicom()
    studies: dict[str, Study] = {}
    places: dict[str, set[PurePosixPath]] = {}
    skipped: Counter[str] = Counter()
    for path in track(_files(root), "reading DICOM headers"):
        place = PurePosixPath(path.parent.relative_to(root).as_posix())
        try:
            header = read_header(path)
        except NoPicture as reason:
            skipped[str(reason)] += 1
            continue
        # A study without an identifier is what lies in one folder.
        key = header.study or f"folder {place}"
        study = studies.setdefault(key, Study(root))
        places.setdefault(key, set()).add(place)
        study.manufacturers.add(header.manufacturer)
        study.identifiers |= header.identifiers
        study.n_enhanced += header.picture is None
        study.pictures += [header.picture] if header.picture else []
    if not studies:
        counted = "".join(f"; {n} {kind}" for kind, n in skipped.most_common())
        raise CohortError(f"{root} holds no DICOM image of a magnetic resonance scanner{counted}")
    _place_all(studies, places)
    ordered = sorted(studies.values(), key=lambda study: (study.own.parts, min(study.identifiers, default="")))
    for number, study in enumerate(ordered, 1):
        study.number = number
    return Found(ordered, skipped)


def _files(root: Path) -> list[Path]:
    paths: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        paths += [path for name in sorted(names) if (path := Path(folder, name)).is_file()]
        if len(paths) > MAX_FILES:
            raise CohortError(f"{root} holds more than {MAX_FILES} files; is it the right folder?")
    return paths


def _place_all(studies: dict[str, Study], places: dict[str, set[PurePosixPath]]) -> None:
    """Set where each study lies, from the folders of its files; subjects' folders are all at one depth."""
    for key, study in studies.items():
        study.own = PurePosixPath(os.path.commonpath([f"./{place}" for place in places[key]]))
        others = set().union(*(other for name, other in places.items() if name != key))
        study.alone = not _holds_any(study.own, others)
    deepest = max(len(study.own.parts) for study in studies.values())
    for depth in range(1, deepest + 1):
        folders = [PurePosixPath(*study.own.parts[:depth]) for study in studies.values()]
        if len(set(folders)) == len(folders):
            break
    for study in studies.values():
        study.folder = PurePosixPath(*study.own.parts[:depth]) if deepest else HERE


def _holds_any(folder: PurePosixPath, places: Iterable[PurePosixPath]) -> bool:
    return any(folder == at or folder in at.parents for at in places)


def _tells(name: str, identifiers: Iterable[str]) -> bool:
    """Return whether ``name`` holds a header's identifying text, or a word of it with three letters or more.

    However it is spelt: with umlauts, without or as two letters, and a date in any order of day, month and year.
    """
    words = {word for text in identifiers for word in (text, *text.replace("^", " ").split())}
    words |= {written for word in words for written in _dates(word)}
    return any(
        _holds(spell(name), {spell(word) for word in words if _plain(word) not in _COMMON})
        for spell in (_plain, _without_umlauts)
    )


_COMMON = {"anon", "anonymous", "anonymized", "anonymised", "patient", "hospital", "study", "dicom", "unknown"}


def _holds(plain: str, words: Iterable[str]) -> bool:
    return any(word and (word == plain or (len(word) > 2 and word in plain)) for word in words)


def _dates(text: str) -> Iterator[str]:
    """Yield the other orders and lengths in which people write the date YYYYMMDD."""
    found = re.fullmatch(r"(\d\d)(\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", text)
    if found:
        century, year, month, day = found.groups()
        for years in (century + year, year):
            yield from (day + month + years, month + day + years)
        yield year + month + day


def _plain(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _without_umlauts(text: str) -> str:
    """Return one text for Müller, Mueller and Muller."""
    bare = _plain(
        "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    )
    return re.sub(r"(?<=[aou])e", "", bare)
