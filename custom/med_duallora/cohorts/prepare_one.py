"""Prepare one subject: its raw files in, its folder of a prepared cohort out, whole or not at all."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from med_duallora.cohorts.crop_centre import CropCentre, crop_centre
from med_duallora.cohorts.identity import IDENTITY, image_hashes
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.nifti_stream import files_sha256
from med_duallora.cohorts.stacks import Stacks, load_stacks
from med_duallora.cohorts.subject import RawSubject, Refusal
from med_duallora.cohorts.volume import PREPARATION, PreparedVolume, prepare_volume
from med_duallora.errors import MedDualLoRAError, SubjectRefused
from med_duallora.support.files import read_object, sha256_of_file, sha256_of_json, write_json
from med_duallora.support.private import PRIVATE_FILE, PRIVATE_FOLDER, close_folder, private_folder

_log = logging.getLogger(__name__)

# Lies beside a subject's volumes: what they were made from, and their hashes.
RECORD = "preparation.json"


@dataclass(frozen=True)
class Prepared:
    """What the table of a prepared cohort says about a subject's volumes.

    Args:
        subject: name of the subject.
        source_sha256: SHA-256 over the bytes of its source files, each file once, in the order ED, ES, ED
            segmentation, ES segmentation: what ``cat FILES | sha256sum`` prints.
        n_slices: slices of the prepared volume, at 10 mm.
        spacing: raw voxel size in mm.
        crop_centre: ``segmentation``, ``motion`` or ``image``.
        reused: the volumes were there already, made from the same bytes in the same way.
        ed_voxels_sha256: identity of the raw ED stack.
        es_voxels_sha256: identity of the raw ES stack.
        crop_confidence: of the crop's centre, 0 to 1; None where a segmentation or nothing gave it.
        remarks: what was noticed about the raw files, one sentence each; what follows a colon in it is a detail
            of this subject.
        crop_window: start and stop of the crop along x and along y, in mm on the whole image; None in records written
            before there was one.
    """

    subject: str
    source_sha256: str
    n_slices: int
    spacing: tuple[float, float, float]
    crop_centre: str
    reused: bool = False
    ed_voxels_sha256: str = ""
    es_voxels_sha256: str = ""
    crop_confidence: float | None = None
    remarks: tuple[str, ...] = ()
    crop_window: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Found:
    """Raw stacks, prepared volumes, identities of ED and ES, and what the crop is centred on."""

    stacks: Stacks
    volume: PreparedVolume
    hashes: tuple[str, str]
    centre: CropCentre


def prepare_one(raw: RawSubject, folder: Path, rotated_origin_shift: bool) -> Prepared | Refusal:
    """Prepare one subject into ``folder`` unless an earlier run did exactly that.

    Args:
        raw: the subject.
        folder: of the subject in its prepared cohort; replaced as a whole, and removed on refusal.
        rotated_origin_shift: see ``volume.prepare_volume``.

    Returns:
        What was prepared, or why not.
    """
    try:
        source_sha256, sha256 = files_sha256(list(dict.fromkeys(source.path for _, source in raw.sources())))
        request = _request(raw, list(sha256), source_sha256, rotated_origin_shift, _cine_sha256(raw))
        earlier = _earlier(folder, request)
        if earlier is not None:
            close_folder(folder)  # an earlier version of this program let others read it
            return earlier
        found = _prepare(raw, sha256, rotated_origin_shift)
    except SubjectRefused as refused:
        shutil.rmtree(folder, ignore_errors=True)
        return Refusal.of(raw.subject, raw.dataset, raw.ed.path, refused)
    prepared = Prepared(
        subject=raw.subject,
        source_sha256=source_sha256,
        n_slices=found.volume.ed.shape[2],
        spacing=found.stacks.spacing,
        crop_centre=found.volume.crop_centre,
        ed_voxels_sha256=found.hashes[0],
        es_voxels_sha256=found.hashes[1],
        crop_confidence=found.centre.confidence,
        remarks=(*found.stacks.remarks, *found.centre.remarks),
        crop_window=(*found.volume.window[0], *found.volume.window[1]),
    )
    _write(folder, found.volume, prepared, request)
    return prepared


def _cine_sha256(raw: RawSubject) -> str:
    """Return the hash of the cine that the heart is looked for in; empty where it is not, or cannot be read."""
    if raw.cine is None or raw.ed_segmentation is not None:
        return ""
    try:
        return files_sha256([raw.cine.path])[0]
    except SubjectRefused:
        return ""


def _request(
    raw: RawSubject, paths: list[Path], source_sha256: str, rotated_origin_shift: bool, cine_sha256: str
) -> str:
    """Return a hash of everything that decides the prepared voxels; names and places of files do not."""
    roles = [[role, paths.index(source.path), source.frame] for role, source in raw.sources()]
    numbers = [roles, raw.label_numbers, rotated_origin_shift]
    return sha256_of_json([PREPARATION, IDENTITY, source_sha256, cine_sha256, *numbers])


def _earlier(folder: Path, request: str) -> Prepared | None:
    """Return the record of an earlier run if it answered the same request and its files are intact."""
    try:
        record = read_object(folder / RECORD)
        if record["request"] != request:
            return None
        if any(sha256_of_file(folder / name) != digest for name, digest in record["files"].items()):
            return None
        return replace(prepared_of(record), reused=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no record, or a damaged one: prepare again


def prepared_of(record: Mapping[str, Any]) -> Prepared:
    """Return what the record beside a subject's volumes says of them (KeyError, TypeError: it is not such a record)."""
    values = record["prepared"]
    tuples = {name: tuple(values[name]) for name in ("spacing", "remarks", "crop_window") if values.get(name)}
    return Prepared(**{**values, "remarks": (), **tuples})


