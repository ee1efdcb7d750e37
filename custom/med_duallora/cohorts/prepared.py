"""The read side of a prepared cohort: its table and its volumes.

Layout: ``<cohort>/cohort.csv`` and, per subject, ``<subject>/<subject>_sax_ed.nii.gz`` and ``_sax_es.nii.gz``
(uint8, 1 x 1 x 10 mm), as CineMA names its processed data.
"""

import glob
import math
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.cohorts.csvfile import read_rows
from med_duallora.cohorts.itk_geometry import NEGATIVE_SIZE, SIZES_CONTRADICT
from med_duallora.cohorts.nifti import Array, NiftiImage, read_nifti
from med_duallora.errors import CohortError, SubjectRefused

COHORT_TABLE = "cohort.csv"
REQUIRED_COLUMNS = (
    "subject",
    "pathology",
    "label",
    "vendor",
    "centre",
    "split",
    "n_slices",
    "spacing_x",
    "spacing_y",
    "spacing_z",
    "source_sha256",
    "crop_centre",
)
# Added later: `prepare` writes them all, a cohort that lacks them can still be read.
OPTIONAL_COLUMNS = (
    "dataset",
    "ed_voxels_sha256",
    "es_voxels_sha256",
    "frames",
    "crop_confidence",
    "remarks",
)
COLUMNS = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
REMARK_SEPARATOR = "; "
SPLITS = ("train", "val", "test")

PREPARED_SPACING = (1.0, 1.0, 10.0)  # mm


@dataclass(frozen=True)
class PreparedSubject:
    """One row of a cohort's table, with the paths of its volumes.

    Args:
        subject: name of the subject, unique in the cohort, also its folder.
        pathology: class string, for example ``NOR`` or ``HCM``.
        label: 0 NOR, 1 disease.
        vendor: slug of the scanner vendor, one of ``vocabulary.VENDORS``.
        centre: where it was scanned.
        split: train, val or test.
        ed_path: end-diastolic volume.
        es_path: end-systolic volume.
        source_sha256: hash of the raw files' bytes.
        n_slices: slices of the prepared volume, at 10 mm.
        crop_centre: what the crop is centred on: ``segmentation``, ``motion`` or ``image``.
        spacing: raw voxel size in mm, None where the table's cells hold no positive numbers.
        dataset: acdc, mnms, mnms2, table or dicom; empty in tables written before there was such a column.
        ed_voxels_sha256: identity of the raw ED stack (see ``identity``); empty like ``dataset``.
        es_voxels_sha256: the same of the ES stack.
        frames: ``given`` or ``automatic``: how ED and ES were chosen; empty like ``dataset``.
        crop_confidence: of the crop's centre, 0 to 1; None where a segmentation or nothing gave it.
        remarks: what was noticed about the raw files, one sentence each.
    """

    subject: str
    pathology: str
    label: int
    vendor: str
    centre: str
    split: str
    ed_path: Path
    es_path: Path
    source_sha256: str
    n_slices: int
    crop_centre: str = ""
    spacing: tuple[float, float, float] | None = None
    dataset: str = ""
    ed_voxels_sha256: str = ""
    es_voxels_sha256: str = ""
    frames: str = ""
    crop_confidence: float | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedCohort:
    """A prepared cohort on disk.

    Args:
        directory: folder that holds cohort.csv.
        subjects: in the table's order.
    """

    directory: Path
    subjects: tuple[PreparedSubject, ...]

    @classmethod
    def read(cls, directory: Path) -> "PreparedCohort":
        """Read and check the table; volumes are looked for, not opened.

        Raises:
            CohortError: no table, a column or value is wrong, a subject appears twice, or a volume is
                missing; the message names the file and the row.
        """
        subjects = []
        for _, found in read_each(directory):
            if isinstance(found, CohortError):
                raise found
            subjects.append(found)
        return cls(directory, tuple(subjects))

    def split(self, name: str) -> tuple[PreparedSubject, ...]:
        """Return the subjects of split ``train``, ``val`` or ``test``, in the table's order."""
        if name not in SPLITS:
            raise CohortError(f"there is no split {name!r}; there are {', '.join(SPLITS)}")
        return tuple(subject for subject in self.subjects if subject.split == name)


def read_each(directory: Path) -> list[tuple[str, PreparedSubject | CohortError]]:
    """Read every row of a cohort's table by itself, so that one bad row does not hide the next one.

    Returns:
        For each row its subject's name as the table writes it, and the subject, or what is wrong with the row.

    Raises:
        CohortError: there is no table, it is not a table of a prepared cohort, or it has no row.
    """
    table = directory / COHORT_TABLE
    seen: set[str] = set()
    rows: list[tuple[str, PreparedSubject | CohortError]] = []
    for number, row in read_rows(table, REQUIRED_COLUMNS, OPTIONAL_COLUMNS, hint="`med-duallora prepare` writes it"):
        name, place = row["subject"], f"{table}, row {number}"
        try:
            subject = _parse_row(row, directory, place)
            if name in seen:
                raise CohortError(f"{place}: subject {name} appears twice")
            rows.append((name, subject))
        except CohortError as error:
            rows.append((name, error))
        seen.add(name)
    if not rows:
        raise CohortError(f"{table} holds no subject")
    return rows


