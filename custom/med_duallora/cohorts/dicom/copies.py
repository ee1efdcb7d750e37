"""Pictures that a study holds more than once: files that were exported, sent or copied twice."""

from collections.abc import Sequence

import numpy as np

from med_duallora.cohorts.dicom.headers import Picture
from med_duallora.cohorts.dicom.voxels import read_plane
from med_duallora.errors import SubjectRefused


def without_copies(pictures: Sequence[Picture]) -> tuple[list[Picture], int]:
    """Keep the first of pictures that are the same in place, time and every pixel, whatever their files are called.

    Pictures of one place and time with other pixels stay, so that the stack's checks find them.

    Args:
        pictures: of one study.

    Returns:
        The pictures without copies, in the order of series and files, and the number of copies.
    """
    kept: dict[tuple[object, ...], list[Picture]] = {}
    n_copies = 0
    for picture in sorted(pictures, key=lambda picture: (picture.series, str(picture.path))):
        alike = kept.setdefault(_outline(picture), [])
        if any(_same_pixels(picture, other) for other in alike):
            n_copies += 1
        else:
            alike.append(picture)
    return [picture for alike in kept.values() for picture in alike], n_copies


def _outline(picture: Picture) -> tuple[object, ...]:
    """Return what the header says of place, time and kind; identifiers differ where a study was exported twice."""
    place = (picture.shape, picture.spacing, picture.axes, picture.position)
    return (*place, picture.kind, picture.times, picture.inversion)


def _same_pixels(first: Picture, second: Picture) -> bool:
    try:
        return np.array_equal(read_plane(first, "a picture"), read_plane(second, "a picture"))
    except SubjectRefused:
        return False  # what cannot be read is said where it is needed
