"""The short-axis cine among all pictures of a study: its slices in order, each with its frames in order.

It is recognised by geometry and counts alone, because each site and vendor names its series otherwise: at least
``MIN_SLICES`` parallel positions with at least ``MIN_FRAMES`` frames of one heartbeat each.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.dicom.headers import Picture
from med_duallora.cohorts.nifti import Array
from med_duallora.errors import SubjectRefused

MIN_SLICES = 3
MIN_FRAMES = 8
SAME_DIRECTION = 10.0  # degrees; the long axes are much further from the short axis
PARALLEL = 1.0  # degrees, more between two slices of a stack is an error
SAME_PLACE = 0.5  # mm along the normal
ALONG_AXIS = 15.0  # degrees from an axis of the body: a stack for other purposes
UNEVEN = 0.05  # share by which a distance between slices may differ from the typical one
BEAT = (200.0, 3000.0)  # ms of trigger times from the first to the last frame: one heartbeat
LONGEST = 25.0  # s of acquisition per slice: a breath-hold; perfusion takes longer
TIMES = ("trigger time", "temporal position", "instance number")


@dataclass(frozen=True)
class Slice:
    """One slice position: mm along the stack's normal, and its pictures, in no order until ``_ordered``."""

    at: float
    pictures: tuple[Picture, ...]


def short_axis(pictures: Sequence[Picture]) -> list[Slice]:
    """Return the slices of the short-axis cine, along x cross y, each with its frames from the first to the last.

    Raises:
        SubjectRefused: ``no-cine`` (none, or several that nothing tells apart), ``incomplete-cine`` (frames are
            missing or there twice), ``bad-geometry`` (slices not parallel, not at even distances, or unlike).
    """
    members, cine = _choose(_groups(pictures))
    slices = _completed(members, cine)
    for number, item in enumerate(slices, 1):
        _check_once(item, f"slice {number} of {len(slices)}")
    _check_counts(slices)
    _check_alike(slices)
    _check_distances(slices)
    return _ordered(slices)


def _groups(pictures: Sequence[Picture]) -> list[list[Slice]]:
    """Return, for each direction and kind of acquisition, its slice positions."""
    groups: list[list[Picture]] = []
    for picture in sorted(pictures, key=lambda picture: (picture.series, picture.times[2] or 0, str(picture.path))):
        for group in groups:
            if group[0].kind == picture.kind and _angle(group[0].normal, picture.normal) <= SAME_DIRECTION:
                group.append(picture)
                break
        else:
            groups.append([picture])
    return [_slices(group) for group in groups]


def _angle(first: Array, second: Array) -> float:
    return float(np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(first - second) / 2, 0, 1))))


def _slices(pictures: Sequence[Picture]) -> list[Slice]:
    """Group by the place of the pictures' middles along the normal, in rising order."""
    # Of the middle, because a slice that is turned a little has its first pixel far from the others'.
    normals = Counter(tuple(picture.normal.round(3)) for picture in pictures)
    usual = normals.most_common(1)[0][0]
    normal = next(picture.normal for picture in pictures if tuple(picture.normal.round(3)) == usual)
    placed = sorted(((float(normal @ item.centre), item) for item in pictures), key=lambda pair: pair[0])
    groups: list[list[tuple[float, Picture]]] = []
    for pair in placed:
        if groups and pair[0] - groups[-1][-1][0] <= SAME_PLACE:
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return [Slice(float(np.mean([at for at, _ in group])), tuple(item for _, item in group)) for group in groups]


def _is_cine(item: Slice) -> bool:
    """Return whether the pictures of a slice are the frames of one heartbeat."""
    if len(item.pictures) < MIN_FRAMES or len({picture.inversion for picture in item.pictures}) > 1:
        return False
    clocks = [picture.clock for picture in item.pictures if picture.clock is not None]
    triggers = {picture.times[0] for picture in item.pictures if picture.times[0] is not None}
    one_breath = (
        not clocks or len({picture.series for picture in item.pictures}) > 1 or max(clocks) - min(clocks) <= LONGEST
    )
    one_beat = len(triggers) < MIN_FRAMES or BEAT[0] <= max(triggers) - min(triggers) <= BEAT[1]
    return one_breath and one_beat


def _choose(groups: Sequence[list[Slice]]) -> tuple[list[Slice], list[Slice]]:
    """Return all slices of the group that is the short-axis stack, and those of them that are cines."""
    found = [(group, cine) for group in groups if len(cine := [item for item in group if _is_cine(item)]) >= MIN_SLICES]
    if not found:
        n_slices = max((sum(len(item.pictures) >= MIN_FRAMES for item in group) for group in groups), default=0)
        raise SubjectRefused(
            "no-cine",
            f"no {MIN_SLICES} parallel slices with {MIN_FRAMES} or more frames of one heartbeat each; most parallel "
            f"slices with so many pictures: {n_slices}",
        )
    oblique = [pair for pair in found if _from_body_axes(pair[1]) > ALONG_AXIS]
    found = oblique or found
    most = max(len(cine) for _, cine in found)
    largest = [pair for pair in found if len(pair[1]) == most]
    if len(largest) > 1:
        raise SubjectRefused(
            "no-cine",
            f"{len(largest)} stacks of {most} cine slices, and nothing tells which is the short axis; keep one of them",
        )
    return largest[0]


def _from_body_axes(slices: Sequence[Slice]) -> float:
    """Return the angle between the normal and the nearest axis of the body in degrees."""
    return float(np.degrees(np.arccos(np.clip(np.abs(slices[0].pictures[0].normal).max(), -1, 1))))


