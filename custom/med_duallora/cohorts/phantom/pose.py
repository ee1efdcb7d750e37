"""How a scanner looks at the heart: the slice stack, its orientation in plane and in space."""

from dataclasses import dataclass, replace

import numpy as np

from med_duallora.cohorts.phantom.parameters import VendorAppearance
from med_duallora.cohorts.phantom.streams import truncated_normal
from med_duallora.cohorts.phantom.texture import Array

# the long axis of a usual heart (apex to base) points right, back and up; axes are (right, anterior, superior)
LONG_AXIS = np.array([0.61, -0.61, 0.51])
SLICE_THICKNESS_SHARE = 0.8
USUAL_LENGTH = 85.0  # mm from mitral plane to apex
APICAL_MARGIN = 5.0  # mm below the endocardial apex that a stack reaches at least


@dataclass(frozen=True)
class Pose:
    """One scan's geometry.

    Args:
        shape: voxels (x, y, slices).
        spacing: mm between voxels along x and y.
        slice_spacing: mm between slice centres.
        bottom: height of the lowest slice below the endocardial apex in mm (positive means below).
        apex_first: slices run from apex to base.
        angle: in-plane rotation in radians.
        centre: where the image centre lies relative to the heart's axis, in mm (u, v).
        shifts: each slice's displacement by another breath-hold, (at least slices, 2) mm.
        frame: columns are the patient directions (right, anterior, superior) of u, v and z.
        origin: patient position of the heart's apex in mm.
    """

    shape: tuple[int, int, int]
    spacing: float
    slice_spacing: float
    bottom: float
    apex_first: bool
    angle: float
    centre: tuple[float, float]
    shifts: tuple[tuple[float, float], ...]
    frame: tuple[tuple[float, ...], ...]
    origin: tuple[float, float, float]

    @property
    def heights(self) -> Array:
        """Heights z of the slices in mm, in stored order."""
        rising: Array = -self.bottom + self.slice_spacing * np.arange(self.shape[2])
        return rising if self.apex_first else rising[::-1]

    @property
    def slice_thickness(self) -> float:
        """Thickness of a slice in mm."""
        return SLICE_THICKNESS_SHARE * self.slice_spacing

    def in_plane(self) -> tuple[Array, Array]:
        """Return heart coordinates (u, v) in mm of every voxel of an undisplaced slice, each (x, y)."""
        x, y = ((np.arange(n) - (n - 1) / 2) * self.spacing for n in self.shape[:2])
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        u = self.centre[0] + cosine * x[:, None] - sine * y[None]
        v = self.centre[1] + sine * x[:, None] + cosine * y[None]
        return u.astype(np.float32), v.astype(np.float32)

    def affine(self) -> Array:
        """Return the 4 x 4 map from voxel (x, y, slice) to patient mm (right, anterior, superior)."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        step = self.slice_spacing * (1 if self.apex_first else -1)
        to_heart = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ np.diag(
            [self.spacing, self.spacing, step]
        )
        middle = np.array([(self.shape[0] - 1) / 2, (self.shape[1] - 1) / 2, 0.0])
        corner = np.array([*self.centre, self.heights[0]]) - to_heart @ middle
        frame = np.array(self.frame)
        affine = np.eye(4)
        affine[:3, :3] = frame @ to_heart
        affine[:3, 3] = frame @ corner + np.array(self.origin)
        return affine


def fit_pose(pose: Pose, length: float) -> Pose:
    """Return ``pose``, drawn for a usual heart, laid over one of ``length`` mm from mitral plane to apex.

    The top slice keeps its distance from the mitral plane. The number of slices stays what it was, unless the apex
    would be missed: what a technologist plans depends on the heart only where it has to.
    """
    bottom = pose.bottom - (length - USUAL_LENGTH)
    n_missing = max(0, int(np.ceil((APICAL_MARGIN - bottom) / pose.slice_spacing)))
    shape = (*pose.shape[:2], pose.shape[2] + n_missing)
    return replace(pose, shape=shape, bottom=bottom + n_missing * pose.slice_spacing)


def draw_pose(rng: np.random.Generator, vendor: VendorAppearance) -> Pose:
    """Draw a scan's geometry for a heart of usual length; nothing here knows the class or the heart's size."""
    scanner = vendor.scanners[int(rng.integers(len(vendor.scanners)))]
    spacing = round(
        truncated_normal(rng, vendor.spacing[0] + 0.5 * scanner * vendor.spacing[1], vendor.spacing[1], 0.98, 1.75), 4
    )
    slice_spacing = vendor.slice_spacings[int(rng.integers(len(vendor.slice_spacings)))]
    field_of_view = truncated_normal(rng, *vendor.field_of_view, 225, 310)
    other_side = field_of_view * (0.82, 0.9, 1.0)[int(rng.integers(3))]
    sides = (field_of_view, other_side) if rng.uniform() < 0.5 else (other_side, field_of_view)
    n_slices = round(truncated_normal(rng, 128, 9, 112, 155) / slice_spacing)
    turns = int(rng.choice(4, p=vendor.quarter_turns))
    angle = turns * np.pi / 2 + np.deg2rad(truncated_normal(rng, 0, 14, -35, 35))
    above = truncated_normal(rng, 11, 5, 3, 24)
    jitter = 0.7 * rng.standard_normal((40, 2))
    return Pose(
        shape=(_even(sides[0] / spacing), _even(sides[1] / spacing), n_slices),
        spacing=spacing,
        slice_spacing=slice_spacing,
        bottom=(n_slices - 1) * slice_spacing - above - USUAL_LENGTH,
        apex_first=bool(rng.uniform() < vendor.apex_first),
        angle=float(angle),
        centre=(truncated_normal(rng, 4, 8, -16, 20), truncated_normal(rng, -2, 8, -18, 18)),
        shifts=tuple((float(u), float(v)) for u, v in jitter),
        frame=_draw_frame(rng),
        origin=(
            float(-40 + 15 * rng.standard_normal()),
            float(40 + 15 * rng.standard_normal()),
            float(20 * rng.standard_normal()),
        ),
    )


def _even(value: float) -> int:
    return 2 * round(value / 2)


def _draw_frame(rng: np.random.Generator) -> tuple[tuple[float, ...], ...]:
    axis = LONG_AXIS + 0.15 * rng.standard_normal(3)
    axis = axis / np.linalg.norm(axis)
    down = np.array([0.0, 0.0, -1.0])
    inferior = down - axis * (axis @ down)
    inferior = inferior / np.linalg.norm(inferior)
    frame = np.stack([np.cross(inferior, axis), inferior, axis], axis=1)
    return tuple(tuple(float(value) for value in row) for row in frame)
