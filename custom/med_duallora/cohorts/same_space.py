"""Bring an image onto another one's grid where both show the same voxels, in whatever order and direction."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from med_duallora.errors import SubjectRefused

Array = np.ndarray[Any, np.dtype[Any]]

# Grids are one grid if no corner is farther off than this, along any axis. Rounding in headers stays far below it; a
# neighbouring voxel or slice is farther away.
MAX_OFFSET_VOXELS = 0.5
MAX_OFFSET_MM = 2.0
# From here on a remark says so.
NOTABLE_VOXELS = 0.05

ALIGNED = 0.9  # least cosine between two axes that are taken for one
SAME_AXIS = 0.999  # the same where axes must be one, not only nearest to each other
SAME_SIZE = 0.01  # relative difference of voxel sizes that are one

OFF_GRID = "an image lies beside its partner's grid by less than half a voxel and was taken to lie on it"
UNPLACED = "a header tells no place, its voxels were taken to lie on those of the image"
REORDERED = "axes were turned to match the ED image"


@dataclass(frozen=True)
class Stack:
    """One 3-D image and where it lies.

    Args:
        name: as messages call it, for example ``ES segmentation``.
        data: voxels (X, Y, Z).
        affine: (4, 4), voxel index to RAS world in mm.
        placed: whether its header tells a place at all.
    """

    name: str
    data: Array
    affine: Array
    placed: bool = True


def on_grid_of(stack: Stack, target: Stack, *, may_be_unplaced: bool = False) -> tuple[Stack, list[str]]:
    """Return ``stack`` with its voxels in the order of ``target``'s, and remarks.

    Axes are permuted and turned, never interpolated.

    Args:
        stack: to bring onto the grid.
        target: gives the grid.
        may_be_unplaced: take equal shapes for one grid where one of the two headers tells no place: programs that
            lose a header keep the order of the voxels. Not so where both headers hold the voxel size and the one
            with a place says that its axes are turned: it was turned by a program that kept the header.

    Raises:
        SubjectRefused: ``shape-mismatch`` or ``space-mismatch``; the detail says what differs.
    """
    try:
        return _reordered(stack, target)
    except SubjectRefused as refused:
        lost = not (stack.placed and target.placed)
        if not (may_be_unplaced and lost and stack.data.shape == target.data.shape):
            raise
        if stack.placed != target.placed and _is_turned(stack, target):
            detail = f"{refused.detail}; by their headers one of the two was turned or flipped: store both alike"
            raise SubjectRefused(refused.reason, detail) from refused
        return Stack(stack.name, stack.data, target.affine, target.placed), [f"{UNPLACED}: {stack.name}"]


def _reordered(stack: Stack, target: Stack) -> tuple[Stack, list[str]]:
    rotation = np.linalg.solve(_directions(target.affine), _directions(stack.affine))
    order = np.abs(rotation).argmax(axis=1)
    signs = np.sign(rotation[range(3), order])
    if sorted(order) != [0, 1, 2] or np.abs(rotation[range(3), order]).min() < ALIGNED:
        if stack.data.shape != target.data.shape:
            raise SubjectRefused("shape-mismatch", _shapes(stack, target))
        angle = np.degrees(np.arccos(np.clip(np.abs(rotation).max(axis=1).min(), 0, 1)))
        detail = f"the axes of {stack.name} are turned against those of {target.name}, by about {angle:.0f} degrees"
        raise SubjectRefused("space-mismatch", detail)
    data, affine = _turned(stack, order, signs)
    if data.shape != target.data.shape:
        raise SubjectRefused("shape-mismatch", _shapes(stack, target))
    remarks = _check_offset(stack.name, affine, target)
    if (order != [0, 1, 2]).any() or (signs < 0).any():
        remarks.append(f"{REORDERED}: {stack.name}")
    return Stack(stack.name, data, affine, stack.placed), remarks


def _is_turned(stack: Stack, target: Stack) -> bool:
    """Return whether two headers hold the same axes and voxel sizes in another order or direction."""
    rotation = np.linalg.solve(_directions(target.affine), _directions(stack.affine))
    order = np.abs(rotation).argmax(axis=1)
    along = rotation[range(3), order]
    sizes, expected = (np.linalg.norm(item.affine[:3, :3], axis=0) for item in (stack, target))
    same_sizes = np.allclose(sizes[order], expected, rtol=SAME_SIZE, atol=0)
    return bool(same_sizes and np.abs(along).min() > SAME_AXIS and ((order != [0, 1, 2]).any() or along.min() < 0))


def _turned(stack: Stack, order: Array, signs: Array) -> tuple[Array, Array]:
    """Return voxels with axis i from axis order[i], turned round where signs[i] < 0, and their affine."""
    affine = stack.affine.copy()
    affine[:3, :3] = stack.affine[:3, order] * signs
    last = np.array(stack.data.shape)[order] - 1
    affine[:3, 3] += stack.affine[:3, order] @ np.where(signs < 0, last, 0)
    steps = tuple(slice(None, None, -1 if sign < 0 else 1) for sign in signs)
    return stack.data.transpose(order)[steps], affine


def _check_offset(name: str, affine: Array, target: Stack) -> list[str]:
    """Refuse where a corner of two grids of one shape is too far from the other's; remark on smaller offsets."""
    spacing = np.linalg.norm(target.affine[:3, :3], axis=0)
    corners = np.stack(np.meshgrid(*([0, n - 1] for n in target.data.shape), indexing="ij")).reshape(3, -1)
    world = (affine - target.affine)[:3] @ np.vstack([corners, np.ones(corners.shape[1])])
    off = np.abs(np.linalg.solve(_directions(target.affine), world)).max(axis=1)
    if not (off <= np.minimum(MAX_OFFSET_VOXELS * spacing, MAX_OFFSET_MM)).all():
        detail = f"{name} does not lie on the voxels of {target.name}: its corners are up to "
        detail += " / ".join(f"{value:.1f}" for value in off) + " mm away along x / y / z"
        raise SubjectRefused("space-mismatch", detail)
    if (off > NOTABLE_VOXELS * spacing).any():
        return [f"{OFF_GRID}: {name}, by {' / '.join(f'{value:.2f}' for value in off)} mm along x / y / z"]
    return []


def _directions(affine: Array) -> Array:
    directions: Array = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return directions


def _shapes(stack: Stack, target: Stack) -> str:
    return f"{stack.name} has shape {stack.data.shape}, but {target.name} has {target.data.shape}"
