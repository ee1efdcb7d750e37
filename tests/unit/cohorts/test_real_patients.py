"""Real patients as they are published: every one is prepared, and as ITK would prepare it.

The reference here is ITK's own reading and resampling (SimpleITK), with the crop and scaling rules written once more.
Data: ACDC, O. Bernard et al., IEEE TMI 37(11), 2018; M&Ms, V. M. Campello et al., IEEE TMI 40(12), 2021.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import acdc
from med_duallora.cohorts.itk_geometry import SIZES_CONTRADICT
from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_one import prepare_one
from med_duallora.cohorts.prepare_tables import Preparation, PrepareOptions
from med_duallora.cohorts.subject import MNMS_NUMBERS, ImageSource, RawSubject

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK (test extra) makes the reference")

TARGET = np.array([1.0, 1.0, 10.0])
ROLES = ("ed", "es", "ed_gt", "es_gt")
ALLOWED_SHARE = 1e-4  # of a stack's voxels may differ by more than one grey level
COPY = "patient076"  # holds patient074's voxels
MNMS = {"G1K1V3": "philips", "H1N8S6": "siemens", "B5F8L9": "siemens"}


def acdc_subjects(shared: Path) -> list[RawSubject]:
    folder = shared / "real_cmr" / "acdc_raw" / "database"
    if not folder.is_dir():
        pytest.skip("the raw ACDC patients are not beside the repository")
    subjects, refused = acdc.read(folder)
    assert not refused
    return list(subjects)


def mnms_subjects(shared: Path) -> list[RawSubject]:
    folder = shared / "real_cmr" / "mnms_raw"
    if not folder.is_dir():
        pytest.skip("the raw M&Ms subjects are not beside the repository")
    sources = {
        code: [ImageSource(folder / f"{code}_sa_{end}.nii.gz") for end in ("ED", "ES", "ED_gt", "ES_gt")]
        for code in MNMS
    }
    plain = [RawSubject(code, "mnms", "HCM", MNMS[code], "1", *sources[code]) for code in MNMS]
    return [replace(subject, label_numbers=MNMS_NUMBERS) for subject in plain]


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RawSubject], Preparation]:
    """All real subjects, prepared in one run; the one that is refused as a copy once more, alone."""
    out, subjects = tmp_path_factory.mktemp("real"), [*acdc_subjects(shared), *mnms_subjects(shared)]
    result = prepare_cohorts(out, subjects, [], PrepareOptions(n_processes=2))
    (copy,) = (item for item in subjects if item.subject == COPY)
    prepare_one(copy, out / copy.vendor / COPY, False)
    return out, subjects, result


def resampled(path: Path, labels: bool, nudge: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """Return what ITK makes of an image; ``nudge`` moves all points along its axes, in raw voxels."""
    image = sitk.ReadImage(str(path))
    spacing, direction = np.array(image.GetSpacing()), np.array(image.GetDirection()).reshape(3, 3)
    size = [round(n * float(s) / float(t)) for n, s, t in zip(image.GetSize(), spacing, TARGET, strict=True)]
    origin = np.array(image.GetOrigin()) + 0.5 * (TARGET - spacing) + direction @ (spacing * nudge)
    method = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
    grid = (size, sitk.Transform(), method, origin.tolist(), TARGET.tolist(), image.GetDirection(), 0)
    return sitk.GetArrayFromImage(sitk.Resample(image, *grid, image.GetPixelID())).transpose(2, 1, 0)


def numbered(subject: RawSubject, role: str, nudge: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    numbers = np.array(subject.label_numbers, np.uint8)
    return numbers[resampled(dict(subject.sources())[role].path, True, nudge).astype(np.uint8)]


def reference(subject: RawSubject) -> tuple[tuple[slice, ...], dict[str, np.ndarray]]:
    """Return the crop and the four volumes."""
    labels = {role: numbered(subject, role) for role in ("ed_gt", "es_gt")}
    images = {role: resampled(source.path, False) for role, source in subject.sources() if role not in labels}
    window = tuple(map(crop, np.nonzero(labels["ed_gt"] == 3)[:2], labels["ed_gt"].shape[:2]))
    volumes = {role: grey(stack[window]) for role, stack in images.items()}
    return window, volumes | {role: stack[window] for role, stack in labels.items()}


def nearest_either_way(subject: RawSubject, role: str, window: tuple[slice, ...], own: np.ndarray) -> bool:
    """Return whether every label is the nearest one, exactly midway between two voxels either of them.

    Which one ITK takes there is a matter of how it adds up the positions of a line.
    """
    nudges = product((-1e-5, 1e-5), repeat=3)
    return bool(np.any([own == numbered(subject, role, nudge)[window] for nudge in nudges], axis=0).all())


def crop(lv: np.ndarray, n: int) -> slice:
    if n <= 192:
        return slice(0, n)
    start = min(max(int(np.ceil((lv.min() + lv.max()) / 2 - 96)), 0), n - 192)
    return slice(start, start + 192)


def grey(stack: np.ndarray) -> np.ndarray:
    low, high = np.percentile(stack, (0.95, 99.5))
    return ((np.clip(stack.astype(np.float64), low, high) - low) / (high - low) * 255).astype(np.uint8)


def differences(out: Path, subjects: Sequence[RawSubject]) -> list[str]:
    """Return what differs from the reference by more than is allowed."""
    found = []
    for subject in subjects:
        window, expected = reference(subject)
        for role in ROLES:
            path = out / subject.vendor / subject.subject / f"{subject.subject}_sax_{role}.nii.gz"
            own = np.asarray(nib.load(path).dataobj)
            if own.shape != expected[role].shape:
                found.append(f"{subject.subject} {role}: shape {own.shape}, ITK {expected[role].shape}")
                continue
            off = np.abs(own.astype(int) - expected[role].astype(int))
            if role.endswith("_gt"):
                alike = not off.any() or nearest_either_way(subject, role, window, own)
            else:
                alike = np.mean(off > 1) <= ALLOWED_SHARE
            if not alike:
                found.append(f"{subject.subject} {role}: {np.mean(off > 1):.1e} of the voxels, by up to {off.max()}")
    return found


def test_every_real_patient_is_prepared(real: tuple[Path, list[RawSubject], Preparation]) -> None:
    out, subjects, result = real
    # One of them is another one's scan, which is not a fault of its files: alone it is prepared.
    assert [(item.subject, item.reason) for item in result.refused] == [(COPY, "duplicate-subject")]
    assert (out / "siemens" / COPY).is_dir()
    assert (result.n_prepared, len(subjects)) == (102, 103)


def test_the_only_remark_on_them_is_acdcs_unit_columns(real: tuple[Path, list[RawSubject], Preparation]) -> None:
    rows = [row for rows in real[2].cohorts.values() for row in rows]
    for row in rows:
        assert row["remarks"].startswith(SIZES_CONTRADICT) == (row["dataset"] == "acdc"), row["subject"]
        assert row["dataset"] == "acdc" or not row["remarks"]


def test_images_and_label_maps_are_those_of_itk(real: tuple[Path, list[RawSubject], Preparation]) -> None:
    out, subjects, _ = real
    assert differences(out, subjects) == []
