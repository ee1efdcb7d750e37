"""Unlabelled volumes for pre-training: kept small in memory, changed cheaply when drawn."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.backbone.config import BackboneConfig
from med_duallora.backbone.inputs import FloatVolume, Volume, fit_length, to_unit_range
from med_duallora.cohorts.prepared import COHORT_TABLE, PreparedCohort, PreparedSubject, load_volume
from med_duallora.errors import CohortError
from med_duallora.support.files import sha256_of_json
from med_duallora.support.progress import track

GREY_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
MIN_SLICES = 4


@dataclass(frozen=True)
class ViewConfig:
    """Random changes of a volume when it is drawn.

    Args:
        frames: ``pair``: ED and ES together, as two channels; ``single``: one of them, as CineMA does.
        gamma: range of the intensity exponent.
        gamma_probability: of a gamma change.
        shift: largest in-plane shift in input voxels.
        max_dropped: most slices that are dropped at either end of the stack.
    """

    frames: str = "pair"
    gamma: tuple[float, float] = (0.5, 1.5)
    gamma_probability: float = 0.5
    shift: int = 8
    max_dropped: int = 2


@dataclass(frozen=True)
class VolumePool:
    """Volumes of many subjects, pooled to a backbone's in-plane spacing.

    Args:
        volumes: uint8 (2, X, Y, n_slices) per subject, X and Y as the backbone's input has them.
        image_size: the backbone's input size.
        content: SHA-256 over the subjects' source hashes and voxels.
    """

    volumes: tuple[Volume, ...]
    image_size: tuple[int, ...]
    content: str

    @classmethod
    def load(cls, directory: Path, config: BackboneConfig) -> "VolumePool":
        """Read every subject of a prepared cohort, or of all prepared cohorts in a folder; labels are not used.

        Raises:
            CohortError: no prepared cohort is there, or a volume cannot be read.
        """
        subjects = [subject for cohort in find_cohorts(directory) for subject in cohort.subjects]
        volumes = [small_volume(subject, config) for subject in track(subjects, "reading volumes")]
        content = sha256_of_json(
            sorted([s.source_sha256, sha256_of_voxels(volume)] for s, volume in zip(subjects, volumes, strict=True))
        )
        return cls(tuple(volumes), config.image_size, content)

    def split(self, n_held_out: int) -> tuple["VolumePool", "VolumePool"]:
        """Return the pool without its last ``n_held_out`` subjects, and these.

        Raises:
            CohortError: no subject would be left to train on.
        """
        if n_held_out >= len(self.volumes):
            raise CohortError(f"{len(self.volumes)} subjects are too few to hold {n_held_out} of them out")
        kept = len(self.volumes) - n_held_out
        return (
            VolumePool(self.volumes[:kept], self.image_size, self.content),
            VolumePool(self.volumes[kept:], self.image_size, self.content),
        )

    def plain(self, index: int, frames: str) -> FloatVolume:
        """Return a subject's volumes unchanged: (samples, channels, *image_size); one pair, or two single frames."""
        volume = fit_length(GREY_LEVELS[self.volumes[index]], 3, self.image_size[2])
        return volume[None] if frames == "pair" else volume[:, None]

    def draw(self, index: int, config: ViewConfig, rng: np.random.Generator) -> FloatVolume:
        """Return a subject's randomly changed frames, float32: (2, *image_size) or, for single, (1, *image_size)."""
        volume = _drop_slices(self.volumes[index], config.max_dropped, rng)
        volume = _flip_and_turn(volume, rng)
        volume = _shift(volume, config.shift, rng)
        levels = GREY_LEVELS
        if rng.random() < config.gamma_probability:
            levels = GREY_LEVELS ** np.float32(rng.uniform(*config.gamma))
        chosen = int(rng.integers(2))
        if config.frames == "single":
            volume = volume[chosen : chosen + 1]
        return fit_length(levels[volume], 3, self.image_size[2])


def find_cohorts(directory: Path) -> Sequence[PreparedCohort]:
    """Return the prepared cohort in a folder, or those in its subfolders, by name.

    Raises:
        CohortError: there is none, or one is damaged.
    """
    if (directory / COHORT_TABLE).is_file():
        return [PreparedCohort.read(directory)]
    tables = sorted(directory.glob(f"*/{COHORT_TABLE}"))
    if not tables:
        raise CohortError(f"{directory} holds no prepared cohort ({COHORT_TABLE}); `med-duallora prepare` writes one")
    return [PreparedCohort.read(table.parent) for table in tables]


def small_volume(subject: PreparedSubject, config: BackboneConfig) -> Volume:
    """Return a subject's ED and ES as uint8 (2, X, Y, n_slices) on the backbone's in-plane grid."""
    (nx, ny, _), step = config.image_size, int(config.in_plane_mm)
    volume = load_volume(subject)
    return _pooled(fit_length(fit_length(volume, 1, nx * step), 2, ny * step), step)


def sha256_of_voxels(volume: Volume) -> str:
    """Return the hash of a volume's shape and voxels: what a run learns from, whatever a table says of its source."""
    return hashlib.sha256(str(volume.shape).encode() + np.ascontiguousarray(volume).tobytes()).hexdigest()


def pooled(volume: Volume, config: BackboneConfig) -> Volume:
    """Return all of ED and ES, as ``load_volume`` reads them, as uint8 in the backbone's in-plane spacing."""
    step = int(config.in_plane_mm)
    for axis in (1, 2):
        volume = fit_length(volume, axis, -(-volume.shape[axis] // step) * step)
    return _pooled(volume, step)


def _pooled(volume: Volume, step: int) -> Volume:
    (n_frames, nx, ny, nz), unit = volume.shape, to_unit_range(volume)
    pooled = unit.reshape(n_frames, nx // step, step, ny // step, step, nz).mean(axis=(2, 4))
    levels: Volume = np.rint(pooled * 255).astype(np.uint8)
    return levels


def _drop_slices(volume: Volume, max_dropped: int, rng: np.random.Generator) -> Volume:
    first, last = rng.integers(0, max_dropped + 1, size=2)
    n = volume.shape[3]
    return volume[..., first : n - last] if n - first - last >= MIN_SLICES else volume


def _flip_and_turn(volume: Volume, rng: np.random.Generator) -> Volume:
    flips = tuple(axis for axis, flip in zip((1, 2, 3), rng.random(3) < 0.5, strict=True) if flip)
    quarter_turns = int(rng.integers(4))
    volume = np.flip(volume, flips)
    # a quarter turn of a non-square slice would change its shape
    return np.rot90(volume, quarter_turns, axes=(1, 2)) if volume.shape[1] == volume.shape[2] else volume


def _shift(volume: Volume, limit: int, rng: np.random.Generator) -> Volume:
    """Shift in plane by whole voxels; what moves in is 0."""
    dx, dy = rng.integers(-limit, limit + 1, size=2)
    (_, nx, ny, _) = volume.shape
    shifted = np.zeros_like(volume)
    shifted[:, max(dx, 0) : nx + min(dx, 0), max(dy, 0) : ny + min(dy, 0)] = volume[
        :, max(-dx, 0) : nx + min(-dx, 0), max(-dy, 0) : ny + min(-dy, 0)
    ]
    return shifted
