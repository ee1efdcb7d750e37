"""Small raw cohorts in the layouts of ACDC, M&Ms and M&Ms-2: texture with a disc-shaped heart."""

import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.subject import ImageSource, RawSubject

SHAPE = (40, 36, 6)
MNMS_TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"


def oblique_affine(spacing: Sequence[float] = (1.6, 1.6, 9.0)) -> np.ndarray:
    """(4, 4) RAS affine of a short-axis stack, oblique to all world axes."""
    a, b = np.deg2rad(35), np.deg2rad(-50)
    first = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = first @ second @ np.diag(spacing)
    affine[:3, 3] = (-31.0, 12.0, 77.0)
    return affine


def texture(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """int16 texture of the given shape."""
    return np.random.default_rng(seed).integers(20, 900, shape).astype(np.int16)


def heart(shape: tuple[int, ...] = SHAPE, numbers: Sequence[int] = (0, 1, 2, 3), radius_lv: float = 5) -> np.ndarray:
    """uint8 label map: an LV disc in a myocardial ring, an RV disc beside it; ``numbers`` renames 0 to 3."""
    x, y = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(x - 0.5 * shape[0], y - 0.55 * shape[1])
    plane = np.zeros(shape[:2], np.uint8)
    plane[np.hypot(x - 0.25 * shape[0], y - 0.55 * shape[1]) < radius_lv] = 1
    plane[radius < 8] = 2
    plane[radius < radius_lv] = 3
    return np.asarray(numbers, np.uint8)[np.repeat(plane[:, :, None], shape[2], axis=2)]


def heart_es(shape: tuple[int, ...] = SHAPE, numbers: Sequence[int] = (0, 1, 2, 3)) -> np.ndarray:
    """The same at end-systole: both ventricles are smaller."""
    return heart(shape, numbers, radius_lv=3.5)


def write_subject(folder: Path) -> RawSubject:
    """Write a segmented subject of four 3-D files."""
    images = {"ed": texture(1), "es": texture(2), "ed_gt": heart(), "es_gt": heart_es()}
    for name, data in images.items():
        write_nifti(folder / f"{name}.nii.gz", data, oblique_affine())
    paths = [ImageSource(folder / f"{name}.nii.gz") for name in images]
    return RawSubject("s1", "table", "DCM", "ge", "c", *paths)


def write_acdc(root: Path, groups: Mapping[str, str], part: str = "training", segmented: bool = True) -> Path:
    """Write patients {name: group} below root/database/<part>; returns that folder."""
    for seed, (name, group) in enumerate(groups.items()):
        folder = root / "database" / part / name
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text(f"ED: 1\nES: 9\nGroup: {group}\nHeight: 170.0\nNbFrame: 20\nWeight: 70.0\n")
        for frame in (1, 9):
            stem = f"{name}_frame{frame:02d}"
            # The folder's name goes into the texture, so that no two patients hold the same bytes.
            seed_of_frame = sum(map(ord, part + name)) * 1000 + seed * 10 + frame
            write_nifti(folder / f"{stem}.nii.gz", texture(seed_of_frame), oblique_affine())
            if segmented:
                write_nifti(folder / f"{stem}_gt.nii.gz", heart() if frame == 1 else heart_es(), oblique_affine())
    return root / "database" / part


def mnms_row(code: str, **changes: str) -> dict[str, str]:
    """A row of the M&Ms table with its leading, unnamed index column."""
    row = {"": "0", "External code": code, "VendorName": "Philips", "Vendor": "B", "Centre": "2", "ED": "2", "ES": "0"}
    row |= {"Age": "55", "Pathology": "HCM", "Sex": "M", "Height": "172", "Weight": "80"}
    return row | changes


def write_mnms(root: Path, rows: Sequence[Mapping[str, str]], part: str = "Training/Labeled") -> Path:
    """Write the table and, for every row, a folder with 4-D files (3 frames); returns OpenDataset."""
    base = root / "OpenDataset"
    for seed, row in enumerate(rows):
        code = row["External code"]
        folder = base / part / code
        folder.mkdir(parents=True)
        at_es = row["ES"] if row["ES"].isdigit() else "0"
        phases = [heart_es if str(frame) == at_es else heart for frame in range(3)]
        labels = np.stack([phase(numbers=(0, 3, 2, 1)) for phase in phases], axis=3)
        write_nifti(folder / f"{code}_sa.nii.gz", texture(700 + seed, (*SHAPE, 3)), oblique_affine())
        write_nifti(folder / f"{code}_sa_gt.nii.gz", labels, oblique_affine())
    write_csv(base / MNMS_TABLE, rows)
    return base


def write_mnms2(root: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write the table and, for every row with a whole SUBJECT_CODE, a folder; returns MnM2."""
    base = root / "MnM2"
    for seed, row in enumerate(rows):
        name = f"{int(float(row['SUBJECT_CODE'])):03d}"
        folder = base / "dataset" / name
        folder.mkdir(parents=True)
        for number, phase in enumerate(("ED", "ES")):
            stem = f"{name}_SA_{phase}"
            write_nifti(folder / f"{stem}.nii.gz", texture(900 + 2 * seed + number), oblique_affine())
            labels = (heart if phase == "ED" else heart_es)(numbers=(0, 3, 2, 1))
            write_nifti(folder / f"{stem}_gt.nii.gz", labels, oblique_affine())
    write_csv(base / "dataset_information.csv", rows)
    return base


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows with the columns of the first one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def unpack(folder: Path) -> None:
    """Turn every .nii.gz below ``folder`` into .nii."""
    for path in list(folder.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
