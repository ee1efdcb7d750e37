"""Phantoms to learn anatomy from: volumes, true values and label maps, kept small in memory."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.backbone.config import BackboneConfig
from med_duallora.backbone.inputs import Volume, fit_length
from med_duallora.cohorts.phantom.truth import Values, check_same, read_values
from med_duallora.cohorts.prepared import load_volume
from med_duallora.errors import CohortError
from med_duallora.pretraining.data import find_cohorts, pooled, sha256_of_voxels
from med_duallora.pretraining.label_maps import small_label_maps
from med_duallora.support.files import sha256_of_json
from med_duallora.support.progress import track

MARGIN = 1.5  # the square root of 2 and a little: a turned view still lies in the image
HELD_OUT_EVERY = 20
MIN_HELD_OUT = 4
MAX_HELD_OUT = 80
MIN_SUBJECTS = 4


@dataclass(frozen=True)
class AnatomyPool:
    """Volumes of phantoms with their true values.

    Args:
        volumes: uint8 (2, X, Y, n_slices) per subject, in plane larger than the backbone's input.
        values: (n_subjects, n_targets), on the scale of ``TARGETS``, not standardised.
        content: SHA-256 over all that is learnt from: the subjects' source hashes, values, voxels and label maps.
        maps: label maps on the voxels of ``volumes``, uint8; empty where none are trained on.
    """

    volumes: tuple[Volume, ...]
    values: Values
    content: str
    maps: tuple[Volume, ...] = ()

    @classmethod
    def load(cls, directory: Path, truth: Path, config: BackboneConfig, with_maps: bool = True) -> "AnatomyPool":
        """Read every subject of a prepared cohort, or of all in a folder, and its row of the table of true values.

        Raises:
            CohortError: no prepared cohort is there, a volume or a label map cannot be read, a subject has no or
                impossible values, or the table is of other phantoms.
        """
        cohorts = find_cohorts(directory)
        subjects = [subject for cohort in cohorts for subject in cohort.subjects]
        values = read_values(truth, [subject.subject for subject in subjects])
        for cohort in cohorts:
            check_same(truth, {subject.subject: subject.pathology for subject in cohort.subjects})
        _refuse_twice([subject.subject for subject in subjects], directory)
        size = tuple(math.ceil(MARGIN * n) for n in config.image_size[:2])
        volumes, maps = [], []
        for subject in track(subjects, "reading volumes"):
            volume = load_volume(subject)
            volumes.append(in_plane(pooled(volume, config), size))
            if with_maps:
                maps.append(in_plane(small_label_maps(subject, volume.shape, config), size))
        content = sha256_of_json(
            [
                [
                    subject.source_sha256,
                    *map(float, values[row]),
                    *map(sha256_of_voxels, (volumes[row], *maps[row : row + 1])),
                ]
                for row, subject in enumerate(subjects)
            ]
        )
        return cls(tuple(volumes), values, content, tuple(maps))

    def split(self) -> tuple[list[int], list[int]]:
        """Return the subjects to train on and those that are held out: one in 20 (of few: a quarter), over the pool.

        Raises:
            CohortError: too few subjects.
        """
        n_subjects = len(self.volumes)
        if n_subjects < MIN_SUBJECTS:
            raise CohortError(f"{n_subjects} subjects are too few to learn anatomy from: at least {MIN_SUBJECTS}")
        every = max(2, min(HELD_OUT_EVERY, n_subjects // MIN_HELD_OUT), math.ceil(n_subjects / MAX_HELD_OUT))
        held_out = list(range(every - 1, n_subjects, every))
        return sorted(set(range(n_subjects)) - set(held_out)), held_out


def _refuse_twice(names: Sequence[str], directory: Path) -> None:
    """Refuse a name that two cohorts have: the table has one row for both, and the values of one would be wrong."""
    twice = sorted(name for name, number in Counter(names).items() if number > 1)
    if twice:
        raise CohortError(
            f"{directory} holds {len(twice)} subjects twice, such as {twice[0]}: cohorts of several `phantom` runs "
            "share names; train on one of them"
        )


def in_plane(volume: Volume, size: tuple[int, ...]) -> Volume:
    """Crop or zero-pad (2, X, Y, Z) in plane to ``size``, around the centre."""
    for axis, n in zip((1, 2), size, strict=True):
        lower = max(0, (n - volume.shape[axis]) // 2)
        widths = [(lower, 0) if i == axis else (0, 0) for i in range(4)]
        volume = fit_length(np.pad(volume, widths), axis, n)
    return volume