def load_volume(subject: PreparedSubject) -> Array:
    """Return ED and ES as prepared: uint8 (2, X, Y, Z), 1 x 1 x 10 mm.

    Raises:
        CohortError: a volume is missing, damaged or not as ``prepare`` writes it (uint8 (X, Y, Z) of 1 x 1 x 10 mm,
            ED and ES alike, as many slices as the table says); names the file.
    """
    volume = load_pair(subject.ed_path, subject.es_path)
    n_slices = volume.shape[3]
    if n_slices != subject.n_slices:
        raise CohortError(f"{subject.ed_path} has {n_slices} slices, but {COHORT_TABLE} says {subject.n_slices}")
    return volume


def label_path(image: Path) -> Path:
    """Return where the label map of a prepared volume lies, if there is one."""
    return image.with_name(image.name.removesuffix(".nii.gz") + "_gt.nii.gz")


def load_pair(ed_path: Path, es_path: Path) -> Array:
    """Return the prepared ED and ES volumes in two files: uint8 (2, X, Y, Z), 1 x 1 x 10 mm (CohortError, as above)."""
    ed, es = (_load_frame(path) for path in (ed_path, es_path))
    if ed.shape != es.shape:
        raise CohortError(f"{es_path} has shape {es.shape}, but {ed_path.name} has {ed.shape}")
    return np.stack([ed, es])


def _load_frame(path: Path) -> Array:
    try:
        image = read_nifti(path)
    except SubjectRefused as refusal:
        raise CohortError(refusal.detail) from refusal
    _check_frame(path, image)
    return image.data


def _check_frame(path: Path, image: NiftiImage) -> None:
    if image.data.ndim != 3:
        raise CohortError(f"{path} has shape {image.data.shape}; a prepared volume is X x Y x Z")
    if not np.isfinite(image.data).all():
        raise CohortError(f"{path} holds NaN or infinity")
    if image.data.dtype != np.uint8:
        raise CohortError(f"{path} holds {image.data.dtype} voxels; a prepared volume holds uint8")
    if not np.allclose(image.spacing, PREPARED_SPACING, rtol=0, atol=1e-3):
        raise CohortError(f"{path} has voxels of {image.spacing} mm; a prepared volume has {PREPARED_SPACING}")
    contradictions = [text for text in image.remarks if text.startswith((SIZES_CONTRADICT, NEGATIVE_SIZE))]
    if contradictions:  # taken from a raw file, but nothing that `prepare` writes
        raise CohortError(f"{path}: {contradictions[0]}; a prepared volume has no contradiction in its header")


def _parse_row(row: Mapping[str, str], directory: Path, place: str) -> PreparedSubject:
    name = row["subject"]
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        raise CohortError(f"{place}: subject {name!r} cannot be the name of a folder")
    if row["split"] not in SPLITS:
        raise CohortError(f"{place}: split is {row['split']!r}; it must be one of {', '.join(SPLITS)}")
    for column in ("pathology", "vendor"):
        if not row[column]:
            raise CohortError(f"{place}: {column} is empty")
    ed_path, es_path = (directory / name / f"{name}_sax_{frame}.nii.gz" for frame in ("ed", "es"))
    for path in (ed_path, es_path):
        if not path.is_file():
            raise CohortError(f"{place}: {path} does not exist{_padded_hint(directory, name)}")
    return PreparedSubject(
        subject=name,
        pathology=row["pathology"],
        label=_whole_number(row, "label", range(2), place),
        vendor=row["vendor"],
        centre=row["centre"],
        split=row["split"],
        ed_path=ed_path,
        es_path=es_path,
        source_sha256=_digest(row, "source_sha256", place),
        n_slices=_whole_number(row, "n_slices", range(1, 1000), place),
        crop_centre=row["crop_centre"],
        spacing=_spacing(row),
        dataset=row.get("dataset", ""),
        ed_voxels_sha256=_optional_digest(row, "ed_voxels_sha256", place),
        es_voxels_sha256=_optional_digest(row, "es_voxels_sha256", place),
        frames=row.get("frames", ""),
        crop_confidence=_fraction(row, "crop_confidence", place),
        remarks=tuple(filter(None, row.get("remarks", "").split(REMARK_SEPARATOR))),
    )


def _padded_hint(directory: Path, name: str) -> str:
    """Name the folder that is meant where a spreadsheet took 001 for the number 1."""
    padded = [folder.name for folder in directory.glob(f"0*{glob.escape(name)}") if folder.name.lstrip("0") == name]
    return f"; there is {padded[0]}: did a spreadsheet drop its leading zeros?" if padded else ""


def _digest(row: Mapping[str, str], column: str, place: str) -> str:
    digest = row[column]
    if len(digest) != 64 or set(digest) - set(string.hexdigits):
        raise CohortError(f"{place}: {column} is {digest!r}; it must be 64 hexadecimal digits")
    return digest.lower()


def _optional_digest(row: Mapping[str, str], column: str, place: str) -> str:
    return _digest(row, column, place) if row.get(column) else ""


def _spacing(row: Mapping[str, str]) -> tuple[float, float, float] | None:
    """Return the raw voxel size in mm; it is only shown, so an odd cell is not a reason to refuse a cohort."""
    try:
        x, y, z = (float(row[f"spacing_{axis}"]) for axis in "xyz")
    except ValueError:
        return None
    return (x, y, z) if all(math.isfinite(value) and value > 0 for value in (x, y, z)) else None


def _fraction(row: Mapping[str, str], column: str, place: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise CohortError(f"{place}: {column} is {text!r}; it must be a number between 0 and 1, or empty")
    return value


def _whole_number(row: Mapping[str, str], column: str, allowed: range, place: str) -> int:
    text = row[column]
    if not (text.isascii() and text.isdigit() and int(text) in allowed):
        raise CohortError(f"{place}: {column} is {text!r}; it must be between {allowed[0]} and {allowed[-1]}")
    return int(text)
