"""What a crop is centred on where there is no segmentation: the heart, or the image where that is not found."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from med_duallora.cohorts.heart_place import CONFIDENT, MAX_FRAMES, find_heart
from med_duallora.cohorts.nifti import NiftiImage, read_nifti
from med_duallora.cohorts.stacks import Stacks
from med_duallora.cohorts.subject import RawSubject
from med_duallora.errors import SubjectRefused

__all__ = ["CONFIDENT", "CropCentre", "cine_frames", "crop_centre"]

Array = np.ndarray[Any, np.dtype[Any]]

UNSURE = "no segmentation, and the heart was not found with confidence, so the crop is centred on the image"


@dataclass(frozen=True)
class CropCentre:
    """Where a subject is to be cropped.

    Args:
        place: raw voxel index along x and y; None: a segmentation decides, or the image's centre.
        confidence: of the place that was looked for, 0 to 1; None where a segmentation decides.
        remarks: what a user should know.
    """

    place: tuple[float, float] | None = None
    confidence: float | None = None
    remarks: tuple[str, ...] = ()


def crop_centre(raw: RawSubject, stacks: Stacks) -> CropCentre:
    """Find the heart of a subject without a segmentation of ED: in its cine where there is one, else in ED and ES.

    Args:
        raw: the subject.
        stacks: its images on the grid of ED.
    """
    if stacks.ed_labels is not None:
        return CropCentre()
    cine = cine_frames(raw, stacks)
    frames = np.stack([stacks.ed, stacks.es], axis=3) if cine is None else cine
    found = find_heart(frames, stacks.spacing)
    if found.confidence < CONFIDENT:
        return CropCentre(None, found.confidence, (f"{UNSURE}: confidence {found.confidence:.2f}",))
    return CropCentre(found.centre, found.confidence)


def cine_frames(raw: RawSubject, stacks: Stacks) -> Array | None:
    """Return some frames of a subject's cine, evenly spread, (X, Y, Z, T); None without a cine on the grid of ED.

    A cine only helps to find the heart: where it cannot be read or lies elsewhere, ED and ES do.
    """
    if raw.cine is None:
        return None
    try:
        n_frames = read_nifti(raw.cine.path, [0]).n_frames
        chosen = sorted(set(np.linspace(0, n_frames, min(n_frames, MAX_FRAMES), endpoint=False).astype(int).tolist()))
        image = read_nifti(raw.cine.path, chosen)
    except SubjectRefused:
        return None
    return image.data if len(chosen) > 1 and _on_grid(image, stacks) else None


def _on_grid(image: NiftiImage, stacks: Stacks) -> bool:
    same_shape = image.data.ndim == 4 and image.spatial_shape == stacks.ed.shape
    return same_shape and np.allclose(image.affine, stacks.affine, atol=0.5)
