"""Small DICOM studies with a beating disc, written as scanners write them and in ways that go wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
SHAPE = (48, 44, 5, 10)  # columns, rows, slices, frames
SPACING = (1.8, 1.8, 8.0)
ED, ES = 2, 7  # frames from 0
SECRETS = {
    "PatientName": "Zebrowski^Quirina",
    "PatientID": "QX7719283",
    "PatientBirthDate": "19371103",
    "StudyDate": "20190427",
    "AccessionNumber": "ACC5550123",
    "InstitutionName": "Saint Wendelin Infirmary",
    "ReferringPhysicianName": "Oberholtzer^Fritz",
    "StudyDescription": "Herz Zebrowski",
    "OperatorsName": "Mbeki^T",
    "DeviceSerialNumber": "SN99887766",
}
Change = Callable[[Dataset, int, int], Dataset | None]


def directions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of x, y and the normal in patient coordinates (LPS), oblique to the body."""
    x = np.array([0.71, 0.70, -0.05])
    x /= np.linalg.norm(x)
    y = np.array([-0.3, 0.27, -0.91])
    y -= (y @ x) * x
    y /= np.linalg.norm(y)
    return x, y, np.cross(x, y)


def cine(shape: tuple[int, int, int, int] = SHAPE) -> np.ndarray:
    """uint16 (X, Y, Z, T): a bright disc, largest at frame ED and smallest at ES, in muscle, in a body."""
    x, y = np.indices(shape[:2])
    frames = np.arange(shape[3])
    way = np.where(
        (frames - ED) % shape[3] <= ES - ED,
        ((frames - ED) % shape[3]) / (ES - ED),
        1 - ((frames - ES) % shape[3]) / (shape[3] - ES + ED),
    )
    radius = np.hypot(x - 0.55 * shape[0], y - 0.45 * shape[1]) * SPACING[0]
    image = np.full(shape, 120.0)
    for k in range(shape[2]):
        for t in range(shape[3]):
            image[radius < 32, k, t] = 260
            image[radius < 25 - 9 * way[t] - k, k, t] = 800
    image += np.random.default_rng(5).normal(0, 8, shape)
    return np.clip(image, 0, 4000).astype(np.uint16)


def position(k: int, spacing: float = SPACING[2]) -> list[float]:
    """Return the place of the first pixel of slice k, mm (LPS)."""
    return [float(value) for value in np.array([-60.0, -120.0, 80.0]) + k * spacing * directions()[2]]


def picture(voxels: np.ndarray, k: int, t: int, study: str, series: str, **more: Any) -> Dataset:
    """One file's content: slice k, frame t, from intensities (X, Y)."""
    x, y, _ = directions()
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MR_IMAGE, generate_uid(entropy_srcs=[series, f"{k} {t}"])
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.Modality, dataset.Manufacturer = "MR", "GE MEDICAL SYSTEMS"
    dataset.ScanningSequence, dataset.SequenceVariant = "GR", "SS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ImageOrientationPatient = [float(f"{value:.6f}") for value in (*x, *y)]
    dataset.ImagePositionPatient = [float(f"{value:.5f}") for value in position(k)]
    dataset.PixelSpacing, dataset.SliceThickness = [SPACING[1], SPACING[0]], 6.0
    dataset.TriggerTime, dataset.InstanceNumber = float(20 + 70 * t), k * 100 + t + 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Columns, dataset.Rows = voxels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = voxels.T.astype(np.uint16).tobytes()
    for name, value in {**SECRETS, **more}.items():
        setattr(dataset, name, value)
    return dataset


def save(dataset: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)


def write_study(
    folder: Path, change: Change | None = None, series_per_slice: bool = False, seed: int = 0
) -> np.ndarray:
    """Write a study with shuffled file names; returns its intensities (X, Y, Z, T).

    Args:
        folder: for the files.
        change: gets each file's content with its slice and frame; what it returns is written, None is not.
        series_per_slice: as some vendors do.
        seed: of another study.
    """
    voxels = cine()
    voxels[0, 0] += seed
    study = generate_uid(entropy_srcs=[f"study {seed}"])
    names = np.random.default_rng(seed).permutation(SHAPE[2] * SHAPE[3])
    for number, (k, t) in enumerate(np.ndindex(SHAPE[2:])):
        series = generate_uid(entropy_srcs=[f"series {seed} {k if series_per_slice else 0}"])
        dataset = picture(voxels[:, :, k, t], k, t, study, series)
        changed = dataset if change is None else change(dataset, k, t)
        if changed is not None:
            save(changed, folder / f"IM{names[number]:04d}")
    return voxels
