"""Reader of DICOM studies: each becomes a 4-D file and an ordinary raw subject, described by a row of a table.

Nothing that identifies a person or an examination leaves the headers: the files that are written hold intensities
and geometry, and messages count slices and frames instead of quoting headers.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from med_duallora.cohorts.csvfile import filled, needed, read_table
from med_duallora.cohorts.dicom.copies import without_copies
from med_duallora.cohorts.dicom.phases import frames_of
from med_duallora.cohorts.dicom.remarks import frames_remark, skipped_note, study_remarks
from med_duallora.cohorts.dicom.stack import short_axis
from med_duallora.cohorts.dicom.studies import Study, find_studies
from med_duallora.cohorts.dicom.voxels import read_cine
from med_duallora.cohorts.dicom.workplace import workplace
from med_duallora.cohorts.nifti import Array, write_nifti
from med_duallora.cohorts.prepared import SPLITS
from med_duallora.cohorts.rows import Row
from med_duallora.cohorts.subject import ImageSource, RawSubject, Refusal, check_name
from med_duallora.cohorts.table import check_columns, choice, frame_of, pathology_of
from med_duallora.cohorts.vocabulary import STANDARD, Vocabulary
from med_duallora.errors import CohortError, SubjectRefused
from med_duallora.support.private import private_folder
from med_duallora.support.progress import track

DATASET = "dicom"

COLUMNS = {
    "subject": "the study's folder: its path relative to DIR, or its name",
    "pathology": "diagnosis, in the words of docs/vocabulary.md or of --label-map",
}
OPTIONAL_COLUMNS = {
    "label": "0 normal, 1 any disease; instead of pathology, or beside it",
    "name": "what the subject is called in the prepared cohort, instead of its folder's name",
    "vendor": "maker of the scanner, instead of what the headers say",
    "centre": "where it was scanned; any text",
    "ed_frame": "index of the end-diastolic frame, from 0; found by a rule where it is empty",
    "es_frame": "index of the end-systolic frame, from 0; given together with ed_frame",
    "split": "train, val or test, for --official-splits",
}
REQUIRED = ("subject", ("pathology", "label"))


@dataclass(frozen=True)
class _Entry:
    """A row of the table, with its line for messages."""

    place: str
    row: Row


@dataclass(frozen=True)
class DicomSubjects:
    """What came of a folder of studies.

    Args:
        subjects: whose files are there for a while.
        refused: studies and rows of the table that cannot be used.
        notes: what the user should know beside, one sentence each.
    """

    subjects: list[RawSubject]
    refused: list[Refusal]
    notes: list[str]


@contextmanager
def dicom_subjects(root: Path, table: Path | None, out: Path, words: Vocabulary = STANDARD) -> Iterator[DicomSubjects]:
    """Convert every study below ``root`` to a 4-D file in a hidden folder below ``out``, and describe it.

    The files, of which the subjects speak, are gone after the ``with`` block.

    Args:
        root: folder of one study or of many.
        table: with ``COLUMNS`` and ``OPTIONAL_COLUMNS``; without it all are refused, for want of a diagnosis.
        out: where prepared cohorts go.
        words: for pathologies and vendors.

    Raises:
        InputError: pydicom is not installed.
        CohortError: no DICOM picture below ``root``, the table cannot be read, or ``out`` cannot be written.
    """
    entries, refused = _entries(table)
    found = find_studies(root)
    matched, unmatched = _match(found.studies, entries)
    with workplace(out) as folder:
        subjects: list[RawSubject] = []
        for study in track(found.studies, "reading DICOM studies"):
            try:
                subjects.append(_subject(study, mine := matched.get(study.number, []), table, folder, words))
            except SubjectRefused as error:
                name = "".join(filled(entry.row, "name") for entry in mine[:1]) or study.subject
                refused.append(Refusal.of(name or f"study-{study.number}", DATASET, study.place, error))
        note = skipped_note(found.skipped)
        yield DicomSubjects(subjects, refused + unmatched, [note] if note else [])


def _entries(table: Path | None) -> tuple[list[_Entry], list[Refusal]]:
    if table is None:
        return [], []
    read = read_table(table, REQUIRED, (*COLUMNS, *OPTIONAL_COLUMNS))
    check_columns(table, read.columns, (*COLUMNS, *OPTIONAL_COLUMNS))
    bad = [
        Refusal.of(
            item.values.get("subject", ""),
            DATASET,
            f"{table}, row {item.number}",
            SubjectRefused("bad-metadata", item.detail),
        )
        for item in read.bad_rows
    ]
    return [_Entry(f"{table}, row {number}", row) for number, row in read.rows], bad


def _match(studies: Sequence[Study], entries: Sequence[_Entry]) -> tuple[dict[int, list[_Entry]], list[Refusal]]:
    """Return the rows of each study by its number, and the refusals of rows without exactly one study."""
    matched: dict[int, list[_Entry]] = {}
    refused = []
    for entry in entries:
        name = entry.row.get("subject", "").replace("\\", "/").strip("/").removeprefix("./")
        meant = [study for study in studies if name in study.names]
        exact = [study for study in meant if name in (study.folder.as_posix(), study.own.as_posix())]
        meant = exact or meant
        if len(meant) == 1:
            matched.setdefault(meant[0].number, []).append(entry)
            continue
        detail = (
            f"no DICOM study lies in a folder of this name below --dicom; there are {len(studies)}"
            if not meant
            else f"{len(meant)} studies lie in a folder of this name; write its path relative to --dicom"
        )
        error = SubjectRefused("bad-metadata" if meant else "missing-file", detail)
        refused.append(Refusal.of(entry.row.get("subject", ""), DATASET, entry.place, error))
    return matched, refused


def _subject(
    study: Study, entries: Sequence[_Entry], table: Path | None, folder: Path, words: Vocabulary
) -> RawSubject:
    row = _row(entries, table)
    name = check_name(filled(row, "name")) if filled(row, "name") else ""
    pathology, vendor = pathology_of(row, words), _vendor(study, row, words)
    split = choice(row, "split", ("", *SPLITS)) or None
    frames = _given_frames(row)
    converted = _converted(study, folder, frames, "fill in ed_frame and es_frame")
    path = converted.path
    return RawSubject(
        subject=name or study.subject or f"dicom-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}",
        dataset=DATASET,
        pathology=pathology,
        vendor=vendor,
        centre=filled(row, "centre"),
        ed=ImageSource(path, converted.ed),
        es=ImageSource(path, converted.es),
        official_split=split,
        cine=ImageSource(path),
        frames="given" if frames else "automatic",
        found_at=study.place,
        remarks=converted.remarks,
    )


def dicom_scan(root: Path, folder: Path) -> RawSubject:
    """Convert the one study below ``root`` and describe it without a diagnosis, for a model to say something of it.

    Args:
        root: folder of one study.
        folder: for the 4-D file that the subject speaks of; it is the caller's, and so is its end.

    Raises:
        InputError: pydicom is not installed.
        CohortError: no DICOM picture below ``root``, or more than one study.
        SubjectRefused: the study cannot be read.
    """
    studies = find_studies(root).studies
    if len(studies) > 1:
        raise CohortError(f"{root} holds {len(studies)} DICOM studies; give the folder of one study at a time")
    found = _converted(studies[0], folder, None, "convert it to NIfTI and give ED and ES as two files")
    images = [ImageSource(found.path, frame) for frame in (found.ed, found.es)]
    return RawSubject(
        subject="scan",
        dataset=DATASET,
        pathology="",
        vendor="",
        centre="",
        ed=images[0],
        es=images[1],
        cine=ImageSource(found.path),
        frames="automatic",
        found_at=str(root),
        remarks=found.remarks,
    )


@dataclass(frozen=True)
class _Converted:
    """The 4-D file of a study, the frames that are ED and ES, and what was noticed."""

    path: Path
    ed: int
    es: int
    remarks: tuple[str, ...]


def _converted(study: Study, folder: Path, frames: tuple[int, int] | None, todo: str) -> _Converted:
    """Write a study's cine; ``frames`` are ED and ES where they are given, ``todo`` helps where none is found."""
    if not study.alone:
        detail = "another study lies in the same folder; one folder per subject, one study per folder"
        raise SubjectRefused("ambiguous-file", detail)
    if not study.pictures:
        raise SubjectRefused("unsupported-dicom", _ENHANCED)
    cine, affine, remarks = _cine(study)
    x, y, z = (float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
    ed, es = frames or frames_of(cine, (x, y, z), todo)
    path = folder / str(study.number) / "sax.nii.gz"
    private_folder(path.parent)
    write_nifti(path, cine, affine)
    return _Converted(path, ed, es, remarks if frames else (frames_remark(ed, es, cine.shape[3]), *remarks))


_ENHANCED = (
    "all its images are in the Enhanced (multi-frame) form, which is not read; export the study as classic MR images, "
    "one file per slice and frame, or convert it to NIfTI and use --table"
)


def _cine(study: Study) -> tuple[Array, Array, tuple[str, ...]]:
    """Return the intensities, the affine, and what of the study is not among them."""
    pictures, n_copies = without_copies(study.pictures)
    try:
        slices = short_axis(pictures)
    except SubjectRefused as error:
        if error.reason == "no-cine" and study.n_enhanced:
            detail = f"{error.detail}; {study.n_enhanced} files in the Enhanced (multi-frame) form were not read"
            raise SubjectRefused("unsupported-dicom", detail) from error
        raise
    return *read_cine(slices), study_remarks(pictures, slices, n_copies, study.n_enhanced)


def _row(entries: Sequence[_Entry], table: Path | None) -> Row:
    if len(entries) > 1:
        places = " and ".join(entry.place for entry in entries)
        raise SubjectRefused("bad-metadata", f"{len(entries)} rows of the table mean this study: {places}")
    if not entries:
        what = (
            "a table is needed that says the diagnosis: --dicom-table CSV with the columns subject and pathology "
            "(--table-template CSV instead of --out writes one to fill in)"
        )
        if table is not None:
            what = f"{table} has no row for it"
        raise SubjectRefused("no-metadata", f"DICOM headers do not tell the diagnosis; {what}")
    needed(entries[0].row, "subject")
    return entries[0].row


def _vendor(study: Study, row: Row, words: Vocabulary) -> str:
    if filled(row, "vendor"):
        return words.vendor(filled(row, "vendor"))
    try:
        (vendor,) = {words.vendor(text) for text in study.manufacturers if text.strip()}
    except (ValueError, SubjectRefused):
        # The header's own text is not repeated: a site may have written anything into it.
        detail = "the headers name no maker that is known, or several; fill in the column vendor"
        raise SubjectRefused("unknown-vendor", detail) from None
    return vendor


def _given_frames(row: Row) -> tuple[int, int] | None:
    ed, es = frame_of(row, "ed"), frame_of(row, "es")
    if ed is None and es is None:
        return None
    if ed is None or es is None:
        raise SubjectRefused("bad-metadata", "only one of ed_frame and es_frame is filled in; give both or neither")
    if ed == es:
        raise SubjectRefused("unlabelled", f"ED and ES are the same frame, {ed}")
    return ed, es
