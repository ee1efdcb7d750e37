"""Which file holds an image, where cohorts are in circulation under several names."""

import gzip
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from med_duallora.cohorts.subject import ImageSource
from med_duallora.errors import SubjectRefused

SUFFIXES = (".nii.gz", ".nii")  # the published one first
_CHUNK = 1 << 20
_MAX_COMPARED = 1 << 31  # bytes; a cine has about 100 MB


def find_image(folder: Path, *stems: str, frame: int | None = None) -> ImageSource | None:
    """Return the image of one of the names ``stems`` in ``folder``, compressed or not; None if there is none.

    Of several files the first counts, in the order of ``stems`` and compressed before plain, where all hold
    the same bytes once decompressed: a copy does no harm. Else nobody but the owner can know which is meant.

    Args:
        folder: where to look.
        stems: names without suffix, the published one first.
        frame: of the image, see ``ImageSource``.

    Raises:
        SubjectRefused: ``ambiguous-file``.
    """
    names = dict.fromkeys(stem + suffix for stem in stems for suffix in SUFFIXES)
    found = [folder / name for name in names if os.path.isfile(folder / name)]  # noqa: PTH113 (no PermissionError)
    for other in found[1:]:
        if not _same_content(found[0], other):
            raise SubjectRefused(
                "ambiguous-file", f"{found[0]} and {other.name} hold different images; remove the one that is not meant"
            )
    return ImageSource(found[0], frame) if found else None


def need_image(folder: Path, *stems: str, frame: int | None = None) -> ImageSource:
    """Return what ``find_image`` finds; SubjectRefused ``missing-file`` where that is nothing."""
    image = find_image(folder, *stems, frame=frame)
    if image is None:
        raise SubjectRefused("missing-file", f"there is no {folder / stems[0]}{SUFFIXES[0]}, and no {SUFFIXES[1]}")
    return image


def _same_content(first: Path, second: Path) -> bool:
    """Compare piece by piece, so that a small file that decompresses to a huge one costs no memory."""
    try:
        with _opened(first) as one, _opened(second) as other:
            for _ in range(_MAX_COMPARED // _CHUNK):
                piece = one.read(_CHUNK)
                if piece != other.read(_CHUNK):
                    return False
                if not piece:
                    return True
    except (OSError, EOFError, zlib.error):  # damaged, so nothing shows that they are the same
        pass
    return False


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
