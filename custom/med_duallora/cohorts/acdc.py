"""Reader of the raw ACDC layout: database/{training,testing}/patientNNN with an Info.cfg each."""

from pathlib import Path

from med_duallora.cohorts.csvfile import whole_number
from med_duallora.cohorts.subject import ImageSource, RawSubject, Refusal, canonical_pathology, check_name, existing
from med_duallora.errors import CohortError, SubjectRefused

DATASET = "acdc"
OFFICIAL_SPLITS = {"training": "train", "testing": "test"}


def read(root: Path) -> tuple[list[RawSubject], list[Refusal]]:
    """Describe every patient below ``root``, the folder ``database`` or the one that holds it.

    All of ACDC was scanned at one hospital on Siemens scanners. Its makers give no validation split.

    Raises:
        CohortError: there is no such folder, or no patient in it.
    """
    base = next(
        (base for base in (root / "database", root) if any((base / name).is_dir() for name in OFFICIAL_SPLITS)), None
    )
    folders = (
        []
        if base is None
        else [
            (folder, split)
            for name, split in OFFICIAL_SPLITS.items()
            for folder in sorted((base / name).glob("patient*"))
            if folder.is_dir()
        ]
    )
    if not folders:
        raise CohortError(f"{root} holds no ACDC cohort; expected [database/]training/patient001/Info.cfg and so on")
    subjects, refused = [], []
    for folder, split in folders:
        try:
            subjects.append(_subject(folder, split))
        except SubjectRefused as error:
            refused.append(Refusal.of(folder.name, DATASET, folder, error))
    return subjects, refused


def _subject(folder: Path, split: str) -> RawSubject:
    name = check_name(folder.name)
    info = _info(folder / "Info.cfg")
    ed, es = (_frame(info, key, folder) for key in ("ED", "ES"))
    if ed == es:
        raise SubjectRefused("unlabelled", f"{folder / 'Info.cfg'} says ED = ES = {ed}")
    images = [folder / f"{name}_frame{frame:02d}.nii.gz" for frame in (ed, es)]
    segmentations = [folder / f"{name}_frame{frame:02d}_gt.nii.gz" for frame in (ed, es)]
    return RawSubject(
        subject=name,
        dataset=DATASET,
        pathology=canonical_pathology(info.get("Group", "")),
        vendor="siemens",
        centre=DATASET,
        ed=ImageSource(images[0]),
        es=ImageSource(images[1]),
        ed_segmentation=existing(segmentations[0]),
        es_segmentation=existing(segmentations[1]),
        official_split=split,
    )


def _info(path: Path) -> dict[str, str]:
    """Read the lines ``key: value`` of an Info.cfg."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SubjectRefused("missing-file", f"{path} does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SubjectRefused("bad-metadata", f"{path} cannot be read: {error}") from error
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _frame(info: dict[str, str], key: str, folder: Path) -> int:
    frame = whole_number(info.get(key, ""))
    if frame is None:
        raise SubjectRefused(
            "bad-metadata", f"{folder / 'Info.cfg'}: {key} is {info.get(key)!r}; expected a frame number"
        )
    return frame
