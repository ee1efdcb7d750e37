"""From pictures of one direction and matrix to slices, each with its pictures in the order of the cardiac cycle."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.dicom.headers import Picture
from med_duallora.errors import SubjectRefused
from med_duallora.nifti import Array

SAME_SLICE = 0.5  # mm along the normal
MIN_FRAMES = 8
BEAT = (200.0, 3000.0)  # ms from the first to the last frame of a cine: within one heartbeat
LONGEST_CINE = 25_000.0  # ms of acquisition per slice; a perfusion series takes longer
TIMES = ("trigger time", "temporal position", "instance number", "acquisition time")


@dataclass(frozen=True)
class Slice:
    """One slice position.

    Args:
        at: mm along the normal.
        pictures: in the order of the cardiac cycle once ``ordered`` made it, else in any.
    """

    at: float
    pictures: tuple[Picture, ...]


def normal_of(pictures: Sequence[Picture]) -> Array:
    """Return the unit normal (LPS) of pictures of one direction: x cross y."""
    x, y = (np.asarray(axis) for axis in pictures[0].axes)
    normal = np.cross(x, y)
    return np.asarray(normal / np.linalg.norm(normal))


def slices_of(pictures: Sequence[Picture]) -> list[Slice]:
    """Group by position along the normal, which all pictures share; in rising order."""
    normal = normal_of(pictures)
    placed = sorted(((float(normal @ picture.position), picture) for picture in pictures), key=lambda pair: pair[0])
    groups: list[list[tuple[float, Picture]]] = []
    for pair in placed:
        if groups and pair[0] - groups[-1][-1][0] <= SAME_SLICE:
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return [
        Slice(float(np.mean([at for at, _ in group])), tuple(picture for _, picture in group)) for group in groups
    ]


def latest_acquisitions(slices: Iterable[Slice]) -> tuple[list[Slice], int]:
    """Keep, of a slice that several series show, the latest one with the usual number of frames.

    A slice is acquired again because the first time went wrong.

    Returns:
        The slices, and how many of them were there more than once.
    """
    by_series = [_by_series(item) for item in slices]
    usual = Counter(len(chunk) for chunks in by_series for chunk in chunks for _ in (0,)).most_common(1)
    n_usual = usual[0][0] if usual else 0
    kept = []
    for item, chunks in zip(slices, by_series, strict=True):
        best = max(chunks, key=lambda chunk: (len(chunk) == n_usual, chunk[0].order, chunk[0].series))
        kept.append(Slice(item.at, tuple(best)))
    return kept, sum(len(chunks) > 1 for chunks in by_series)


def _by_series(item: Slice) -> list[list[Picture]]:
    chunks: dict[str, list[Picture]] = {}
    for picture in item.pictures:
        chunks.setdefault(picture.series, []).append(picture)
    return list(chunks.values())


def ordered(slices: Sequence[Slice]) -> tuple[list[Slice], str]:
    """Order every slice by the first of ``TIMES`` that tells all frames of all slices apart.

    Returns:
        The slices, and the name of the time.

    Raises:
        SubjectRefused: ``incomplete-cine`` (a slice and time twice, or nothing tells the frames apart),
            ``no-cine`` (the frames are not those of one heartbeat).
    """
    for kind, name in enumerate(TIMES):
        if all(_tells_apart(item.pictures, kind) for item in slices):
            result = [Slice(item.at, tuple(sorted(item.pictures, key=_at_time(kind)))) for item in slices]
            _check_heartbeat(result, kind)
            return result, name
        known = [item for item in slices if all(picture.times[kind] is not None for picture in item.pictures)]
        later = _second_acquisitions(slices, kind) if len(known) == len(slices) else None
        if later is not None:
            _check_heartbeat(later, kind)
            return later, name
        if kind == 0 and len(known) == len(slices) and any(_tells_apart(item.pictures, 0) for item in slices):
            number = next(n for n, item in enumerate(slices, 1) if not _tells_apart(item.pictures, 0))
            detail = f"slice {number} of {len(slices)} has two pictures at one {name}, and nothing says which is meant"
            raise SubjectRefused("incomplete-cine", detail)
    raise SubjectRefused("incomplete-cine", f"nothing tells the frames of a slice apart: no {', no '.join(TIMES)}")


def _at_time(kind: int):  # type: ignore[no-untyped-def]
    return lambda picture: picture.times[kind]