def _prepare(raw: RawSubject, sha256: Mapping[Path, str], rotated_origin_shift: bool) -> "_Found":
    """Return what came of a subject; whatever goes wrong is a refusal of this subject.

    One damaged scan must not stop the others, also where it is damaged in a way that nobody thought of.
    """
    try:
        stacks = load_stacks(raw, sha256)
        centre = crop_centre(raw, stacks)
        volume = prepare_volume(
            stacks.ed,
            stacks.es,
            stacks.affine,
            stacks.spacing,
            ed_labels=stacks.ed_labels,
            es_labels=stacks.es_labels,
            label_numbers=raw.label_numbers,
            rotated_origin_shift=rotated_origin_shift,
            centre=centre.place,
        )
        hashes = image_hashes(stacks.ed, stacks.es)
    except MedDualLoRAError:
        raise
    except MemoryError as error:
        raise SubjectRefused("too-large", "there is not enough memory to prepare its images") from error
    except Exception as error:
        # The text of an error may name a file, which a log must not.
        _log.warning("a subject was refused for an error that was not foreseen: %s", type(error).__name__)
        raise SubjectRefused("unexpected-error", f"{type(error).__name__}: {error}; please report this") from error
    return _Found(stacks, volume, hashes, centre)


def _write(folder: Path, volume: PreparedVolume, prepared: Prepared, request: str) -> None:
    """Write everything beside ``folder``, then put it in its place; folders have mode 0700, files 0600."""
    roles = {"ed": volume.ed, "es": volume.es, "ed_gt": volume.ed_labels, "es_gt": volume.es_labels}
    arrays = {f"{prepared.subject}_sax_{role}.nii.gz": array for role, array in roles.items() if array is not None}
    private_folder(folder.parent)
    # Hidden, so that an interrupted run leaves nothing that looks like a subject; the next run clears it.
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    partial.chmod(PRIVATE_FOLDER)  # an umask can take rights from the owner as well
    try:
        for name, array in arrays.items():
            write_nifti(partial / name, array, volume.affine)
        record: dict[str, Any] = {"preparation": PREPARATION, "request": request, "prepared": asdict(prepared)}
        record["prepared"].pop("reused")
        record["files"] = {name: sha256_of_file(partial / name) for name in arrays}
        write_json(partial / RECORD, record, PRIVATE_FILE)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
