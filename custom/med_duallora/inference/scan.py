"""A scan that a model shall say something of: read, and prepared as cohorts are; no label or diagnosis is needed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.backbone.inputs import INPUTS_VERSION
from med_duallora.cohorts.nifti_stream import files_sha256
from med_duallora.cohorts.prepare_one import RECORD, Prepared, prepare_one, prepared_of
from med_duallora.cohorts.prepared import COHORT_TABLE, PreparedSubject, load_pair, load_volume
from med_duallora.cohorts.scans import raw_scan
from med_duallora.cohorts.subject import REASONS, Refusal
from med_duallora.cohorts.volume import PREPARATION
from med_duallora.errors import CohortError, ScanError, SubjectRefused
from med_duallora.support.files import read_object, sha256_of_json

ED_FILE, ES_FILE = "_sax_ed.nii.gz", "_sax_es.nii.gz"


@dataclass(frozen=True)
class Scan:
    """A scan as a model reads it.

    Args:
        name: what it is called in results.
        volume: uint8 (2, X, Y, Z), ED and ES, 1 x 1 x 10 mm.
        spacing: raw voxel size in mm; None where nothing tells it.
        crop_centre: ``segmentation``, ``motion`` or ``image``; empty where nothing tells it.
        crop_confidence: of the heart's place, 0 to 1; None where it was not looked for.
        crop_window: start and stop of the crop along x and along y, in mm on the whole image; None: not known.
        remarks: what was noticed about the files, one sentence each.
    """

    name: str
    volume: np.ndarray
    spacing: tuple[float, float, float] | None = None
    crop_centre: str = ""
    crop_confidence: float | None = None
    crop_window: tuple[int, ...] | None = None
    remarks: tuple[str, ...] = ()

    @property
    def n_slices(self) -> int:
        """Return the number of slices, at 10 mm."""
        return int(self.volume.shape[3])

    @property
    def mid_slices(self) -> np.ndarray:
        """Return the middle slice at ED and ES (2, X, Y)."""
        return np.asarray(self.volume[..., self.n_slices // 2])


@dataclass(frozen=True)
class ScanSource:
    """Where a scan lies.

    Args:
        path: a prepared subject's folder; a 4-D NIfTI file; a NIfTI file of ED; a folder of one DICOM study.
        es: NIfTI file of ES, where ``path`` is one of ED.
        subject: a prepared cohort's subject, whose folder ``path`` then is.
    """

    path: Path
    es: Path | None = None
    subject: PreparedSubject | None = None

    @property
    def name(self) -> str:
        """Return what the scan is called in results."""
        if self.subject:
            return self.subject.subject
        plain = self.path.resolve().name
        return plain.removesuffix(".gz").removesuffix(".nii") if not self.path.is_dir() else plain

    def sha256(self) -> str:
        """Return a hash of the files' bytes and of the rules that make a model's input of them (ScanError)."""
        with _said_of(self.path):
            digest, _ = files_sha256(self._files())
        return sha256_of_json([digest, self.es is None, PREPARATION, INPUTS_VERSION])

    def read(self, workplace: Path | None = None) -> Scan:
        """Read the scan, and prepare it where it is raw.

        Args:
            workplace: folder for temporary files; None: the system's.

        Raises:
            ScanError: it cannot be read or prepared; the message says why and what would help.
            InputError: DICOM cannot be read here.
        """
        with _said_of(self.path):
            if self.subject:
                return _of_cohort(self.subject)
            prepared = self._prepared_pair()
            return _of_folder(self.name, *prepared) if prepared else _of_raw(self, workplace)

    def _files(self) -> list[Path]:
        if self.path.is_dir():
            return sorted(path for path in self.path.rglob("*") if path.is_file())
        return [self.path, *([self.es] if self.es else [])]

    def _prepared_pair(self) -> tuple[Path, Path] | None:
        """Return the volumes that ``prepare`` wrote, where the path leads to such."""
        if self.es:
            both = self.path.name.endswith(ED_FILE) and self.es.name.endswith(ES_FILE)
            return (self.path, self.es) if both and (self.path.parent / RECORD).is_file() else None
        if not self.path.is_dir():
            return None
        if (self.path / COHORT_TABLE).is_file():
            raise ScanError(f"{self.path} is a prepared cohort, not one scan; give it with --data")
        found = sorted(self.path.glob(f"*{ED_FILE}"))
        if len(found) == 1:
            return found[0], found[0].with_name(found[0].name.removesuffix(ED_FILE) + ES_FILE)
        images = sorted(path.name for path in self.path.glob("*.nii*"))
        if images:
            raise ScanError(
                f"{self.path} holds NIfTI files ({', '.join(images[:3])}) and is not a prepared subject's folder; give "
                "the 4-D file, or ED and ES as two files"
            )
        return None


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """Turn a refusal into one sentence about the scan."""
    try:
        yield
    except SubjectRefused as refused:
        raise _error(path, refused.reason, refused.detail) from refused
    except CohortError as error:
        raise ScanError(f"{path} cannot be predicted: {error}") from error


def _error(path: Path, reason: str, detail: str) -> ScanError:
    return ScanError(f"{path} cannot be predicted: {REASONS[reason]} ({detail})", reason)


def _of_cohort(subject: PreparedSubject) -> Scan:
    window = _facts(subject.ed_path.parent).crop_window
    return Scan(
        name=subject.subject,
        volume=load_volume(subject),
        spacing=subject.spacing,
        crop_centre=subject.crop_centre,
        crop_confidence=subject.crop_confidence,
        crop_window=window,
        remarks=subject.remarks,
    )


def _of_folder(name: str, ed: Path, es: Path) -> Scan:
    return _described(name, load_pair(ed, es), _facts(ed.parent))


def _facts(folder: Path) -> Prepared:
    """Return what ``prepare`` recorded beside the volumes; a folder without a record says nothing."""
    try:
        return prepared_of(read_object(folder / RECORD))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Prepared("", "", 0, (0.0, 0.0, 0.0), "")


def _of_raw(source: ScanSource, workplace: Path | None) -> Scan:
    """Prepare a raw scan by the same steps as a cohort's subject."""
    with tempfile.TemporaryDirectory(prefix=".scan-", dir=workplace) as place:
        raw = raw_scan(source.path, source.es, Path(place))
        folder = Path(place) / "prepared"
        found = prepare_one(raw, folder, rotated_origin_shift=False)
        if isinstance(found, Refusal):
            detail = found.detail.replace(str(raw.ed.path), raw.found_at) if raw.found_at else found.detail
            raise _error(source.path, found.reason, detail)
        names = (folder / f"{raw.subject}_sax_{phase}.nii.gz" for phase in ("ed", "es"))
        return _described(source.name, load_pair(*names), found, raw.remarks)


def _described(name: str, volume: np.ndarray, facts: Prepared, remarks: tuple[str, ...] = ()) -> Scan:
    return Scan(
        name=name,
        volume=volume,
        spacing=facts.spacing if all(facts.spacing) else None,
        crop_centre=facts.crop_centre,
        crop_confidence=facts.crop_confidence,
        crop_window=facts.crop_window,
        remarks=(*remarks, *facts.remarks),
    )
