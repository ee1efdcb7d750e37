"""The prediction of one examination, out of what ``med-duallora predict`` wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from med_duallora.errors import ArtifactError
from med_duallora.export.dicom_report import Finding
from med_duallora.inference.scan import ScanSource
from med_duallora.settings.kinds import is_finite_number
from med_duallora.support.files import read_object

TOLD = ("experiment", "method", "backbone", "backbone_sha256", "round", "sha256")
"""What of the model a report says: nothing of the site or its paths."""


def finding_of(predictions: Path, study: Path) -> tuple[Finding, list[str]]:
    """Return what was predicted of a DICOM study, and which model it was, a ``name=value`` each.

    The study is recognised by the bytes of its files, so that a report never goes to another patient's examination.

    Args:
        predictions: ``predictions.json``.
        study: the folder of the DICOM study.

    Raises:
        ArtifactError: the file is not one of ``predict``, or has no prediction of this study.
        ScanError: the study's files cannot be read.
    """
    try:
        values = read_object(predictions)
        rows, model = list(values["predictions"]), dict(values["model"])
        known = {row["content_sha256"]: row for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{predictions} is not the predictions.json of `med-duallora predict`: {_said(error)}"
        ) from error
    row = known.get(ScanSource(study).sha256())
    if row is None or row.get("refused"):
        why = "its study was refused" if row else "no prediction in it is of these files"
        raise ArtifactError(f"{predictions}: {why}; run `med-duallora predict --scan {study}` first")
    return _finding(row, predictions), [f"{name}={model[name]}" for name in TOLD if name in model]


def _finding(row: Mapping[str, Any], place: Path) -> Finding:
    numbers = {name: row.get(name) for name in ("probability", "threshold")}
    for name, value in numbers.items():
        if not is_finite_number(value):
            raise ArtifactError(f"{place} is damaged: {name} = {value!r}")
    texts = [*row.get("against_trust", []), *row.get("remarks", [])]
    return Finding(float(row["probability"]), float(row["threshold"]), tuple(map(str, texts)))


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
