"""One raw subject as every reader describes it, and the words all cohorts share."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from med_duallora.cohorts.vocabulary import NORMAL, VENDORS, canonical_pathology, vendor_slug
from med_duallora.errors import SubjectRefused

__all__ = ["NORMAL", "VENDORS", "canonical_pathology", "vendor_slug"]  # kept in ``vocabulary``, also had from here

# CineMA's number of each label number in a file: entry i says what label i becomes.
CINEMA_NUMBERS = (0, 1, 2, 3)  # 1 RV, 2 MYO, 3 LV: also ACDC's
MNMS_NUMBERS = (0, 3, 2, 1)  # 1 LV, 2 MYO, 3 RV: M&Ms and M&Ms-2

# Why a subject is refused, in a few words for a summary. Readers and preparation use no other reason.
REASONS = {
    "missing-file": "a file that the cohort names does not exist",
    "ambiguous-file": "an image is there in two files that differ",
    "unreadable-file": "a file is truncated, damaged or no NIfTI image",
    "wrong-dimensions": "an image has not the expected number of dimensions",
    "frame-out-of-range": "the table names a frame that the image does not have",
    "shape-mismatch": "ED, ES and their segmentations differ in shape",
    "bad-data-type": "voxels are neither whole nor real numbers",
    "bad-geometry": "voxel size or axes are unusable",
    "space-mismatch": "ED, ES and their segmentations do not lie in one place",
    "implausible-stack": "the extent is not that of a short-axis stack; the slice distance may be lost",
    "too-large": "an image promises or holds more voxels than any cine",
    "non-finite": "an image holds NaN or infinity",
    "constant-image": "an image has no contrast",
    "bad-segmentation": "a segmentation holds other labels than 0 to 3",
    "empty-lv": "a segmentation has no left ventricle",
    "implausible-heart": "the left ventricle is larger or smaller than any heart's",
    "phases-exchanged": "the left ventricle is not smaller at ES than at ED, which may be exchanged",
    "heart-outside": "the left ventricle does not lie inside the crop",
    "unexpected-error": "preparing failed in a way that was not foreseen",
    "unlabelled": "ED and ES are not marked",
    "bad-metadata": "an entry of the cohort's table or Info.cfg is missing or unusable",
    "no-metadata": "a folder of images is not in the cohort's table",
    "unknown-pathology": "the pathology is not one of the known ones",
    "unknown-vendor": "the vendor is not one of the known ones, or two entries contradict each other",
    "no-cine": "a DICOM study holds no short-axis cine, or nothing tells which of several it is",
    "incomplete-cine": "pictures of a DICOM cine are missing or there twice",
    "unsupported-dicom": "a DICOM study is stored in a form that cannot be read here",
    "duplicate-subject": "the subject appears more than once, by name or by an image's voxels",
    "same-image": "ED and ES are one image",
}

# Not what `prepare` itself writes beside a subject's folder, in any case: some disks do not tell cases apart.
SUBJECT_NAME = re.compile(r"(?!(?i:cohort\.csv|preparation\.json|refused\.csv)$)[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


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
        dataset: acdc, mnms, mnms2, table or dicom.
        pathology: canonical name, one of ``vocabulary.PATHOLOGIES`` or of a label map; empty: a scan that a model shall
            say something of, which has no label.
        vendor: slug, one of ``vocabulary.VENDORS``.
        centre: where it was scanned, as far as the cohort tells.
        ed: end-diastolic image.
        es: end-systolic image.
        ed_segmentation: segmentation of ``ed``, if there is one.
        es_segmentation: segmentation of ``es``, if there is one.
        label_numbers: what the segmentation's labels 0 to 3 are in CineMA's numbers.
        official_split: train, val or test as the cohort's makers assigned, None where they did not.
        cine: the 4-D file with all frames, if there is one; it helps to find the heart, and is not a part of the
            subject's prepared images.
        frames: ``given``, or ``automatic`` where ED and ES were chosen by a rule.
        found_at: what messages call its place, where its files are temporary; else empty.
        remarks: what its reader noticed, one sentence each; what follows a colon in it is a detail of this subject.
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
    cine: ImageSource | None = None
    frames: str = "given"
    found_at: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def label(self) -> int:
        """Return 0 for normal (NOR), 1 for any disease."""
        return int(self.pathology != NORMAL)

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
        dataset: acdc, mnms, mnms2, table or dicom.
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


def check_name(text: str) -> str:
    """Return a subject's name if it can name a folder; SubjectRefused ``bad-metadata``."""
    if not SUBJECT_NAME.fullmatch(text):
        rule = (
            "up to 100 letters, digits, '_', '.' and '-', beginning with a letter or digit; no name of a cohort's table"
        )
        raise SubjectRefused("bad-metadata", f"{text[:120]!r} cannot name a subject: {rule}")
    return text
