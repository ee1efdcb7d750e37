"""ITK itself is asked where the voxels of each file lie; this project must say the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import itk_geometry as module
from med_duallora.cohorts.nifti import NiftiImage, read_nifti
from med_duallora.errors import SubjectRefused
from tests.unit.cohorts.niftifile import rotation, write_raw

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK (test extra) says what ITK reads")

LPS = np.diag([-1.0, -1.0, 1.0])
SIZE = np.array([1.6, 1.5, 9.0])
R = rotation(0.6, -0.9, 0.2)
OTHER = rotation(-0.3, 0.4, 0.2)
FLAT = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def sheared(amount: float) -> np.ndarray:
    axes = R.copy()
    axes[:, 0] += amount * axes[:, 1]
    return axes / np.linalg.norm(axes, axis=0)


def set_to(name: str, value: Any) -> Callable[[Any], None]:
    return lambda header: header.__setitem__(name, value)


def read_by_itk(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return spacing and RAS affine as ITK has them; None where it refuses."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    spacing = np.array(image.GetSpacing())
    affine = np.eye(4)
    affine[:3, :3] = LPS @ np.array(image.GetDirection()).reshape(3, 3) * spacing
    affine[:3, 3] = LPS @ image.GetOrigin()
    return spacing, affine


def assert_as_itk(path: Path) -> NiftiImage:
    image, itk = read_nifti(path), read_by_itk(path)
    assert itk is not None, "ITK refuses this file"
    assert np.allclose(image.spacing, itk[0], rtol=1e-6)
    assert np.allclose(image.affine, itk[1], atol=2e-3), f"{image.affine}\nITK: {itk[1]}"
    assert np.allclose(image.affine[:3, :3], itk[1][:3, :3], atol=2e-5)
    return image


# name: fields of the header, beginnings of the remarks
READ_ALIKE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "q0s2, unit columns (ACDC)": ({"sform": R, "s_code": 2}, [module.SIZES_CONTRADICT]),
    "q0s1": ({"sform": R * SIZE, "s_code": 1}, []),
    "q0s1, other columns": ({"sform": R * (2, 3, 4), "s_code": 1}, [module.SIZES_CONTRADICT]),
    "q0s4": ({"sform": R * SIZE, "s_code": 4}, []),
    "q1s1 alike": ({"sform": R * SIZE, "s_code": 1, "qform": R, "q_code": 1}, []),
    "q1s1, columns 5 % off": (
        {"sform": R * SIZE * (1.05, 1, 1), "s_code": 1, "qform": R, "q_code": 1},
        [module.SIZES_CONTRADICT],
    ),
    "q1s1 oblique to each other": (
        {"sform": R * SIZE, "s_code": 1, "qform": OTHER, "q_code": 1},
        [f"{module.FORMS_CONTRADICT}, the sform was taken"],
    ),
    "q1s2 oblique to each other": (
        {"sform": R * SIZE, "s_code": 2, "qform": OTHER, "q_code": 1},
        [f"{module.FORMS_CONTRADICT}, the qform was taken"],
    ),
    "q2s1 oblique to each other": (
        {"sform": R * SIZE, "s_code": 1, "qform": OTHER, "q_code": 2},
        [f"{module.FORMS_CONTRADICT}, the sform was taken"],
    ),
    "q1s3 other origin": (
        {"sform": R * SIZE, "s_code": 3, "qform": R, "q_code": 1, "q_origin": (55, 12, 77)},
        [f"{module.FORMS_CONTRADICT}, the qform was taken"],
    ),
    "q1s1 other origin": (
        {"sform": R * SIZE, "s_code": 1, "qform": R, "q_code": 1, "q_origin": (55, 12, 77)},
        [f"{module.FORMS_CONTRADICT}, the sform was taken"],
    ),
    "q0s1 identity with real pixdim": ({"sform": np.eye(3), "s_code": 1}, [module.SIZES_CONTRADICT]),
    "q1s1 identity with real pixdim": (
        {"sform": np.eye(3), "s_code": 1, "qform": R, "q_code": 1},
        [f"{module.FORMS_CONTRADICT}, the sform was taken", module.SIZES_CONTRADICT],
    ),
    "q1s2 identity with real pixdim": (
        {"sform": np.eye(3), "s_code": 2, "qform": R, "q_code": 1},
        [f"{module.FORMS_CONTRADICT}, the qform was taken"],
    ),
    "q0s0": ({}, [module.NO_FORM]),
    "q0s0 with forgotten forms": ({"sform": R * SIZE, "qform": OTHER}, [module.NO_FORM]),
    "negative codes": ({"sform": R * SIZE, "s_code": -1, "qform": OTHER, "q_code": -1}, [module.NO_FORM]),
    "unknown code of the sform": ({"sform": R * SIZE, "s_code": 9}, []),
    "qform only": ({"qform": R, "q_code": 1}, []),
    "qform only, unknown code": ({"qform": R, "q_code": 9}, []),
    "qform, qfac -1": ({"qform": R, "q_code": 1, "qfac": -1}, []),
    "qform, qfac 0": ({"qform": R, "q_code": 1, "qfac": 0}, []),
    "qform, qfac -5": ({"qform": R, "q_code": 1, "qfac": -5}, []),
    "half a turn": ({"qform": rotation(np.pi, 0, 0), "q_code": 1}, []),
    "long quaternion": ({"qform": R, "q_code": 1, "edit": set_to("quatern_b", 1e30)}, []),
    "quaternion of no numbers": ({"qform": R, "q_code": 1, "edit": set_to("quatern_b", np.nan)}, []),
    "origin of no number in the qform": ({"qform": R, "q_code": 1, "q_origin": (np.nan, 1, 2)}, []),
    "left-handed sform": ({"sform": R * (1, 1, -1) * SIZE, "s_code": 1}, []),
    "axes permuted": ({"sform": R[:, [2, 0, 1]] * SIZE, "s_code": 1}, []),
    "sform, negative pixdim": (
        {"sform": R * SIZE, "s_code": 1, "pixdim": SIZE * (-1, 1, 1)},
        [module.NEGATIVE_SIZE],
    ),
    "qform, negative pixdim": ({"qform": R, "q_code": 1, "pixdim": SIZE * (1, -1, 1)}, [module.NEGATIVE_SIZE]),
    "q0s0, negative pixdim": ({"pixdim": SIZE * (1, 1, -1)}, [module.NO_FORM, module.NEGATIVE_SIZE]),
    "rounding of the sform": ({"sform": sheared(1e-4) * SIZE, "s_code": 1}, []),
    "sheared sform, qform": (
        {"sform": sheared(0.08) * SIZE, "s_code": 1, "qform": OTHER, "q_code": 1},
        [module.SFORM_UNUSABLE],
    ),
    "singular sform, qform": (
        {"sform": FLAT * SIZE, "s_code": 1, "qform": OTHER, "q_code": 1},
        [module.SFORM_UNUSABLE],
    ),
    "zero sform, qform": ({"sform": FLAT * 0, "s_code": 2, "qform": OTHER, "q_code": 1}, [module.SFORM_UNUSABLE]),
    "sform of no numbers, qform": (
        {"sform": R * (np.nan, 1, 1), "s_code": 1, "qform": OTHER, "q_code": 1},
        [module.SFORM_UNUSABLE],
    ),
    "metres": (
        {"sform": R * SIZE / 1000, "s_code": 1, "pixdim": SIZE / 1000, "unit": 1, "origin": (0.1, 0.2, 0.3)},
        [],
    ),
    "micrometres, and seconds": ({"sform": R * SIZE * 1000, "s_code": 1, "pixdim": SIZE * 1000, "unit": 11}, []),
    "no unit": ({"sform": R * SIZE, "s_code": 1, "unit": 0}, []),
}


@pytest.mark.parametrize("name", READ_ALIKE)
def test_itk_reads_the_same_geometry(tmp_path: Path, name: str) -> None:
    fields, remarks = READ_ALIKE[name]
    image = assert_as_itk(write_raw(tmp_path / "a.nii", **fields))
    assert len(image.remarks) == len(remarks), image.remarks
    for text, beginning in zip(image.remarks, remarks, strict=True):
        assert text.startswith(beginning)
        assert "; " not in text  # which separates remarks in a table


def test_any_mixture_of_fields_is_read_as_itk_reads_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    n_read = 0
    for _ in range(200):
        axes = [rotation(*rng.uniform(-np.pi, np.pi, 3)) for _ in range(2)]
        fields = {
            "sform": axes[0] * rng.choice([SIZE, [1, 1, 1], [2, 3, 4]]) * rng.choice([-1, 1], 3),
            "qform": axes[rng.integers(2)],
            "s_code": rng.integers(0, 5),
            "q_code": rng.integers(0, 5),
            "qfac": rng.choice([-1, 0, 1]),
            "pixdim": rng.uniform(0.5, 10, 3) * rng.choice([-1, 1, 1], 3),
            "origin": rng.normal(0, 100, 3),
            "q_origin": rng.normal(0, 100, 3),
            "unit": rng.choice([0, 2, 10]),
        }
        if fields["s_code"] and rng.random() < 0.2:
            fields["sform"][0] = rng.choice([0, np.nan])
            if not fields["q_code"]:
                continue
        assert_as_itk(write_raw(tmp_path / "a.nii", **fields))
        n_read += 1
    assert n_read > 150


@pytest.mark.parametrize(
    "fields",
    [
        {"sform": FLAT * SIZE, "s_code": 1},
        {"sform": FLAT * 0, "s_code": 1},
        {"sform": R * (np.nan, 1, 1), "s_code": 1},
        {"sform": R * SIZE, "s_code": 1, "origin": (np.nan, 0, 0)},
    ],
)
def test_what_itk_refuses_and_has_no_axes_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = write_raw(tmp_path / "a.nii", **fields)
    assert read_by_itk(path) is None
    with pytest.raises(SubjectRefused) as refused:
        read_nifti(path)
    assert refused.value.reason == "bad-geometry"
    assert str(path) in refused.value.detail


@pytest.mark.parametrize("value", [np.inf, 1e30])
def test_an_endless_origin_is_refused(tmp_path: Path, value: float) -> None:
    """ITK is not asked: with infinity it computes for ever."""
    with pytest.raises(SubjectRefused) as refused:
        read_nifti(write_raw(tmp_path / "a.nii", sform=R * SIZE, s_code=2, origin=(0, value, 0)))
    assert refused.value.reason == "bad-geometry"


@pytest.mark.parametrize("value", [1e-200, 1e200])
def test_a_voxel_size_beyond_all_measure_is_refused(tmp_path: Path, value: float) -> None:
    path = write_raw(tmp_path / "a.nii", sform=R, s_code=1, pixdim=(1.6, 1.5, value), kind=nib.Nifti2Header)
    with pytest.raises(SubjectRefused) as refused:
        read_nifti(path)
    assert refused.value.reason == "bad-geometry"


@pytest.mark.parametrize("amount", [0.0005, 0.01, 0.08])
def test_a_sheared_sform_is_read_with_a_remark_although_itk_refuses_it(tmp_path: Path, amount: float) -> None:
    path = write_raw(tmp_path / "a.nii", sform=sheared(amount) * SIZE, s_code=1)
    assert read_by_itk(path) is None
    image = read_nifti(path)
    assert np.allclose(image.affine[:3, :3], sheared(amount) * SIZE, atol=1e-5)
    (remark,) = image.remarks
    assert remark == f"{module.NO_RIGHT_ANGLES}: up to {np.degrees(np.arctan(amount)):.2g} degrees off"


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -np.inf])
def test_a_voxel_size_that_is_none_is_refused_and_not_taken_for_1_mm(tmp_path: Path, value: float) -> None:
    path = write_raw(tmp_path / "a.nii", sform=R * SIZE, s_code=1, pixdim=(1.6, 1.5, value))
    itk = read_by_itk(path)
    assert itk is not None
    assert itk[0][2] == 1.0  # which would make one slice of a whole heart
    with pytest.raises(SubjectRefused) as refused:
        read_nifti(path)
    assert refused.value.reason == "bad-geometry"


@pytest.mark.parametrize("name", ["q0s2, unit columns (ACDC)", "q1s2 oblique to each other", "q0s0", "qform, qfac -1"])
def test_nifti_2_says_the_same_as_nifti_1(tmp_path: Path, name: str) -> None:
    """This build of ITK reads no NIfTI-2, so it cannot be asked."""
    fields = READ_ALIKE[name][0]
    first = read_nifti(write_raw(tmp_path / "1.nii", **fields))
    second = read_nifti(write_raw(tmp_path / "2.nii", **fields, kind=nib.Nifti2Header))
    assert np.array_equal(first.data, second.data)
    assert np.allclose(first.affine, second.affine, atol=1e-4)
    assert first.remarks == second.remarks


@pytest.mark.parametrize(
    ("fields", "placed"),
    [
        ({"sform": R * SIZE, "s_code": 1}, True),
        ({"sform": np.diag(SIZE), "s_code": 1}, True),  # along the axes, but somewhere
        ({"sform": np.eye(3), "s_code": 2, "origin": (0, 0, 0)}, False),  # nibabel without an affine
        ({"sform": np.diag([-1, -1, 1]), "s_code": 1, "origin": (0, 0, 0)}, False),  # ITK without a geometry
        ({}, False),
    ],
)
def test_a_header_that_knows_no_place(tmp_path: Path, fields: dict[str, Any], placed: bool) -> None:
    assert read_nifti(write_raw(tmp_path / "a.nii", **fields)).placed is placed
