"""The page of predictions: what the model says of each scan, what speaks against trusting it, what it reacts to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from med_duallora.inference.gate import Gate
from med_duallora.inference.occlusion import Occlusion
from med_duallora.report.document import Block, Document, KeyNumber, Paragraph, Picture, Section, Table
from med_duallora.report.plots import STYLE, WIDTH, png
from med_duallora.report.tables import NONE

NOT_FOR_DIAGNOSIS = "Research use, not for diagnosis."
PATIENTS = "This page shows images of this site's subjects: it must not leave the site."
PHANTOMS = "Synthetic phantoms."
PICTURE_WIDTH, BAR_HEIGHT = 1.4 * WIDTH, 0.95
"""Inches."""
MOST_SHOWN = 24
"""Scans with a picture; the table has all of them."""
LEAST_SCALE = 0.02
"""Change of the probability that the darkest colour stands for at least, so that noise does not look like a finding."""
MOST_PARTS = 3
"""Parts of a scan that are named beside the picture."""
OCCLUSION = (
    "How the probability changes when this part of the scan is blanked: it is filled with its own mean, in every "
    "slice, at ED and ES alike. It shows what the model reacts to, not a cause and not where a disease is."
)


@dataclass(frozen=True)
class ShownScan:
    """One prediction as the page shows it.

    Args:
        name: of the scan.
        probability: of disease, as the model gives it.
        threshold: from this probability on it is disease.
        decision: in one word.
        against_trust: what speaks against trusting it, one sentence each.
        remarks: what was noticed about the files, likewise.
        calibrated: the probability after the site's calibration; None: there is none.
        interval: of the probability over an ensemble; None: there is none.
        mid_slices: uint8 (2, X, Y), the middle slice at ED and ES; None: no picture.
        box: start and stop along x and along y of what is to be framed in them, in pixels; None: nothing.
        crop_window: where they were cut out, start and stop along x and y in mm on the whole image; None: unknown.
        occlusion: see there; None: it was not computed.
    """

    name: str
    probability: float
    threshold: float
    decision: str
    against_trust: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    calibrated: float | None = None
    interval: tuple[float, float] | None = None
    mid_slices: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    box: tuple[int, ...] | None = None
    crop_window: tuple[int, ...] | None = None
    occlusion: Occlusion | None = field(default=None, repr=False)


def build(
    scans: Sequence[ShownScan],
    model: str,
    *,
    synthetic: bool,
    gate: Gate | None = None,
    refused: Sequence[tuple[str, str]] = (),
) -> Document:
    """Return the page of one or several predictions.

    Args:
        scans: at least one.
        model: what predicted, in a few words, such as ``"siemens, experiment demo, after round 3"``.
        synthetic: whether all scans are phantoms.
        gate: of the model, where one is known.
        refused: scans that were not predicted, each with the reason.

    Raises:
        ValueError: there is no scan.
    """
    if not scans:
        raise ValueError("a page of predictions needs at least one scan")
    return Document(
        title="Prediction of one scan" if len(scans) == 1 else f"Predictions of {len(scans)} scans",
        banner=f"{PHANTOMS if synthetic else PATIENTS} {NOT_FOR_DIAGNOSIS}",
        headline=_headline(scans, gate),
        key_numbers=_key_numbers(scans),
        sections=[
            Section("All scans" if len(scans) > 1 else "Result", [_table(scans), *_more(scans), *_refused(refused)]),
            *(_section(number, scan, synthetic) for number, scan in enumerate(scans[:MOST_SHOWN])),
            Section("The model", [Paragraph(f"Predicted by the model of {model}."), *_of_gate(gate)]),
        ],
    )


def _headline(scans: Sequence[ShownScan], gate: Gate | None) -> str:
    warning = "" if gate is None or gate.passed else f"This model is not released. {gate.sentence} "
    if len(scans) > 1:
        n = sum(bool(scan.against_trust) for scan in scans)
        doubts = f"Something speaks against trusting {n} of them" if n else "Nothing is known that speaks against them"
        above = sum(scan.probability >= scan.threshold for scan in scans)
        return f"{warning}{above} of {len(scans)} scans lie at or above the threshold. {doubts}."
    (scan,) = scans
    side = "at or above" if scan.probability >= scan.threshold else "below"
    doubt = " Something speaks against trusting it, see below." if scan.against_trust else ""
    return (
        f"{warning}Probability of disease {_chance(scan.probability)}, {side} the threshold {_chance(scan.threshold)}: "
        f"{scan.decision}.{doubt}"
    )


def _key_numbers(scans: Sequence[ShownScan]) -> list[KeyNumber]:
    doubted = sum(bool(scan.against_trust) for scan in scans)
    thresholds = sorted({scan.threshold for scan in scans})
    return [
        KeyNumber(str(len(scans)), "scans" if len(scans) > 1 else "scan"),
        KeyNumber(str(sum(scan.probability >= scan.threshold for scan in scans)), "at or above the threshold"),
        KeyNumber(", ".join(map(_chance, thresholds)), "threshold of the probability of disease"),
        KeyNumber(str(doubted), "with something that speaks against trust"),
    ]


def _chance(value: float) -> str:
    """Return a probability with three digits after the point; one that is not quite certain does not look certain."""
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        return "above 0.999"
    return "below 0.001" if text == "0.000" and value > 0 else text


def _table(scans: Sequence[ShownScan]) -> Table:
    columns: dict[str, Callable[[ShownScan], str]] = {
        "probability of disease": lambda scan: _chance(scan.probability),
        "after calibration": lambda scan: NONE if scan.calibrated is None else _chance(scan.calibrated),
        "interval of the ensemble": lambda scan: _interval(scan.interval),
        "decision": lambda scan: scan.decision,
        "against trust": lambda scan: "; ".join(scan.against_trust) or "nothing known",
    }
    if all(scan.calibrated is None for scan in scans):
        del columns["after calibration"]
    if all(scan.interval is None for scan in scans):
        del columns["interval of the ensemble"]
    return Table(
        caption="What the model says of each scan",
        header=["scan", *columns],
        rows=[[scan.name, *(value(scan) for value in columns.values())] for scan in scans],
        note="Nothing known against trust does not say that a prediction is right.",
        strong_rows=[row for row, scan in enumerate(scans) if scan.against_trust] if len(scans) > 1 else [],
        prose=True,
    )


def _interval(interval: tuple[float, float] | None) -> str:
    return NONE if interval is None else f"{_chance(interval[0])} to {_chance(interval[1])}"


def _more(scans: Sequence[ShownScan]) -> list[Block]:
    n = len(scans) - MOST_SHOWN
    return [Paragraph(f"Pictures of the first {MOST_SHOWN} scans follow; {n} more are in the table.")] if n > 0 else []


def _refused(refused: Sequence[tuple[str, str]]) -> list[Block]:
    rows = [list(entry) for entry in refused]
    return [Table("Not predicted", ["scan", "why"], rows)] if rows else []


def _of_gate(gate: Gate | None) -> list[Block]:
    return [Paragraph(gate.sentence)] if gate else []


def _section(number: int, scan: ShownScan, synthetic: bool) -> Section:
    blocks: list[Block] = [_picture(number, scan, "synthetic phantom" if synthetic else "")]
    blocks += [_sentences("Against trusting it", scan.against_trust), _sentences("About the files", scan.remarks)]
    if scan.crop_window:
        x0, x1, y0, y1 = scan.crop_window
        blocks.append(
            Paragraph(f"Cut out of the whole image from {x0} to {x1} mm along x and {y0} to {y1} mm along y.")
        )
    if scan.occlusion is not None:
        blocks += [Paragraph(OCCLUSION), _parts_table(scan, scan.occlusion)]
    return Section(scan.name, [block for block in blocks if not isinstance(block, Paragraph) or block.text])


def _sentences(title: str, texts: Sequence[str]) -> Paragraph:
    return Paragraph(f"{title}: {'; '.join(texts)}." if texts else "")


def _parts_table(scan: ShownScan, found: Occlusion) -> Table:
    """Return the parts whose blanking changes most, for those who do not see the colours."""
    order = np.argsort(-np.abs(found.change), axis=None, kind="stable")[:MOST_PARTS]
    rows = []
    for index in order:
        column, row = (int(place) for place in np.unravel_index(index, found.change.shape))
        change = float(found.change[column, row])
        spans = [f"{edges[at]} to {edges[at + 1]} mm" for edges, at in ((found.edges_x, column), (found.edges_y, row))]
        rows.append(
            [*spans, f"{change:+.3f}".replace("-", "−"), _chance(float(np.clip(scan.probability + change, 0, 1)))]
        )
    header = ["along x", "along y", "change", "probability without it"]
    return Table("The parts whose blanking changes most", header, rows)


# ---- the picture of one scan


def _picture(number: int, scan: ShownScan, label: str) -> Picture:
    """Draw the probability on a bar above the mid slices, and the occlusion on the one at ED."""
    n_panels = 0 if scan.mid_slices is None else 2 + (scan.occlusion is not None)
    height = BAR_HEIGHT + (0.3 + PICTURE_WIDTH / max(3, n_panels) if n_panels else 0.0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(PICTURE_WIDTH, height), layout="constrained")
        if scan.mid_slices is None:
            _bar(figure.subplots(), scan)
        else:
            parts: Any = figure.subfigures(2, 1, height_ratios=[BAR_HEIGHT, height - BAR_HEIGHT])
            _bar(parts[0].subplots(), scan)
            _slices(parts[1], scan, scan.mid_slices, n_panels)
        return png(figure, f"scan-{number}.png", _alt(scan, n_panels), _caption(n_panels), label)


def _alt(scan: ShownScan, n_panels: int) -> str:
    slices = "; below it, the middle slice at ED and ES" if n_panels else ""
    parts = ", and what blanking each part changes" if n_panels == 3 else ""
    return (
        f"A bar from 0 to 1 with the probability of disease at {_chance(scan.probability)} and the threshold at "
        f"{_chance(scan.threshold)}{slices}{parts}."
    )


def _caption(n_panels: int) -> str:
    parts = ["Probability of disease and the site's threshold (dashed)."]
    if n_panels:
        parts.append("Middle slice as the model reads it.")
    if n_panels == 3:
        parts.append(
            "Orange: blanking this part lowers the probability; purple: it raises it; the number is the scale."
        )
    return " ".join([*parts, NOT_FOR_DIAGNOSIS])


def _bar(axes: Axes, scan: ShownScan) -> None:
    axes.barh([0], [1], color="#E8EBEF", height=0.55)
    is_disease = scan.probability >= scan.threshold
    axes.barh([0], [scan.probability], color="#D55E00" if is_disease else "#0072B2", height=0.55)
    axes.axvline(scan.threshold, color="#111111", linewidth=1.4, linestyle="dashed")
    if scan.interval:
        axes.plot(scan.interval, (0, 0), color="#111111", linewidth=1.4, marker="|")
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5), yticks=[], xlabel="probability of disease")
    axes.set_title(f"{_chance(scan.probability)}: {scan.decision}", fontsize=9.5)
    axes.grid(visible=False)


def _slices(figure: SubFigure, scan: ShownScan, slices: npt.NDArray[np.uint8], n_panels: int) -> None:
    panels: Any = figure.subplots(1, n_panels, squeeze=False)[0]
    for axes, title, image in zip(panels, ("ED", "ES", "blanked parts"), (*slices, slices[0]), strict=False):
        axes.imshow(image.T, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
        if scan.box:
            x0, x1, y0, y1 = scan.box
            frame = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor="#F0E442", linewidth=1)
            axes.add_patch(frame)
    if scan.occlusion is not None:
        _overlay(panels[2], scan.occlusion)


def _overlay(axes: Axes, found: Occlusion) -> None:
    scale = max(LEAST_SCALE, float(np.abs(found.change).max()))
    edges_x, edges_y = (np.array(edges) - 0.5 for edges in (found.edges_x, found.edges_y))
    colours = mpl.colormaps["PuOr"]
    mesh = axes.pcolormesh(
        edges_x, edges_y, found.change.T, cmap=colours, vmin=-scale, vmax=scale, alpha=0.55, linewidth=0
    )
    mesh.set_rasterized(True)
    axes.set_title(f"blanked parts (±{scale:.2f})", fontsize=8)
