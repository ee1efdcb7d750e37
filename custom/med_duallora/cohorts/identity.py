"""Who a subject is: its voxels. One scan under two names could be trained on and tested on.

An image's identity is the SHA-256 of its number of voxels and of their sorted values. So it does not depend on what
people change without changing the scan: compression, header, data type, the order and the direction of the axes,
whether the image is a file of its own or a frame of a cine, and which of a subject's two images is called ED.

Can it take two patients for one? Only if every grey level occurs equally often in both images. Two scans of some
100,000 noisy voxels on more than a hundred grey levels would have to agree in more than a hundred counts of about a
thousand each, which by chance vary by about thirty: this does not happen, not even in two scans of one person on one
day. Images that are almost constant, where it could, are refused before. What it cannot see: a scan that was
resampled, cropped, padded or rescaled by factors that round is another image.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject, load_volume
from med_duallora.errors import SubjectRefused

Array = np.ndarray[Any, np.dtype[Any]]

# Names the rule of this module. Change it when any hash can change: earlier output is then redone.
IDENTITY = "sorted-voxels-1"

PHASES = ("ED", "ES")


def voxels_sha256(stack: Array) -> str:
    """Return an image's identity.

    Args:
        stack: decoded voxels of any shape, whole or real numbers.

    Returns:
        SHA-256, as 64 hexadecimal digits, over the number of voxels (int64) and the sorted values (float64), both
        little-endian.
    """
    # Sorted in its own type, where it is fastest: float64 keeps the order. Of 8 and 16 bits, numpy's stable sort is a
    # radix sort, which is many times as fast. The sum makes -0.0 the 0.0 it equals.
    values = np.sort(stack, axis=None, kind="stable" if stack.dtype.itemsize <= 2 else None).astype("<f8") + 0.0
    digest = hashlib.sha256(np.array(values.size, dtype="<i8").tobytes())
    digest.update(values.astype("<f8", copy=False).tobytes())
    return digest.hexdigest()


def image_hashes(ed: Array, es: Array) -> tuple[str, str]:
    """Return the identities of a subject's raw ED and ES stacks, as read: before anything is resampled.

    Raises:
        SubjectRefused: ``same-image``, where both are one image: it shows no motion.
    """
    hashes = voxels_sha256(ed), voxels_sha256(es)
    if hashes[0] == hashes[1]:
        raise SubjectRefused("same-image", "ED and ES hold the same voxels: one image was given twice")
    return hashes


def shared_with_earlier(subjects: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Find the subjects that share an image with one before them, whichever of the two images it is.

    A subject that is itself a copy counts as one before: what it shares with a third one links them all.

    Args:
        subjects: name, identity of ED, identity of ES; in the order in which the first one is the one to keep.

    Returns:
        For each subject that shares an image, in words, which one with whom.
    """
    owner: dict[str, str] = {}
    shared: dict[str, str] = {}
    for name, *hashes in subjects:
        found = [
            f"its {phase} image is {owner[digest]}"
            for phase, digest in zip(PHASES, hashes, strict=True)
            if digest in owner
        ]
        if found:
            shared[name] = " and ".join(found) + " (the same voxels)"
        for phase, digest in zip(PHASES, hashes, strict=True):
            owner.setdefault(digest, f"the {phase} image of {name}")
    return shared


@dataclass(frozen=True)
class SharedImages:
    """Two subjects of prepared cohorts that are one scan.

    Args:
        first: the subject that comes first, in the order of the cohorts and of their tables.
        second: the later one.
        images: which image of ``first`` is which of ``second``, as ("ED", "ES").
    """

    first: PreparedSubject
    second: PreparedSubject
    images: tuple[tuple[str, str], ...]

    @property
    def leaks(self) -> bool:
        """Return whether the two are in different splits, so that one is judged by what was learned from the other."""
        return self.first.split != self.second.split


def shared_images(cohorts: Sequence[PreparedCohort]) -> list[SharedImages]:
    """Find every pair of subjects that share an image, within and across prepared cohorts.

    The raw images' identities in the tables are compared. Where a subject has none (its cohort was prepared by an
    earlier version or by something else), the prepared volumes of all subjects are read and compared as well; these
    differ where one scan was prepared twice in different ways, for example cropped around another centre.

    Args:
        cohorts: to be compared, each once.

    Returns:
        The pairs in the order of the cohorts; a subject is paired with every earlier one that it shares an image with.

    Raises:
        CohortError: a prepared volume is needed but cannot be read; names the file.
    """
    subjects = [subject for cohort in cohorts for subject in cohort.subjects]
    from_volumes = any(not (subject.ed_voxels_sha256 and subject.es_voxels_sha256) for subject in subjects)
    holders: dict[str, list[tuple[int, str]]] = {}
    pairs: dict[tuple[int, int], set[tuple[str, str]]] = {}
    for number, subject in enumerate(subjects):
        images = list(_images(subject, from_volumes))
        for phase, digest in images:
            for earlier, its_phase in holders.get(digest, ()):
                pairs.setdefault((number, earlier), set()).add((its_phase, phase))
        for phase, digest in images:
            holders.setdefault(digest, []).append((number, phase))
    return [
        SharedImages(subjects[earlier], subjects[number], tuple(sorted(images)))
        for (number, earlier), images in pairs.items()
    ]


def _images(subject: PreparedSubject, from_volumes: bool) -> Iterator[tuple[str, str]]:
    """Yield (phase, identity) of a subject's images; raw and prepared ones never match by mistake."""
    for phase, digest in zip(PHASES, (subject.ed_voxels_sha256, subject.es_voxels_sha256), strict=True):
        if digest:
            yield phase, f"raw {digest}"
    if from_volumes:
        for phase, volume in zip(PHASES, load_volume(subject), strict=True):
            yield phase, f"prepared {voxels_sha256(volume)}"
