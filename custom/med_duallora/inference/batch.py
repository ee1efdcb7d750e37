"""Many scans, one after the other, into one folder of results that a second start goes on with.

``predictions.json`` holds everything, ``predictions.csv`` the same for a spreadsheet. Both speak of patients: only the
account that wrote them can read them.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from med_duallora import __version__
from med_duallora.cohorts.csvfile import table_text
from med_duallora.errors import InputError, ScanError
from med_duallora.inference.model import Prediction, TrainedModel
from med_duallora.inference.saved import RESEARCH_USE
from med_duallora.inference.scan import ScanSource
from med_duallora.support.files import read_object, write_json, write_text
from med_duallora.support.folders import check_writable
from med_duallora.support.locks import locked
from med_duallora.support.private import private_folder
from med_duallora.support.progress import track

JSON_FILE, CSV_FILE = "predictions.json", "predictions.csv"
COLUMNS = (
    *("scan", "probability", "calibrated", "threshold", "decision", "farther_than", "against_trust", "remarks"),
    *("refused", "source", "source_es"),
)
VALUES = (
    *("probability", "calibrated", "threshold", "decision", "distance", "farther_than"),
    *("n_slices", "spacing", "crop_centre", "crop_confidence", "crop_window"),
)
"""What a row holds besides; null where a scan was refused, or nothing tells it."""
SEPARATOR = "; "
SAVE_EVERY_S = 5.0
"""What a killed run loses at most, beside the scan that it was at."""
Row = dict[str, Any]


@dataclass
class Outcome:
    """What came of a batch.

    Args:
        rows: of the scans that were asked for, in their order.
        n_earlier: how many of them an earlier run had predicted.
    """

    rows: list[Row] = field(default_factory=list)
    n_earlier: int = 0

    @property
    def refused(self) -> list[Row]:
        """Return the scans that could not be predicted."""
        return [row for row in self.rows if row["refused"]]


def predict_batch(model: TrainedModel, sources: Sequence[ScanSource], out: Path, fresh: bool = False) -> Outcome:
    """Predict scans and write the results to a folder, mode 0600.

    What an earlier run with the same model wrote there stays, and a scan whose files have not changed since is not
    predicted again. A scan that cannot be read or prepared gets a row that says why; the others go on.

    Args:
        model: says what it thinks of each.
        sources: the scans.
        out: the folder; created where it is missing.
        fresh: begin anew: what the folder holds is replaced.

    Raises:
        InputError: two scans are one and the same, the folder holds results of another model or damaged ones, or
            another run writes there.
        OSError: it cannot be written.
    """
    keys = [_key(source) for source in sources]
    if len(set(keys)) < len(keys):
        raise InputError(f"{next(key for key in keys if keys.count(key) > 1)[0]} is given more than once")
    private_folder(out)
    check_writable(out)
    with locked(out, InputError(f"another run of predict is writing to {out}; wait for it or choose another --out")):
        earlier = {} if fresh else _earlier(out, model)
        return _predicted(model, dict(zip(keys, sources, strict=True)), earlier, out)


def row_of(source: ScanSource, digest: str, prediction: Prediction) -> Row:
    """Return the results' row of a prediction."""
    scan, distance = prediction.scan, prediction.distance
    return {
        **_origin(source, digest),
        "probability": prediction.probability,
        "calibrated": prediction.calibrated,
        "threshold": prediction.threshold,
        "decision": prediction.decision,
        "distance": distance.value if distance else None,
        "farther_than": distance.nearer if distance else None,
        "against_trust": list(prediction.against_trust),
        "remarks": list(prediction.remarks),
        "n_slices": scan.n_slices,
        "spacing": list(scan.spacing) if scan.spacing else None,
        "crop_centre": scan.crop_centre,
        "crop_confidence": scan.crop_confidence,
        "crop_window": list(scan.crop_window) if scan.crop_window else None,
    }


def _predicted(
    model: TrainedModel,
    sources: Mapping[tuple[str, str], ScanSource],
    known: dict[tuple[str, str], Row],
    out: Path,
) -> Outcome:
    outcome, saved_at = Outcome(), time.monotonic()
    try:
        for key, source in track(sources.items(), "predicting", len(sources)):
            row, is_earlier = _one(model, source, known.get(key), out)
            known[key] = row
            outcome.rows.append(row)
            outcome.n_earlier += is_earlier
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                _write(out, model, known.values())
                saved_at = time.monotonic()
    except KeyboardInterrupt:
        _write(out, model, known.values())
        raise
    _write(out, model, known.values())
    return outcome


def _one(model: TrainedModel, source: ScanSource, earlier: Row | None, out: Path) -> tuple[Row, bool]:
    digest = ""
    try:
        digest = source.sha256()
        if earlier and earlier["content_sha256"] == digest and not earlier["refused"]:
            return earlier, True
        return row_of(source, digest, model.predict(source.read(out))), False
    except ScanError as error:
        return {**_origin(source, digest), "refused": str(error), "reason": error.reason}, False


def _key(source: ScanSource) -> tuple[str, str]:
    return str(source.path.absolute()), str(source.es.absolute()) if source.es else ""


def _origin(source: ScanSource, digest: str) -> Row:
    path, es = _key(source)
    names = {"scan": source.name, "source": path, "source_es": es, "content_sha256": digest}
    return {**names, **dict.fromkeys(VALUES), "against_trust": [], "remarks": [], "refused": "", "reason": ""}


def _earlier(out: Path, model: TrainedModel) -> dict[tuple[str, str], Row]:
    """Return what an earlier run with this model wrote, by its scans."""
    path = out / JSON_FILE
    todo = "choose another --out, or begin anew with --fresh, which replaces it"
    try:
        found = read_object(path)
        rows, sha256 = found["predictions"], found["model"]["sha256"]
        known = {(row["source"], row["source_es"]): row for row in rows}
        whole = all({*COLUMNS, "content_sha256"} <= set(row) for row in rows)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a file of results that can be gone on with ({error}): {todo}") from error
    if not whole or found.get("program") != __version__:
        raise InputError(f"{path} was written by another version of med-duallora: {todo}")
    if sha256 != model.saved.sha256:
        raise InputError(f"{path} holds predictions of another model, or of another threshold: {todo}")
    return known


def _write(out: Path, model: TrainedModel, rows: Iterable[Row]) -> None:
    rows = list(rows)
    facts = {"not_for_diagnosis": True, "intended_use": RESEARCH_USE, "program": __version__}
    write_json(out / JSON_FILE, {**facts, "model": model.saved.to_dict(), "predictions": rows}, 0o600)
    write_text(out / CSV_FILE, table_text(COLUMNS, [_cells(row) for row in rows]), 0o600)


def _cells(row: Row) -> dict[str, Any]:
    texts = {name: SEPARATOR.join(row[name]) for name in ("against_trust", "remarks")}
    return {**{name: "" if row[name] is None else row[name] for name in COLUMNS}, **texts}
