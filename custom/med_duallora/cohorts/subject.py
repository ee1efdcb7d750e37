"""One raw subject as every reader describes it, and the words all cohorts share."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from med_duallora.errors import SubjectRefused

# CineMA's number of each label number in a file: entry i says what label i becomes.
CINEMA_NUMBERS = (0, 1, 2, 3)  # 1 RV, 2 MYO, 3 LV: also ACDC's
MNMS_NUMBERS = (0, 3, 2, 1)  # 1 LV, 2 MYO, 3 RV: M&Ms and M&Ms-2

# Pathology strings of ACDC, M&Ms and M&Ms-2, upper case, with the one name used here. One disease that two
# cohorts name differently must not become two strata.
PATHOLOGIES = {
    "NOR": "NOR",  # normal
    "DCM": "DCM",  # dilated cardiomyopathy
    "HCM": "HCM",  # hypertrophic cardiomyopathy
    "MINF": "MINF",  # myocardial infarction
    "RV": "RV",  # abnormal (ACDC) or dilated (M&Ms-2) right ventricle
    "ARV": "RV",
    "DRV": "RV",
    "HHD": "HHD",  # hypertensive heart disease
    "AHS": "AHS",  # athlete's heart
    "IHD": "IHD",  # ischaemic heart disease
    "LVNC": "LVNC",  # left-ventricular non-compaction
    "LV": "LV",  # dilated left ventricle
    "DLV": "LV",
    "ARR": "ARR",  # arrhythmogenic cardiomyopathy
    "FALL": "FALL",  # tetralogy of Fallot
    "CIA": "CIA",  # inter-atrial communication
    "TRI": "TRI",  # tricuspid regurgitation
    "OTHER": "OTHER",
}
HEALTHY = "NOR"

VENDORS = ("siemens", "philips", "ge", "canon")
VENDOR_NAMES = {
    "siemens": "siemens",
    "siemens healthineers": "siemens",
    "philips": "philips",
    "philips medical systems": "philips",
    "philips healthcare": "philips",
    "ge": "ge",
    "ge medical systems": "ge",
    "ge healthcare": "ge",
    "canon": "canon",
    "canon medical systems": "canon",
}

# Why a subject is refused, in a few words for a summary. Readers and preparation use no other reason.
REASONS = {
    "missing-file": "a file that the cohort names does not exist",
    "unreadable-file": "a file is truncated, damaged or no NIfTI image",
    "wrong-dimensions": "an image has not the expected number of dimensions",
    "frame-out-of-range": "the table names a frame that the image does not have",
    "shape-mismatch": "ED, ES and their segmentations differ in shape",
    "bad-data-type": "voxels are neither whole nor real numbers",
    "bad-geometry": "voxel size or axes are unusable or contradict each other",
    "non-finite": "an image holds NaN or infinity",
    "constant-image": "an image has no contrast",
    "bad-segmentation": "a segmentation holds other labels than 0 to 3",
    "empty-lv": "the ED segmentation has no left ventricle",
    "unlabelled": "ED and ES are not marked",
    "bad-metadata": "an entry of the cohort's table or Info.cfg is missing or unusable",
    "no-metadata": "a folder of images is not in the cohort's table",
    "unknown-pathology": "the pathology is none of the known ones",
    "unknown-vendor": "the vendor is none of the four, or two entries contradict each other",
    "duplicate-subject": "the subject appears more than once, by name or by an image's voxels",
    "same-image": "ED and ES are one image",
}

SUBJECT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class ImageSource:
    """A 3-D image, or one frame of a 4-D one.

    Args:
        path: NIfTI file.
        frame: index of the frame, from 0; None for a 3-D file.
    """

    path: Path
    frame: int | None = None


@dataclass(frozen=True)
class RawSubject:
    """What a reader found about one subject; no image has been opened yet.

    Args:
        subject: name, used for its folder.
        dataset: acdc, mnms, mnms2 or table.
        pathology: canonical name, a value of ``PATHOLOGIES``.
        vendor: slug, one of ``VENDORS``.
        centre: where it was scanned, as far as the cohort tells.
        ed: end-diastolic image.
        es: end-systolic image.
        ed_segmentation: segmentation of ``ed``, if there is one.
        es_segmentation: segmentation of ``es``, if there is one.
        label_numbers: what the segmentation's labels 0 to 3 are in CineMA's numbers.
        official_split: train, val or test as the cohort's makers assigned, None where they did not.
    """

    subject: str
    dataset: str
    pathology: str
    vendor: str
    centre: str
    ed: ImageSource
    es: ImageSource
    ed_segmentation: ImageSource | None = None
    es_segmentation: ImageSource | None = None
    label_numbers: tuple[int, int, int, int] = CINEMA_NUMBERS
    official_split: str | None = None

    @property
    def label(self) -> int:
        """Return 0 for healthy, 1 for any disease."""
        return int(self.pathology != HEALTHY)

    def sources(self) -> Iterator[tuple[str, ImageSource]]:
        """Yield (role, source) of the images there are: ed, es, ed_gt, es_gt, in this order."""
        roles = {"ed": self.ed, "es": self.es, "ed_gt": self.ed_segmentation, "es_gt": self.es_segmentation}
        for role, source in roles.items():
            if source is not None:
                yield role, source


@dataclass(frozen=True)
class Refusal:
    """A subject that was found but cannot be used.

    Args:
        subject: its name as the cohort writes it.
        dataset: acdc, mnms, mnms2 or table.
        source: where it was found: a file, a folder or a row of a table.
        reason: a key of ``REASONS``.
        detail: what was found, what was expected and where.
    """

    subject: str
    dataset: str
    source: str
    reason: str
    detail: str

    @classmethod
    def of(cls, subject: str, dataset: str, source: object, refused: SubjectRefused) -> "Refusal":
        """Build from the error that refused the subject."""
        return cls(subject, dataset, str(source), refused.reason, refused.detail)


def canonical_pathology(text: str) -> str:
    """Return the canonical name of a pathology string; SubjectRefused ``unknown-pathology``."""
    name = PATHOLOGIES.get(text.strip().upper())
    if name is None:
        known = ", ".join(PATHOLOGIES)
        raise SubjectRefused("unknown-pathology", f"pathology {text!r} is unknown; known are {known}")
    return name


def vendor_slug(text: str) -> str:
    """Return siemens, philips, ge or canon for a vendor's name; SubjectRefused ``unknown-vendor``."""
    slug = VENDOR_NAMES.get(" ".join(text.lower().split()))
    if slug is None:
        raise SubjectRefused("unknown-vendor", f"vendor {text!r} is unknown; known are {', '.join(VENDORS)}")
    return slug


def check_name(text: str) -> str:
    """Return a subject's name if it can name a folder; SubjectRefused ``bad-metadata``."""
    if not SUBJECT_NAME.fullmatch(text):
        raise SubjectRefused("bad-metadata", f"{text!r} cannot name a subject: letters, digits, '_', '.' and '-' only")
    return text


def existing(path: Path, frame: int | None = None) -> ImageSource | None:
    """Return the source where the file is there; a cohort may come without its segmentations."""
    return ImageSource(path, frame) if path.is_file() else None
