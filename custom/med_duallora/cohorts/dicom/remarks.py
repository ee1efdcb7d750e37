"""What the user should know of a study that was read: pure functions that count, and quote no header."""

from collections import Counter
from collections.abc import Mapping, Sequence

from med_duallora.cohorts.dicom.headers import Picture
from med_duallora.cohorts.dicom.stack import Slice


def study_remarks(
    pictures: Sequence[Picture], slices: Sequence[Slice], n_copies: int, n_enhanced: int
) -> tuple[str, ...]:
    """Say what of a study is not in the volume.

    Args:
        pictures: of the study, without copies.
        slices: of the short-axis cine, which are a part of them.
        n_copies: pictures that were there once more.
        n_enhanced: files in the Enhanced form, none of which was read.
    """
    used = {picture.path for item in slices for picture in item.pictures}
    remarks = []
    if n_copies:
        remarks.append(f"pictures of the DICOM study are there twice and were taken once: {n_copies}")
    if others := _series([picture for picture in pictures if picture.path not in used]):
        remarks.append(f"series of the DICOM study that are not its short-axis cine were left aside: {others}")
    if n_enhanced:
        remarks.append(f"files in the Enhanced (multi-frame) form were left aside: {n_enhanced}")
    return tuple(remarks)


def frames_remark(ed: int, es: int, n_frames: int) -> str:
    """Say which frames of a cine the rule chose, counted from 0 as in the table that may name others."""
    return (
        f"ED and ES were chosen by the size of the blood pool: ed_frame {ed}, es_frame {es} of {n_frames}, "
        "counted from 0"
    )


def skipped_note(skipped: Mapping[str, int]) -> str:
    """Say which files below the searched folder hold no picture of use, by kind; empty where there are none."""
    if not skipped:
        return ""
    return "--dicom left aside " + ", ".join(f"{n} {kind}" for kind, n in Counter(skipped).most_common())


def _series(pictures: Sequence[Picture]) -> str:
    """Return each series by its number of pictures and places, which tells a localiser from a long axis."""
    by_series: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_series.setdefault(picture.series, []).append(picture)
    texts = Counter(
        f"{len(members)} picture(s) at {len({picture.position for picture in members})} place(s)"
        for members in by_series.values()
    )
    return ", ".join(text if n == 1 else f"{n} x {text}" for text, n in texts.items())
