"""Where the voxels of a NIfTI file lie: by ITK's rule, which the published preparation follows.

A NIfTI header tells voxel sizes once (pixdim) and directions and origin twice (sform and qform), and the three
often contradict each other. ITK's rule, found by letting ITK 5.4 read such files (the tests do so again):

- The voxel size is pixdim's, whatever the sform's columns say. A negative pixdim turns its axis round.
- Directions and origin are the sform's where its normalised columns are orthonormal within 1e-4 and its code is 1 or
  there is no qform; else the qform's; where neither has a code, ITK's own axes at the origin.
- The header's unit counts: metres and micrometres become mm.

ITK refuses a file whose only form is an sform that is not orthonormal. Such a file is read here nevertheless (the
map from prepared to raw voxels needs no right angles) while its axes span space, and a remark says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from med_duallora.errors import SubjectRefused

Array = np.ndarray[Any, np.dtype[Any]]

ITK_AXES = np.diag([-1.0, -1.0, 1.0])  # in RAS: ITK's own x and y point to the left and to the back
UNITS_MM = {1: 1000.0, 3: 0.001}  # NIfTI's codes of metre and micrometre; everything else is mm

ORTHONORMAL = 1e-4  # ITK's tolerance
SINGULAR = 1e-16  # about the determinant from which on ITK takes an sform for none
MAX_ORIGIN = 1e9  # in the header's unit: a kilometre in micrometres
SPACING_LIMITS = (1e-6, 1e6)  # mm; narrower limits, for hearts, are applied later
ALMOST_FLAT = 0.1  # volume that three unit axes span, below which they no longer describe a stack

SIZE_TOLERANCE = 0.01  # relative
ANGLE_TOLERANCE = 0.5  # degrees
ORIGIN_TOLERANCE = 0.5  # mm

# Beginnings of remarks; what follows a colon is a detail of the file.
SIZES_CONTRADICT = "the sform's columns contradict the voxel size, which was taken"
FORMS_CONTRADICT = "sform and qform contradict each other"
NO_RIGHT_ANGLES = "the axes are not at right angles, ITK refuses such a file"
SFORM_UNUSABLE = "the sform is unusable, the qform was taken"
NO_FORM = "the header tells no directions, ITK's axes were taken"
NEGATIVE_SIZE = "a negative voxel size turned its axis round"


@dataclass(frozen=True)
class Geometry:
    """Where voxels lie.

    Args:
        affine: (4, 4), voxel index to RAS world in mm: unit directions times voxel size, and the origin.
        spacing: voxel size in mm along the three spatial axes.
        placed: whether the header tells a place at all; without one it has no form, or what programs write where
            they know nothing: the world's axes at its origin.
        remarks: contradictions in the header and how they were resolved, one sentence each.
    """

    affine: Array
    spacing: tuple[float, float, float]
    placed: bool
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Form:
    """Directions (3, 3) as unit columns in RAS, origin (3,) in the header's unit, and the form's code."""

    directions: Array
    origin: Array
    code: int
    lengths: Array | None = None  # of an sform's columns, in the header's unit

    @property
    def orthonormal(self) -> bool:
        product = self.directions @ self.directions.T
        return bool(np.abs(product - np.eye(3)).max() <= ORTHONORMAL)


def itk_geometry(header: Mapping[str, Any]) -> Geometry:
    """Return the geometry that ITK reads from a NIfTI-1 or NIfTI-2 header.

    Args:
        header: pixdim, qform_code, quatern_b to _d, qoffset_x to _z, sform_code, srow_x to _z, xyzt_units.

    Raises:
        SubjectRefused: ``bad-geometry``: a voxel size is zero or no number, or no form describes three axes. The
            detail does not name the file.
    """
    with np.errstate(all="ignore"):
        pixdim = np.asarray(header["pixdim"], dtype=np.float64)[1:4]
    if not (np.isfinite(pixdim).all() and pixdim.all()):
        raise SubjectRefused("bad-geometry", f"voxel size {_sizes(pixdim)} is unusable; give the true one in pixdim")
    sform, qform = _sform(header), _qform(header)
    has_sform = int(header["sform_code"]) > 0
    form, remarks = _chosen(sform, qform, has_sform)
    unit = UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    if form.lengths is not None and np.abs(form.lengths / np.abs(pixdim) - 1).max() > SIZE_TOLERANCE:
        remarks.append(f"{SIZES_CONTRADICT}: {_sizes(form.lengths)} against {_sizes(np.abs(pixdim))}")
    if (pixdim < 0).any():
        remarks.append(f"{NEGATIVE_SIZE}: {_sizes(pixdim)}")
    if not (np.abs(form.origin) <= MAX_ORIGIN).all():
        raise SubjectRefused("bad-geometry", f"the origin {form.origin.tolist()} is not a place near a scanner")
    spacing = np.abs(pixdim) * unit
    if not ((spacing >= SPACING_LIMITS[0]) & (spacing <= SPACING_LIMITS[1])).all():
        raise SubjectRefused("bad-geometry", f"voxels of {_sizes(spacing)} mm are not those of a scan")
    affine = np.eye(4)
    affine[:3, :3] = form.directions * np.sign(pixdim) * spacing
    affine[:3, 3] = form.origin * unit
    unplaced = np.allclose(np.abs(form.directions), np.eye(3), atol=ORTHONORMAL) and not form.origin.any()
    return Geometry(affine, (float(spacing[0]), float(spacing[1]), float(spacing[2])), not unplaced, tuple(remarks))


def _chosen(sform: _Form | None, qform: _Form | None, has_sform: bool) -> tuple[_Form, list[str]]:
    """Return the form that ITK takes, and what has to be said about the other one."""
    good = sform is not None and sform.orthonormal
    if sform is not None and good and (sform.code == 1 or qform is None):
        return sform, _difference(sform, qform, "sform")
    if qform is not None:
        if has_sform and not good:
            return qform, [SFORM_UNUSABLE]
        return qform, _difference(qform, sform, "qform")
    if sform is not None:
        if abs(np.linalg.det(sform.directions)) < ALMOST_FLAT:
            raise SubjectRefused("bad-geometry", "two of the sform's axes are almost parallel and there is no qform")
        return sform, [f"{NO_RIGHT_ANGLES}: up to {_skew(sform.directions):.2g} degrees off"]
    if has_sform:
        raise SubjectRefused(
            "bad-geometry", "the sform's axes are not axes (zero, or not numbers) and there is no qform"
        )
    return _Form(ITK_AXES, np.zeros(3), 0), [NO_FORM]


def _difference(taken: _Form, other: _Form | None, name: str) -> list[str]:
    if other is None:
        return []
    cosines = np.clip((taken.directions * other.directions).sum(axis=0), -1, 1)
    angle = float(np.degrees(np.arccos(cosines.min())))
    distance = float(np.abs(taken.origin - other.origin).max())
    if angle <= ANGLE_TOLERANCE and distance <= ORIGIN_TOLERANCE:
        return []
    return [f"{FORMS_CONTRADICT}, the {name} was taken: {angle:.1f} degrees and {distance:.1f} mm apart"]


def _sform(header: Mapping[str, Any]) -> _Form | None:
    """Return the sform with normalised columns; None without code, and where it describes no axes."""
    with np.errstate(all="ignore"):  # a signalling NaN
        rows = np.asarray([header[f"srow_{axis}"] for axis in "xyz"], dtype=np.float64)
    if int(header["sform_code"]) <= 0 or not np.isfinite(rows).all():
        return None
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(rows[:, :3], axis=0)
        directions = rows[:, :3] / lengths
        if not (abs(np.linalg.det(rows[:, :3])) > SINGULAR and np.isfinite(directions).all()):
            return None
    return _Form(directions, rows[:, 3], int(header["sform_code"]), lengths)


def _qform(header: Mapping[str, Any]) -> _Form | None:
    """Return the qform; as in ITK's NIfTI library numbers that are none are 0 and long quaternions are shortened."""
    if int(header["qform_code"]) <= 0:
        return None
    b, c, d = _finite([header[f"quatern_{part}"] for part in "bcd"])
    with np.errstate(all="ignore"):
        rest = 1.0 - (b * b + c * c + d * d)
        a = np.sqrt(max(rest, 0.0))
        if rest < 1e-7:
            a, (b, c, d) = 0.0, np.array([b, c, d]) / np.linalg.norm([b, c, d])
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    if header["pixdim"][0] < 0:
        rotation[:, 2] *= -1
    origin = _finite([header[f"qoffset_{axis}"] for axis in "xyz"])
    form = _Form(rotation, origin, int(header["qform_code"]))
    return form if np.isfinite(rotation).all() and form.orthonormal else None


def _finite(values: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _skew(directions: Array) -> float:
    """Return by how many degrees the angle between two axes differs from a right one, at most."""
    cosines = (directions.T @ directions)[np.triu_indices(3, 1)]
    return float(np.degrees(np.arcsin(np.clip(np.abs(cosines).max(), 0, 1))))


def _sizes(values: Array) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
