"""NIfTI files written field by field, with headers that no library would write."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

VOXELS = np.arange(60, dtype=np.int16).reshape(5, 4, 3)


def rotation(x: float, y: float, z: float) -> np.ndarray:
    """(3, 3) rotation by angles in radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", (x, y, z)).as_matrix()


def quaternion(turned: np.ndarray) -> tuple[float, float, float]:
    """b, c, d of a proper rotation, with a >= 0."""
    from scipy.spatial.transform import Rotation

    b, c, d, a = Rotation.from_matrix(turned).as_quat()
    sign = math.copysign(1.0, a)
    return b * sign, c * sign, d * sign


def write_raw(
    path: Path,
    data: np.ndarray = VOXELS,
    *,
    pixdim: Sequence[float] = (1.6, 1.5, 9.0),
    qfac: float = 1.0,
    sform: np.ndarray | None = None,
    s_code: int = 0,
    qform: np.ndarray | None = None,
    q_code: int = 0,
    origin: Sequence[float] = (-31.0, 12.0, 77.0),
    q_origin: Sequence[float] | None = None,
    unit: int = 2,
    kind: type = nib.Nifti1Header,
    edit: Callable[[Any], None] | None = None,
) -> Path:
    """Write voxels behind a header whose fields are as given: sform and qform are (3, 3) axes."""
    header = kind()
    header.set_data_dtype(data.dtype)
    header.set_data_shape(data.shape)
    header["pixdim"][:4] = [qfac, *pixdim]
    header["sform_code"], header["qform_code"], header["xyzt_units"] = s_code, q_code, unit
    if sform is not None:
        for row, axis in enumerate("xyz"):
            header[f"srow_{axis}"] = [*sform[row], origin[row]]
    if qform is not None:
        for name, value in zip("bcd", quaternion(qform), strict=True):
            header[f"quatern_{name}"] = value
        for name, value in zip("xyz", origin if q_origin is None else q_origin, strict=True):
            header[f"qoffset_{name}"] = value
    header["magic"] = b"n+1" if kind is nib.Nifti1Header else b"n+2\0\r\n\x1a\n"
    header["vox_offset"] = len(header.binaryblock) + 4
    if edit:
        edit(header)
    path.write_bytes(header.binaryblock + bytes(4) + data.tobytes(order="F"))
    return path
