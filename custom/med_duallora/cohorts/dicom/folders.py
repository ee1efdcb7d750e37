"""Find the studies below a folder, and the folder by which each is named."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from med_duallora.cohorts.dicom.headers import NoPicture, Picture, need_pydicom, read_header
from med_duallora.cohorts.subject import SUBJECT_NAME
from med_duallora.errors import CohortError
from med_duallora.progress import track

MAX_FILES = 1_000_000
HERE = "."


@dataclass
class Study:
    """The pictures of one study.

    Args:
        folder: where it lies, relative to the folder that was searched: the highest one that holds no other study.
        pictures: all that could be read.
        identifiers: texts of its headers that identify a person or an examination; only to compare with.
        alone: whether ``folder`` holds no other study.
    """

    folder: str = HERE
    pictures: list[Picture] = field(default_factory=list)
    identifiers: set[str] = field(default_factory=set)
    alone: bool = True


@dataclass(frozen=True)
class Found:
    """What is below a folder.

    Args:
        studies: in the order of their folders.
        skipped: number of files by what they are instead of pictures, in words.
    """

    studies: list[Study]
    skipped: Counter[str]

    def below(self, folder: str) -> list[Study]:
        """Return the studies that lie in ``folder`` or below it."""
        wanted = PurePosixPath(folder)
        return [study for study in self.studies if wanted in (at := PurePosixPath(study.folder), *at.parents)]


def find_studies(root: Path) -> Found:
    """Read the headers of all files below ``root`` and sort their pictures into studies.

    Raises:
        InputError: pydicom is not installed.
        CohortError: there is no DICOM picture, or an absurd number of files.
    """
    need_pydicom()
    studies: dict[str, Study] = {}
    places: dict[str, set[str]] = {}
    skipped: Counter[str] = Counter()
    for path in track(_files(root), "reading DICOM headers"):
        try:
            pictures, identifiers = read_header(path)
        except NoPicture as reason:
            skipped[str(reason)] += 1
            continue
        place = path.parent.relative_to(root).as_posix()
        # A study without an identifier is what lies in one folder.
        key = pictures[0].study or f"folder {place}"
        study = studies.setdefault(key, Study())
        study.pictures += pictures
        study.identifiers |= identifiers
        places.setdefault(key, set()).add(place)
    if not studies:
        raise CohortError(f"--dicom {root} holds no DICOM picture of a magnetic resonance scanner{_counted(skipped)}")
    for key, study in studies.items():
        others = set().union(*(folders for other, folders in places.items() if other != key))
        study.folder, study.alone = _own_folder(places[key], others)
    return Found(sorted(studies.values(), key=lambda study: study.folder), skipped)


def _files(root: Path) -> list[Path]:
    paths = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        paths += [path for name in sorted(names) if (path := Path(folder, name)).is_file()]
        if len(paths) > MAX_FILES:
            raise CohortError(f"--dicom {root} holds more than {MAX_FILES} files; is it the right folder?")
    return paths


def _counted(skipped: Counter[str]) -> str:
    return "".join(f"; {n} {kind}" for kind, n in skipped.most_common())


def _own_folder(mine: set[str], others: set[str]) -> tuple[str, bool]:
    """Return the highest folder that holds all of ``mine`` and none of ``others``, and whether there is one."""
    common = PurePosixPath(os.path.commonpath([f"./{place}" for place in mine]))
    alone = not any(_holds(common, place) for place in others)
    folder = common
    # Not up to the searched folder itself while the study has a folder of its own below it.
    while alone and len(folder.parts) > 1 and not any(_holds(folder.parent, place) for place in others):
        folder = folder.parent
    return folder.as_posix(), alone


def _holds(folder: PurePosixPath, place: str) -> bool:
    at = PurePosixPath(place)
    return folder == at or folder in at.parents


def proposed_names(studies: Iterable[Study]) -> Iterator[str]:
    """Yield a name for each study: its folder's where that can name a subject and tells nothing that a header does.

    Folders as they come from an archive are often called by a patient's name or number. Where the folder's name
    shares a word with such a text of the headers, the study is called ``dicom-001`` and so on instead.
    """
    taken: set[str] = set()
    for number, study in enumerate(studies, 1):
        name = PurePosixPath(study.folder).name
        if not SUBJECT_NAME.fullmatch(name) or name in taken or tells_identity(name, study.identifiers):
            name = f"dicom-{number:03d}"
        taken.add(name)
        yield name


def tells_identity(name: str, identifiers: Iterable[str]) -> bool:
    """Return whether ``name`` holds a word of a header's identifying texts, or they hold it."""
    plain = _plain(name)
    words = {_plain(word) for text in identifiers for word in (text, *text.replace("^", " ").split())}
    return any(word and (word == plain or (len(word) > 2 and word in plain)) for word in words)


def _plain(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())