def _completed(members: Sequence[Slice], cine: Sequence[Slice]) -> list[Slice]:
    """Return the cine slices with those that should be: of their series, or where a next slice would lie.

    A slice that lost frames is not a cine by itself; without this it would go unnoticed at the end of the stack.
    """
    step = float(np.median(np.diff([item.at for item in cine])))
    series = {picture.series for item in cine for picture in item.pictures}

    def belongs(item: Slice) -> bool:
        steps = (item.at - cine[0].at) / step
        next_to = abs(steps - round(steps)) <= UNEVEN and cine[0].at - 1.5 * step < item.at < cine[-1].at + 1.5 * step
        shared = any(picture.series in series for picture in item.pictures)
        return item in cine or shared or (next_to and len(item.pictures) > 1)

    return [item for item in members if belongs(item)]


def _check_once(item: Slice, name: str) -> None:
    repeated = Counter(picture.instance for picture in item.pictures if picture.instance)
    if repeated and max(repeated.values()) > 1:
        raise SubjectRefused(
            "incomplete-cine", f"{name} has a picture twice, in two files that differ; keep one of them"
        )
    series = Counter(picture.series for picture in item.pictures)
    n_whole = sum(n >= MIN_FRAMES for n in series.values())
    if n_whole > 1:
        raise SubjectRefused(
            "incomplete-cine", f"{name} is there {n_whole} times, as cines of its own; keep one of them"
        )


def _check_counts(slices: Sequence[Slice]) -> None:
    counts = [len(item.pictures) for item in slices]
    usual = Counter(counts).most_common(1)[0][0]
    odd = [number for number, n in enumerate(counts, 1) if n != usual]
    if odd:
        raise SubjectRefused(
            "incomplete-cine",
            f"slice {odd[0]} of {len(slices)} has {counts[odd[0] - 1]} frames, most others have {usual}"
            + (f" ({len(odd)} slices differ)" if len(odd) > 1 else ""),
        )


def _check_alike(slices: Sequence[Slice]) -> None:
    rounded = Counter(tuple(np.round(item.pictures[0].axes, 2).ravel()) for item in slices).most_common(1)[0][0]
    usual = next(
        item.pictures[0].axes for item in slices if tuple(np.round(item.pictures[0].axes, 2).ravel()) == rounded
    )
    matrix = Counter(picture.shape for item in slices for picture in item.pictures).most_common(1)[0][0]
    spacing = np.median([picture.spacing for item in slices for picture in item.pictures], axis=0)
    for number, item in enumerate(slices, 1):
        name = f"slice {number} of {len(slices)}"
        for picture in item.pictures:
            turned = max(_angle(np.asarray(a), np.asarray(b)) for a, b in zip(picture.axes, usual, strict=True))
            if turned > PARALLEL:
                raise SubjectRefused(
                    "bad-geometry", f"{name} is not parallel to the others, but turned by {turned:.1f} degrees"
                )
            if picture.shape != matrix:
                detail = (
                    f"{name} has {picture.shape[0]} x {picture.shape[1]} pixels, most others {matrix[0]} x {matrix[1]}"
                )
                raise SubjectRefused("bad-geometry", detail)
            if np.abs(picture.spacing / spacing - 1).max() > 0.01:
                detail = f"{name} has pixels of {picture.spacing} mm, most others of {spacing.tolist()} mm"
                raise SubjectRefused("bad-geometry", detail)


def _check_distances(slices: Sequence[Slice]) -> None:
    """Check that all pictures lie on one line along the normal, at even distances."""
    first = slices[0].pictures[0]
    for number, item in enumerate(slices, 1):
        for picture in item.pictures:
            step = np.asarray(picture.position) - first.position
            beside = float(np.linalg.norm(step - (step @ first.normal) * first.normal))
            if beside > max(first.spacing):
                detail = f"slice {number} of {len(slices)} is shifted by {beside:.1f} mm within its plane"
                raise SubjectRefused("bad-geometry", detail)
    gaps = np.diff([item.at for item in slices])
    typical = float(np.median(gaps))
    worst = int(np.abs(gaps - typical).argmax())
    if abs(gaps[worst] - typical) > UNEVEN * typical:
        detail = (
            f"slices {worst + 1} and {worst + 2} of {len(slices)} are {gaps[worst]:.2f} mm apart, others "
            f"{typical:.2f} mm; is a slice missing?"
        )
        raise SubjectRefused("bad-geometry", detail)


def _ordered(slices: Sequence[Slice]) -> list[Slice]:
    """Order the frames of every slice by the first of ``TIMES`` that tells all of them apart."""
    for kind, name in enumerate(TIMES):
        values = [[picture.times[kind] for picture in item.pictures] for item in slices]
        if any(None in of_slice for of_slice in values):
            continue
        distinct = [len(set(of_slice)) for of_slice in values]
        if all(n == len(of_slice) for n, of_slice in zip(distinct, values, strict=True)):
            return [
                Slice(item.at, tuple(sorted(item.pictures, key=lambda one: one.times[kind] or 0.0))) for item in slices
            ]
        # Few different times are not times of frames; many of which one comes twice are a repeated picture.
        for number, (n, of_slice) in enumerate(zip(distinct, values, strict=True), 1):
            if MIN_FRAMES <= n < len(of_slice):
                detail = (
                    f"slice {number} of {len(slices)} has {len(of_slice)} pictures at {n} {name}s; keep one of each"
                )
                raise SubjectRefused("incomplete-cine", detail)
    raise SubjectRefused("incomplete-cine", f"nothing tells the frames of a slice apart: no usable {', '.join(TIMES)}")
