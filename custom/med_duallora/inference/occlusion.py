"""Where a probability comes from: how it changes when a part of the scan is blanked.

This says what the model reacts to and nothing about causes: a blanked part is itself something that it never saw,
neighbouring parts can stand in for each other, and a part without any effect may still show disease (the method is that
of Zeiler and Fergus, ECCV 2014).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from med_duallora.backbone import BackboneConfig

GRID = (6, 6)
"""Parts along x and y."""
AT_A_TIME = 6
"""Blanked copies that are predicted together."""

Volume = npt.NDArray[np.uint8]
Predict = Callable[[Sequence[Volume]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Occlusion:
    """What blanking each part of a scan changed.

    Args:
        change: (n_x, n_y), probability of disease with the part blanked minus that of the whole scan: below 0 where the
            part speaks for disease.
        edges_x: (n_x + 1,) voxels along x between which the parts lie.
        edges_y: (n_y + 1,), likewise along y.
    """

    change: npt.NDArray[np.float64]
    edges_x: tuple[int, ...]
    edges_y: tuple[int, ...]


def window_of(shape: Sequence[int], backbone: BackboneConfig) -> tuple[int, int, int, int]:
    """Return what a backbone reads of a prepared volume in plane: start and stop along x, then along y, in voxels.

    Args:
        shape: of the volume, (2, X, Y, Z).
        backbone: see ``inputs.to_input``, which crops to its field of view around the centre.
    """
    spans = []
    for size, n_read in zip(shape[1:3], backbone.image_size[:2], strict=True):
        n = min(size, n_read * int(backbone.in_plane_mm))
        spans += [(size - n) // 2, (size - n) // 2 + n]
    return spans[0], spans[1], spans[2], spans[3]


def occlusion(
    predict: Predict,
    volume: Volume,
    window: Sequence[int] | None = None,
    grid: tuple[int, int] = GRID,
    n_together: int = AT_A_TIME,
) -> Occlusion:
    """Blank one part after the other and ask the model again.

    A part is a rectangle in plane through all slices, at ED and ES alike. It is filled with its own mean, slice by
    slice, so that what was to be seen in it is gone and its brightness is not: a part that is darker or brighter than
    before is one more thing to react to, also where there is no heart.

    Args:
        predict: returns the probability of disease (n,) of n volumes.
        volume: uint8 (2, X, Y, Z) as ``prepare`` writes it.
        window: the part of the plane that is divided, see ``window_of``; None: all of it.
        grid: parts along x and y.
        n_together: volumes that ``predict`` gets at a time.

    Raises:
        ValueError: the volume has other axes, or the window lies outside it or has fewer voxels than parts.
    """
    if volume.ndim != 4:
        raise ValueError(f"a volume of shape {volume.shape}, but it must be (2, X, Y, Z)")
    x0, x1, y0, y1 = window or (0, volume.shape[1], 0, volume.shape[2])
    if not (0 <= x0 < x0 + grid[0] <= x1 <= volume.shape[1] and 0 <= y0 < y0 + grid[1] <= y1 <= volume.shape[2]):
        raise ValueError(f"{x0} to {x1} by {y0} to {y1} voxels of {volume.shape} have no {grid[0]} x {grid[1]} parts")
    edges_x, edges_y = _edges(x0, x1, grid[0]), _edges(y0, y1, grid[1])
    whole = float(predict([volume])[0])
    found: list[float] = []
    for together in _batches(_blanked(volume, edges_x, edges_y), n_together):
        found += [float(chance) for chance in predict(together)]
    return Occlusion(np.array(found).reshape(grid) - whole, edges_x, edges_y)


def _edges(start: int, stop: int, n: int) -> tuple[int, ...]:
    return tuple(int(edge) for edge in np.linspace(start, stop, n + 1).round())


def _blanked(volume: Volume, edges_x: Sequence[int], edges_y: Sequence[int]) -> Iterator[Volume]:
    for left, right in pairwise(edges_x):
        for low, high in pairwise(edges_y):
            copy = volume.copy()
            means = volume[:, left:right, low:high].mean(axis=(1, 2), keepdims=True)
            copy[:, left:right, low:high] = means.round().astype(volume.dtype)
            yield copy


def _batches(volumes: Iterator[Volume], n: int) -> Iterator[list[Volume]]:
    batch: list[Volume] = []
    for volume in volumes:
        batch.append(volume)
        if len(batch) == n:
            yield batch
            batch = []
    if batch:
        yield batch
