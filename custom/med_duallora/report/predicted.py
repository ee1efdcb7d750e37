"""From the rows of a batch to the page that shows them: the scans are read once more for their pictures."""

from collections.abc import Sequence
from typing import Any

from med_duallora.backbone import BackboneConfig
from med_duallora.cohorts.provenance import is_synthetic
from med_duallora.errors import ScanError
from med_duallora.inference.model import TrainedModel
from med_duallora.inference.occlusion import occlusion, window_of
from med_duallora.inference.scan import ScanSource
from med_duallora.report.document import Document
from med_duallora.report.prediction_page import MOST_SHOWN, ShownScan, build
from med_duallora.support.progress import track


def page_of(model: TrainedModel, sources: Sequence[ScanSource], rows: Sequence[dict[str, Any]]) -> Document:
    """Return the page of a batch.

    Args:
        model: which predicted them.
        sources: the scans.
        rows: one of each, see ``batch.row_of``; at least one was not refused.
    """
    predicted = [(source, row) for source, row in zip(sources, rows, strict=True) if not row["refused"]]
    pictured = track(predicted[:MOST_SHOWN], "drawing and blanking", len(predicted[:MOST_SHOWN]))
    shown = [_with_picture(model, source, row) for source, row in pictured]
    saved = model.saved
    return build(
        [*shown, *(_shown(row) for _, row in predicted[MOST_SHOWN:])],
        f"{saved.site}, experiment {saved.job.experiment}, after round {saved.state.round_index + 1}",
        synthetic=all(is_synthetic(source.path) for source, _ in predicted),
        gate=saved.gate,
        refused=[(row["scan"], row["refused"]) for row in rows if row["refused"]],
    )


def _shown(row: dict[str, Any], **pictures: Any) -> ShownScan:
    return ShownScan(
        name=row["scan"],
        probability=row["probability"],
        threshold=row["threshold"],
        decision=row["decision"],
        against_trust=tuple(row["against_trust"]),
        remarks=tuple(row["remarks"]),
        calibrated=row["calibrated"],
        crop_window=tuple(row["crop_window"]) if row["crop_window"] else None,
        **pictures,
    )


def _with_picture(model: TrainedModel, source: ScanSource, row: dict[str, Any]) -> ShownScan:
    try:
        scan = source.read()
    except ScanError:  # it went or changed since it was predicted
        return _shown(row)
    window = window_of(scan.volume.shape, BackboneConfig.preset(model.saved.job.backbone))
    found = occlusion(model.chances, scan.volume, window)
    return _shown(row, mid_slices=scan.mid_slices, box=window, occlusion=found)
