"""What one DICOM file says about its pictures: geometry, time in the cardiac cycle, and how to tell acquisitions apart.

pydicom is imported only when a file is read. What it says about a damaged header may quote the header, so its
warnings, log records and exceptions end here.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from med_duallora.errors import InputError

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")  # Enhanced MR, legacy converted to it
DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")  # whole file compressed: its size cannot be bounded
PHASE_WORDS = frozenset(("P", "PHASE", "PHASE MAP", "VELOCITY", "VELOCITY MAP"))  # of flow, in ImageType

MAX_FILE_BYTES = 1 << 30
MAX_SIDE = 2048  # pixels
MAX_FRAMES_OF_A_FILE = 5000


class NoPicture(Exception):
    """A file holds no picture of use here; the text says of which kind it is, in words that quote no header."""


@dataclass(frozen=True)
class Protocol:
    """What pictures of one stack have in common beside their direction.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        spacing: mm between columns (x) and between rows (y).
        kind: scanning sequence, variant and flip angle; whether it is a phase image.
    """

    rows: int
    columns: int
    spacing: tuple[float, float]
    kind: tuple[str, str, float | None, bool]


@dataclass(frozen=True)
class Picture:
    """One slice at one time, as headers describe it; identifiers are only compared, never passed on.

    Args:
        path: file.
        index: of the frame in a multi-frame file, None in one with a single picture.
        study: identifier of the study.
        series: identifier of the series.
        instance: identifier of the file.
        order: number of series and of acquisition: what was repeated later has the larger one.
        protocol: what it has in common with the others of its stack.
        axes: direction of x (along a row of pixels) and of y, unit vectors in patient coordinates (LPS).
        position: of the first pixel's centre, mm (LPS).
        times: what may tell its place in the cycle: trigger (ms), temporal position, instance number, clock (ms).
        contrast: echo and inversion time in ms; in a cine they are the same for all pictures of a slice.
        slice_spacing: SpacingBetweenSlices in mm.
        manufacturer: of the scanner.
    """

    path: Path
    index: int | None
    study: str
    series: str
    instance: str
    order: tuple[int, int]
    protocol: Protocol
    axes: tuple[tuple[float, float, float], tuple[float, float, float]]
    position: tuple[float, float, float]
    times: tuple[float | None, float | None, float | None, float | None]
    contrast: tuple[float | None, float | None]
    slice_spacing: float | None
    manufacturer: str


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


def is_dicom(stream: BinaryIO) -> bool:
    """Tell by content whether a file is DICOM: the mark after the preamble, or a first element of group 8."""
    start = stream.read(132)
    return start[128:] == b"DICM" or (start[:2] == b"\x08\x00" and start[4:6] in (b"UI", b"CS", b"UL", b"\0\0"))


def read_header(path: Path) -> tuple[list[Picture], frozenset[str]]:
    """Return the pictures of one file, and the texts in it that identify a person or an examination.

    Raises:
        NoPicture: it is not DICOM, damaged, or of a kind that holds no magnetic resonance picture in space.
    """
    pydicom = need_pydicom()
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise NoPicture(f"files larger than {MAX_FILE_BYTES >> 20} MB")
        with path.open("rb") as stream:
            if not is_dicom(stream):
                raise NoPicture("files that are not DICOM")
            stream.seek(0)
            return _described(path, pydicom, stream)
    except OSError as error:
        raise NoPicture("files that cannot be read") from error


def _described(path: Path, pydicom: Any, stream: BinaryIO) -> tuple[list[Picture], frozenset[str]]:
    with discreet():
        try:
            syntax = _transfer_syntax(pydicom, stream)
            if syntax in DEFLATED:
                raise NoPicture("DICOM files that are compressed as a whole (deflated)")
            stream.seek(0)
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
            return list(_pictures(path, dataset)), _identifiers(dataset)
        except (NoPicture, OSError):
            raise
        except Exception as error:  # a damaged header makes pydicom fail in any way, and lazily
            raise NoPicture("DICOM files with a damaged header") from error


def _transfer_syntax(pydicom: Any, stream: BinaryIO) -> str:
    try:
        return str(pydicom.filereader.read_file_meta_info(stream).get("TransferSyntaxUID", ""))
    except pydicom.errors.InvalidDicomError:  # without a preamble: the oldest form, never compressed
        return ""


def _identifiers(dataset: Any) -> frozenset[str]:
    names = ("PatientID", "PatientName", "AccessionNumber", "StudyID")
    texts = (str(dataset.get(name, "") or "") for name in names)
    return frozenset(text for text in texts if text)


def _pictures(path: Path, dataset: Any) -> Iterator[Picture]:
    kind = str(dataset.get("SOPClassUID", ""))
    if str(dataset.get("MediaStorageSOPClassUID", "")) or kind == "1.2.840.10008.1.3.10" or "FileSetID" in dataset:
        raise NoPicture("DICOMDIR files")
    if kind not in (MR_IMAGE, *ENHANCED):
        raise NoPicture("DICOM files that hold no magnetic resonance image")
    if int(dataset.get("SamplesPerPixel", 1)) != 1 or "MONOCHROME" not in str(dataset.get("PhotometricInterpretation")):
        raise NoPicture("colour pictures")
    if kind in ENHANCED:
        yield from _enhanced(path, dataset)
    elif int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise NoPicture("multi-frame files of a kind that does not say where each frame lies")
    else:
        yield _picture(path, None, dataset, lambda name: dataset.get(name))


def _enhanced(path: Path, dataset: Any) -> Iterator[Picture]:
    """Yield the frames of a multi-frame file, each with its own functional groups and the shared ones."""
    shared = _flat(dataset.SharedFunctionalGroupsSequence[0]) if "SharedFunctionalGroupsSequence" in dataset else {}
    frames = dataset.PerFrameFunctionalGroupsSequence
    if len(frames) > MAX_FRAMES_OF_A_FILE:
        raise NoPicture(f"multi-frame files with more than {MAX_FRAMES_OF_A_FILE} frames")
    for index, group in enumerate(frames):
        own = shared | _flat(group)
        yield _picture(path, index, dataset, lambda name, own=own: own.get(name, dataset.get(name)))


def _flat(group: Any) -> dict[str, Any]:
    """Return the elements of all sequences in a functional group by keyword; no two hold the same one."""
    return {element.keyword: element.value for macro in group for item in (macro.value or ()) for element in item}


def _picture(path: Path, index: int | None, dataset: Any, value: Callable[[str], Any]) -> Picture:
    """Build from a function that gives an element's value by keyword, None where there is none."""
    orientation, position, spacing = (
        value("ImageOrientationPatient"),
        value("ImagePositionPatient"),
        value("PixelSpacing"),
    )
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if not (orientation and position and spacing):
        raise NoPicture("pictures without position, orientation or pixel spacing")
    if not (0 < rows <= MAX_SIDE and 0 < columns <= MAX_SIDE):
        raise NoPicture(f"pictures with more than {MAX_SIDE} pixels along a side")
    x, y = _vector(orientation[:3]), _vector(orientation[3:])
    protocol = Protocol(rows, columns, (float(spacing[1]), float(spacing[0])), _kind(dataset, value))
    return Picture(
        path=path,
        index=index,
        study=str(dataset.get("StudyInstanceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        instance=str(dataset.get("SOPInstanceUID", "")),
        order=(_whole(dataset.get("SeriesNumber")), _whole(value("AcquisitionNumber"))),
        protocol=protocol,
        axes=(x, y),
        position=_vector(position),
        times=_times(index, value),
        contrast=(_number(_first(value, "EffectiveEchoTime", "EchoTime")), _number(value("InversionTime"))),
        slice_spacing=_number(value("SpacingBetweenSlices")),
        manufacturer=str(dataset.get("Manufacturer", "") or ""),
    )


def _kind(dataset: Any, value: Callable[[str], Any]) -> tuple[str, str, float | None, bool]:
    words = {str(word).upper() for word in (value("ImageType") or ())} | {str(value("ComplexImageComponent")).upper()}
    texts = [str(dataset.get(name, "") or "") for name in ("ScanningSequence", "SequenceVariant")]
    return texts[0], texts[1], _number(value("FlipAngle")), bool(words & PHASE_WORDS)


def _times(index: int | None, value: Callable[[str], Any]) -> tuple[float | None, ...]:  # type: ignore[type-var]
    trigger = _number(_first(value, "NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime", "TriggerTime"))
    temporal = _number(_first(value, "TemporalPositionIndex", "TemporalPositionIdentifier"))
    number = _number(value("InstanceNumber")) if index is None else float(index)
    return trigger, temporal, number, _clock(value)


def _clock(value: Callable[[str], Any]) -> float | None:
    """Return the time of day of the acquisition in ms."""
    text = str(_first(value, "FrameAcquisitionDateTime", "AcquisitionTime", "ContentTime") or "").split("+")[0]
    digits, _, fraction = text.partition(".")
    if len(digits) < 6 or not digits.isdigit():
        return None
    hours, minutes, seconds = (int(digits[-6:][at : at + 2]) for at in (0, 2, 4))
    return 1000.0 * (3600 * hours + 60 * minutes + seconds) + float(f"0.{fraction or 0}") * 1000


def _first(value: Callable[[str], Any], *names: str) -> Any:
    return next((found for name in names if (found := value(name)) is not None), None)


def _number(value: Any) -> float | None:
    return None if value is None or value == "" else float(value)


def _whole(value: Any) -> int:
    return 0 if value is None or value == "" else int(value)


def _vector(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
