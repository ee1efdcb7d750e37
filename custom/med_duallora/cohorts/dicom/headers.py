"""What one DICOM file says about its picture: where it lies, when in the cardiac cycle, how it was acquired.

pydicom is imported only when a file is read. What it says about a damaged header may quote the header, so its
warnings, log records and exceptions end here.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from med_duallora.cohorts.nifti import Array
from med_duallora.errors import InputError

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")  # Enhanced MR, legacy converted to it
DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")  # whole file compressed: its size cannot be bounded
PHASE_WORDS = frozenset(("P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP"))  # of flow, in ImageType

MAX_FILE_BYTES = 1 << 28
MAX_SIDE = 2048  # pixels

# Texts that tell who was examined, when and where. They are compared with folders' names, and go nowhere.
IDENTIFYING = (
    *("PatientID", "PatientName", "OtherPatientIDs", "OtherPatientNames", "PatientBirthDate", "AccessionNumber"),
    *("StudyID", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyInstanceUID"),
    *("InstitutionName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "DeviceSerialNumber"),
)


class NoPicture(Exception):
    """A file holds no picture of use here; the text says of which kind it is, in words that quote no header."""


@dataclass(frozen=True)
class Picture:
    """One slice at one time.

    Args:
        path: file.
        series: identifier of the series, only compared.
        instance: identifier of the file, only compared.
        shape: columns (x) and rows (y) of the matrix.
        spacing: mm between columns (x) and between rows (y).
        axes: direction of x (along a row of pixels) and of y, unit vectors in patient coordinates (LPS).
        position: of the first pixel's centre, mm (LPS).
        kind: scanning sequence and its variant, upper case; only pictures of one kind make a stack.
        times: trigger time (ms), temporal position, instance number; None where the header does not say it.
        clock: time of day of the acquisition, s.
        inversion: inversion time in ms; in a cine it is the same for all pictures.
    """

    path: Path
    series: str
    instance: str
    shape: tuple[int, int]
    spacing: tuple[float, float]
    axes: tuple[tuple[float, float, float], tuple[float, float, float]]
    position: tuple[float, float, float]
    kind: tuple[str, str]
    times: tuple[float | None, float | None, float | None]
    clock: float | None
    inversion: float | None

    @property
    def normal(self) -> Array:
        """Return x cross y, of length 1."""
        normal = np.cross(*self.axes)
        return np.asarray(normal / np.linalg.norm(normal))

    @property
    def centre(self) -> Array:
        """Return the place of the middle of the picture, mm (LPS)."""
        half = [(n - 1) / 2 * mm for n, mm in zip(self.shape, self.spacing, strict=True)]
        return np.asarray(np.asarray(self.position) + half @ np.asarray(self.axes))


@dataclass(frozen=True)
class Header:
    """What one file is about.

    Args:
        study: identifiers of patient and study, only compared.
        manufacturer: of the scanner.
        identifiers: texts that identify a person or an examination, only compared.
        picture: None for a file that is of an MRI study, but of no form that is read here (Enhanced).
    """

    study: str
    manufacturer: str
    identifiers: frozenset[str]
    picture: Picture | None


def need_pydicom() -> Any:
    """Return the module pydicom; InputError with what to install where it is missing."""
    try:
        import pydicom
    except ImportError as error:
        raise InputError('reading DICOM needs the package pydicom: pip install "med-duallora[dicom]"') from error
    return pydicom


@contextmanager
def discreet() -> Iterator[None]:
    """Keep pydicom's warnings and log records, which may quote a header, from being shown."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_header(path: Path) -> Header:
    """Read what comes before the pixels.

    Raises:
        NoPicture: it is not DICOM, damaged, or of a kind that holds no magnetic resonance picture in space.
    """
    pydicom = need_pydicom()
    try:
        with path.open("rb") as stream:
            if not _is_dicom(stream):
                raise NoPicture("files that are not DICOM")
            if path.stat().st_size > MAX_FILE_BYTES:
                raise NoPicture(f"DICOM files larger than {MAX_FILE_BYTES >> 20} MiB")
            stream.seek(0)
            return _described(path, pydicom, stream)
    except OSError as error:
        raise NoPicture("files that cannot be read") from error


def _is_dicom(stream: BinaryIO) -> bool:
    """Tell by content: the mark after the preamble, or a first element of group 8 as the oldest files have it."""
    start = stream.read(132)
    return start[128:] == b"DICM" or (start[:2] == b"\x08\x00" and start[4:6] in (b"UI", b"CS", b"UL", b"\x04\x00"))


