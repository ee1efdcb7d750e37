"""A subject's raw images from its files, all on the grid of its ED image."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.cohorts.nifti import NiftiImage, read_nifti
from med_duallora.cohorts.same_space import Stack, on_grid_of
from med_duallora.cohorts.subject import ImageSource, RawSubject
from med_duallora.errors import SubjectRefused

Array = np.ndarray[Any, np.dtype[Any]]

NAMES = {"ed": "ED", "es": "ES", "ed_gt": "ED segmentation", "es_gt": "ES segmentation"}


@dataclass(frozen=True)
class Stacks:
    """Raw images of one subject, (X, Y, Z) each and voxel by voxel at the same place.

    Args:
        ed: end-diastolic stack.
        es: end-systolic stack.
        ed_labels: segmentation of ``ed`` as the file numbers it, or None.
        es_labels: the same for ``es``.
        affine: (4, 4), voxel index to RAS world in mm.
        spacing: voxel size in mm.
        remarks: what was noticed about the files, one sentence each; what follows a colon is a detail.
    """

    ed: Array
    es: Array
    ed_labels: Array | None
    es_labels: Array | None
    affine: Array
    spacing: tuple[float, float, float]
    remarks: tuple[str, ...] = ()


def load_stacks(raw: RawSubject, sha256: Mapping[Path, str]) -> Stacks:
    """Read a subject's files and bring all images onto the grid of ED.

    Each file is read once; of a cine only the frames that are used are held.

    Args:
        raw: the subject.
        sha256: of each file, as it was when its subject's hash was computed.

    Raises:
        SubjectRefused: as ``read_nifti`` and ``on_grid_of``; ``wrong-dimensions`` where a stack was expected and a
            cine is there, or the other way round.
    """
    images = {path: _read(path, _frames(raw, path), sha256[path]) for path in sha256}
    stacks = {
        role: _stack(images[source.path], source, role, _frames(raw, source.path)) for role, source in raw.sources()
    }
    remarks = [(text, NAMES[role]) for role, source in raw.sources() for text in images[source.path].remarks]
    aligned, moved = _aligned(stacks)
    ed = images[raw.ed.path]
    return Stacks(
        ed=aligned["ed"].data,
        es=aligned["es"].data,
        ed_labels=aligned["ed_gt"].data if "ed_gt" in aligned else None,
        es_labels=aligned["es_gt"].data if "es_gt" in aligned else None,
        affine=ed.affine,
        spacing=ed.spacing,
        remarks=(*_merged(remarks), *moved),
    )


def _read(path: Path, frames: list[int], sha256: str) -> NiftiImage:
    image = read_nifti(path, frames)
    if image.sha256 != sha256:
        raise SubjectRefused("unreadable-file", f"{path} was changed while it was read")
    return image


def _frames(raw: RawSubject, path: Path) -> list[int]:
    """Return the frames of a file that are used, ascending.

    A file that is named without a frame has to be a stack; should it be a cine, its first frame is enough to say so.
    """
    return sorted({source.frame or 0 for _, source in raw.sources() if source.path == path})


def _stack(image: NiftiImage, source: ImageSource, role: str, frames: list[int]) -> Stack:
    """Return the 3-D stack that ``source`` means; a segmentation of one frame may be a 3-D file."""
    data, frame = image.data, source.frame
    if data.ndim == 4:
        shape = (*image.spatial_shape, image.n_frames)
        if frame is None:
            raise SubjectRefused("wrong-dimensions", f"{source.path} has shape {shape}; expected X x Y x Z")
        data = data[..., frames.index(frame)]
    elif frame and not role.endswith("_gt"):
        detail = f"{source.path} has shape {data.shape}; expected X x Y x Z x frames, for frame {frame}"
        raise SubjectRefused("wrong-dimensions", detail)
    return Stack(NAMES[role], data, image.affine, image.placed)


def _aligned(stacks: Mapping[str, Stack]) -> tuple[dict[str, Stack], list[str]]:
    """Bring ES onto ED's grid; each segmentation onto its image's grid first, and with it onto ED's."""
    ed = stacks["ed"]
    es, remarks = on_grid_of(stacks["es"], ed)
    aligned = {"ed": ed, "es": es}
    for role in ("ed_gt", "es_gt"):
        if role not in stacks:
            continue
        labels, found = on_grid_of(stacks[role], stacks[role.removesuffix("_gt")], may_be_unplaced=True)
        aligned[role], moved = on_grid_of(labels, ed)
        remarks += [*found, *(text for text in moved if text not in found)]
    return aligned, remarks


def _merged(remarks: list[tuple[str, str]]) -> list[str]:
    """Say once what holds for several images: the sentence, who it is about, the first one's detail."""
    about: dict[str, list[str]] = {}
    details: dict[str, str] = {}
    for text, name in remarks:
        sentence, _, detail = text.partition(": ")
        about.setdefault(sentence, []).append(name)
        details.setdefault(sentence, detail)
    return [
        f"{sentence}: {', '.join(names)}" + (f" ({details[sentence]})" if details[sentence] else "")
        for sentence, names in about.items()
    ]
