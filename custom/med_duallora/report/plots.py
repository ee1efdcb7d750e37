"""The curves of a report as PNG files: colours that survive colour blindness, markers and dashes that survive print."""

import io
import itertools
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from med_duallora.report.collect import Run, SiteRound
from med_duallora.report.document import Picture
from med_duallora.report.summary import by_site, macro
from med_duallora.report.tables import VARIANT_LABELS, training_seconds, variants

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#8A6D00", "#3A3A3A")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)))
VARIANT_STYLE: dict[str, dict[str, Any]] = {
    "backbone": {"marker": "x", "color": "#5A5A5A"},
    "global": {"marker": "s", "color": "#0072B2"},
    "local": {"marker": "^", "color": "#D55E00"},
    "both": {"marker": "o", "color": "#111111"},
}
DPI = 200
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#E2E4E8",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
}


def pictures(run: Run) -> dict[str, Picture]:
    """Return the report's plots by name: variants, curves, time."""
    label = "synthetic phantoms" if run.synthetic else ""
    with mpl.rc_context(_STYLE):
        return {
            "variants": _variants(run, label),
            "curves": _curves(run, label),
            "time": _time(run, label),
        }


def site_styles(run: Run) -> dict[str, dict[str, Any]]:
    """Return colour, marker and dashes by site; a site looks the same in every plot."""
    styles = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), itertools.cycle(DASHES))
    return {
        site: {"color": colour, "marker": marker, "linestyle": dashes}
        for site, (colour, marker, dashes) in zip(run.sites, styles, strict=False)
    }


def _variants(run: Run, label: str) -> Picture:
    """Balanced accuracy of every variant: one line per site and one for the mean over sites."""
    rows = [*run.evaluation.sites, "macro"]
    figure = Figure(figsize=(8.2, 1.2 + 0.44 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shown = variants(run.evaluation)
    for offset, variant in enumerate(shown):
        found = by_site(run.evaluation, variant, "balanced_accuracy")
        mean = macro(run.evaluation, variant, "balanced_accuracy")
        points = [(found[site], y) for y, site in enumerate(run.evaluation.sites) if site in found]
        points += [] if mean is None else [(mean, len(rows) - 1)]
        shift = 0.14 * (offset - (len(shown) - 1) / 2)
        xs, ys = [x for x, _ in points], [y + shift for _, y in points]
        axes.plot(
            xs, ys, linestyle="none", markersize=6.5, zorder=3, label=VARIANT_LABELS[variant], **VARIANT_STYLE[variant]
        )
    axes.axvline(0.5, color="#777777", linewidth=1, linestyle="dashed", zorder=1)
    axes.axhline(len(rows) - 1.5, color="#555555", linewidth=0.8)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(rows) - 0.5, -0.5), xlabel="test balanced accuracy (dashed: chance)")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=len(shown), columnspacing=1.4, handletextpad=0.3)
    return _picture(
        figure,
        "variants.png",
        "Test balanced accuracy of each variant at each site and on average; the table below has the numbers.",
        "Balanced accuracy by site and variant on the test subjects.",
        label,
    )


def _curves(run: Run, label: str) -> Picture:
    """Training loss, validation balanced accuracy and aggregation residual over the rounds."""
    figure = Figure(figsize=(10.0, 3.3), layout="constrained")
    loss, accuracy, residual = figure.subplots(1, 3)
    _lines(loss, run, lambda part: part.metrics.get("train_loss"))
    _lines(accuracy, run, lambda part: part.metrics.get("val_balanced_accuracy"))
    accuracy.axhline(0.5, color="#777777", linewidth=1, linestyle="dashed")
    known = [(item.number, item.residual) for item in run.rounds if item.residual is not None]
    residual.plot([x for x, _ in known], [y for _, y in known], color="#3A3A3A", marker="o")
    loss.set(title="training loss", ylim=(0, None))
    accuracy.set(title="validation balanced accuracy", ylim=(-0.03, 1.03))
    residual.set(title="aggregation residual", ylim=(0, None))
    for axes in (loss, accuracy, residual):
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = loss.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, len(labels)))
    return _picture(
        figure,
        "curves.png",
        "Line plots over the rounds: training loss and validation balanced accuracy by site, and aggregation residual.",
        "Left: mean training loss of a round. Middle: the incoming global adapter with the site's own local adapter, "
        "scored before the round's training (dashed: chance). Right: what averaging the factors A and B loses against "
        "averaging the products BA, relative.",
        label,
    )


def _lines(axes: Axes, run: Run, value: Callable[[SiteRound], float | None]) -> None:
    for site, style in site_styles(run).items():
        points = [(item.number, value(item.sites[site])) for item in run.rounds if site in item.sites]
        known = [(x, y) for x, y in points if y is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], label=site, **style)


def _time(run: Run, label: str) -> Picture:
    """Seconds of every round, stacked: the slowest site's training and everything else."""
    figure = Figure(figsize=(8.2, 2.6), layout="constrained")
    axes = figure.subplots()
    numbers = [item.number for item in run.rounds]
    training = [training_seconds(item) for item in run.rounds]
    rest = [item.seconds - part for item, part in zip(run.rounds, training, strict=True)]
    other: dict[str, Any] = {"color": "#F2C572", "edgecolor": "#6B4A00", "hatch": "///", "linewidth": 0.6}
    axes.bar(numbers, training, color="#0072B2", label="training (slowest site)", width=0.75)
    axes.bar(numbers, rest, bottom=training, label="everything else", width=0.75, **other)
    axes.set(title="seconds per round", xlabel="round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside upper center", ncols=2)
    alt = "Stacked bars: seconds of each round, training and everything else."
    return _picture(figure, "time.png", alt, "Where the time goes.", label)


def _picture(figure: Figure, name: str, alt: str, caption: str, label: str) -> Picture:
    if label:
        figure.text(0.995, 0.005, label, ha="right", va="bottom", fontsize=7.5, color="#8A1C1C")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(name, buffer.getvalue(), alt, caption, width=round(100 * figure.get_figwidth()))