def _described(path: Path, pydicom: Any, stream: BinaryIO) -> Header:
    with discreet():
        try:
            if _transfer_syntax(pydicom, stream) in DEFLATED:
                raise NoPicture("DICOM files that are compressed as a whole (deflated)")
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
            return _header(path, dataset)
        except (NoPicture, OSError):
            raise
        except Exception as error:  # a damaged header makes pydicom fail in any way, and lazily
            raise NoPicture("DICOM files with a damaged header") from error


def _transfer_syntax(pydicom: Any, stream: BinaryIO) -> str:
    """Return how the file is stored; reading stops at the first element after the group that says it."""
    meta = pydicom.filereader.read_partial(stream, stop_when=lambda *_: True, force=True).file_meta
    return str(meta.get("TransferSyntaxUID", ""))


def _header(path: Path, dataset: Any) -> Header:
    kind = str(dataset.get("SOPClassUID", ""))
    if "DirectoryRecordSequence" in dataset:
        raise NoPicture("DICOMDIR files")
    if kind not in (MR_IMAGE, *ENHANCED):
        raise NoPicture("DICOM files that hold no magnetic resonance image")
    return Header(
        study=f"{dataset.get('StudyInstanceUID', '')} {dataset.get('PatientID', '')}".strip(),
        manufacturer=str(dataset.get("Manufacturer", "") or ""),
        identifiers=frozenset(text for name in IDENTIFYING if (text := str(dataset.get(name, "") or "").strip())),
        picture=None if kind in ENHANCED else _picture(path, dataset),
    )


def _picture(path: Path, dataset: Any) -> Picture:
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or "MONOCHROME" not in str(dataset.get("PhotometricInterpretation")):
        raise NoPicture("colour pictures")
    if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise NoPicture("multi-frame files of a kind that does not say where each frame lies")
    image_type = {str(word).upper() for word in dataset.get("ImageType") or ()}
    if image_type & PHASE_WORDS:
        raise NoPicture("pictures of flow (phase)")
    orientation, position = dataset.get("ImageOrientationPatient"), dataset.get("ImagePositionPatient")
    spacing = dataset.get("PixelSpacing")
    if not (orientation and position and spacing):
        raise NoPicture("pictures without position, orientation or pixel spacing")
    shape = int(dataset.Columns), int(dataset.Rows)
    numbers = np.array([*orientation, *position, *spacing], dtype=np.float64)
    x, y = numbers[:3], numbers[3:6]
    if not (min(shape) > 0 and max(shape) <= MAX_SIDE):
        raise NoPicture(f"pictures with no or more than {MAX_SIDE} pixels along a side")
    lengths = np.linalg.norm([x, y], axis=1)
    if not (np.isfinite(numbers).all() and (numbers[9:] > 0).all() and np.abs(lengths - 1).max() < 0.01):
        raise NoPicture("pictures whose position, orientation or pixel spacing is not a usable number")
    if abs(float(x @ y)) > 0.01:
        raise NoPicture("pictures whose rows and columns are not at right angles")
    return Picture(
        path=path,
        series=str(dataset.get("SeriesInstanceUID", "")),
        instance=str(dataset.get("SOPInstanceUID", "")),
        shape=shape,
        spacing=(float(spacing[1]), float(spacing[0])),
        axes=(_vector(x), _vector(y)),
        position=_vector(numbers[6:9]),
        kind=(_words(dataset, "ScanningSequence"), _words(dataset, "SequenceVariant")),
        times=(
            _number(dataset, "TriggerTime"),
            _number(dataset, "TemporalPositionIdentifier"),
            _number(dataset, "InstanceNumber"),
        ),
        clock=_clock(str(dataset.get("AcquisitionTime", "") or "")),
        inversion=_number(dataset, "InversionTime"),
    )


def _words(dataset: Any, name: str) -> str:
    return str(dataset.get(name, "") or "").upper()


def _number(dataset: Any, name: str) -> float | None:
    value = dataset.get(name)
    number = None if value is None or value == "" else float(value)
    return number if number is not None and np.isfinite(number) else None


def _clock(text: str) -> float | None:
    """Return seconds of the day from HHMMSS.FFFFFF."""
    digits, _, fraction = text.partition(".")
    if not (len(digits) == 6 and digits.isascii() and digits.isdigit()):
        return None
    fraction = fraction if fraction.isascii() and fraction.isdigit() else "0"
    return 3600.0 * int(digits[:2]) + 60 * int(digits[2:4]) + int(digits[4:]) + float(f"0.{fraction}")


def _vector(values: Array) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
