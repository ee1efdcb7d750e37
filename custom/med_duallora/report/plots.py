"""The curves of a report as PNG files: colours that survive colour blindness, markers and dashes that survive print."""

import io
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from med_duallora.measures import MEASURES, VARIANTS, Curve, Measure
from med_duallora.report.document import Picture
from med_duallora.report.finished import Evaluation, Run, SiteRound
from med_duallora.report.summary import by_site, macro, macro_interval, site_intervals
from med_duallora.report.tables import training_seconds, variants

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#8A6D00", "#3A3A3A")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)))
VARIANT_STYLES: tuple[dict[str, Any], ...] = (
    {"marker": "x", "color": "#5A5A5A"},
    {"marker": "D", "color": "#AA4499"},
    {"marker": "s", "color": "#0072B2"},
    {"marker": "^", "color": "#D55E00"},
    {"marker": "o", "color": "#111111"},
    {"marker": "*", "color": "#009E73"},
)
"""In the order of ``VARIANTS``."""
WIDTH = 4.6
"""Inches, of 100 CSS pixels each: a picture that is drawn for a narrow page needs no magnifying glass on any."""
MOST_LETTERS = 16
"""Of a site's name in a plot; the tables have the whole."""
LABEL_INCHES = 0.18
"""Height of the line that says that the subjects are phantoms."""
DPI = 200
STYLE = {
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
    """Return the report's plots by name: variants, the curves of the measures that have one, residual, time."""
    label = "synthetic phantoms" if run.origin and run.origin.phantoms == "all" else ""
    with mpl.rc_context(STYLE):
        return {
            "variants": _variants(run, label),
            **{curve.picture: _measure(run, measure, curve, label) for measure, curve in curves()},
            "residual": _residual(run, label),
            "time": _time(run, label),
        }


def curves() -> list[tuple[Measure, Curve]]:
    """Return the measures that are drawn over the rounds, in the order of the table."""
    return [(measure, measure.curve) for measure in MEASURES.values() if measure.curve]


def site_styles(run: Run) -> dict[str, dict[str, Any]]:
    """Return colour, marker and dashes by site; a site looks the same in every plot."""
    return {
        site: {
            "color": colour,
            "marker": marker,
            "linestyle": DASHES[(number + 2 * (number // len(COLOURS))) % len(DASHES)],
        }
        for number, (site, (colour, marker)) in enumerate(zip(run.sites, looks(), strict=False))
    }


def looks() -> Iterator[tuple[str, str]]:
    """Return pairs of a colour and a marker, none of them twice until every one was there.

    Neighbours share neither: where the colours begin anew, the markers are one further.
    """
    pairs = [
        (colour, MARKERS[(place + turn) % len(MARKERS)])
        for turn in range(len(MARKERS))
        for place, colour in enumerate(COLOURS)
    ]
    return itertools.cycle(pairs)


def _variants(run: Run, label: str) -> Picture:
    """Balanced accuracy of every variant with its 95 % interval: one line per site and one for the mean over sites."""
    evaluation = run.evaluation
    styles = dict(zip(VARIANTS, itertools.cycle(VARIANT_STYLES), strict=False))
    rows, shown = [*evaluation.sites, "mean"], variants(evaluation)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.17 * (len(shown) + 1) * len(rows)), layout="constrained")
    axes = figure.subplots()
    for offset, variant in enumerate(shown):
        shift = (offset - (len(shown) - 1) / 2) / (len(shown) + 1)  # as far apart as variants are, sites are twice
        points = [(rows.index(name) + shift, value, interval) for name, value, interval in _scores(evaluation, variant)]
        style = styles[variant]
        for y, _, interval in points:
            if interval:
                axes.plot(interval, (y, y), color=style["color"], linewidth=1.1, alpha=0.75, zorder=2)
        xs, ys = [value for _, value, _ in points], [y for y, _, _ in points]
        axes.plot(xs, ys, linestyle="none", markersize=5.5, zorder=3, label=VARIANTS[variant].heading, **style)
    axes.axvline(0.5, color="#777777", linewidth=1, linestyle="dashed", zorder=1)
    axes.axhline(len(rows) - 1.5, color="#555555", linewidth=0.8)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(rows) - 0.5, -0.5), xlabel="test balanced accuracy (dashed: chance)")
    axes.set_yticks(range(len(rows)), [_short(name) for name in rows])
    axes.grid(visible=False, axis="y")
    if shown:  # no site may have let its scores leave
        figure.legend(loc="outside upper center", ncols=2, columnspacing=1.4, handletextpad=0.3)
    return png(
        figure,
        "variants.png",
        "Test balanced accuracy of each variant at each site and on average; the table below has the numbers.",
        "Test balanced accuracy by site and variant, with 95 % intervals: how far it could lie off with so few "
        "subjects. All variants are scored on the same subjects, so overlapping intervals do not mean that they are "
        "alike.",
        label,
    )


def _scores(evaluation: Evaluation, variant: str) -> list[tuple[str, float, tuple[float, float] | None]]:
    """Return name, balanced accuracy and interval of every site that has one, then of the mean over sites."""
    intervals = site_intervals(evaluation, variant)
    found = by_site(evaluation, variant, "balanced_accuracy")
    rows = [(site, value, intervals.get(site)) for site, value in found.items()]
    mean = macro(evaluation, variant, "balanced_accuracy")
    return rows if mean is None else [*rows, ("mean", mean, macro_interval(evaluation, variant))]


def _short(name: str) -> str:
    return name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…"


def _measure(run: Run, measure: Measure, curve: Curve, label: str) -> Picture:
    """Draw one measure over the rounds, one line per site."""
    figure, axes = _axes(measure.heading)
    _lines(axes, run, lambda part: part.metrics.get(measure.name))
    if curve.chance is not None:
        axes.axhline(curve.chance, color="#777777", linewidth=1, linestyle="dashed")
    margin = 0.03 * (measure.highest - measure.lowest)
    is_share = measure.highest <= 1
    axes.set_ylim(*((measure.lowest - margin, measure.highest + margin) if is_share else (measure.lowest, None)))
    _site_legend(figure, axes)
    alt = f"Line plot over the rounds: {measure.heading} by site."
    return png(figure, f"{curve.picture}.png", alt, curve.caption, label)


def _residual(run: Run, label: str) -> Picture:
    figure, axes = _axes(MEASURES["residual"].heading)
    known = [(item.number, item.residual) for item in run.rounds if item.residual is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], color="#3A3A3A", marker="o")
    axes.set_ylim(0, None)
    alt = "Line plot over the rounds: aggregation residual."
    caption = "What averaging the factors A and B loses against averaging the products BA, relative."
    return png(figure, "residual.png", alt, caption, label)


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel="round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _site_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    shown = [_short(text) for text in labels]
    n_columns = 4 if max(map(len, shown), default=0) <= 8 else 2
    n_rows = -(-len(shown) // n_columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, n_rows - 1))  # the legend takes nothing from the lines
    figure.legend(handles, shown, loc="outside lower center", ncols=n_columns, columnspacing=1.2)


def _lines(axes: Axes, run: Run, value: Callable[[SiteRound], float | None]) -> None:
    for site, style in site_styles(run).items():
        points = [(item.number, value(item.sites[site])) for item in run.rounds if site in item.sites]
        known = [(x, y) for x, y in points if y is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], label=site, **style)


def _time(run: Run, label: str) -> Picture:
    """Seconds of every round, stacked: the slowest site's computing and everything else."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = figure.subplots()
    numbers = [item.number for item in run.rounds]
    training = [training_seconds(item) for item in run.rounds]
    rest = [item.seconds - part for item, part in zip(run.rounds, training, strict=True)]
    other: dict[str, Any] = {"color": "#F2C572", "edgecolor": "#6B4A00", "hatch": "///", "linewidth": 0.6}
    axes.bar(numbers, training, color="#0072B2", label="computing (slowest site)", width=0.75)
    axes.bar(numbers, rest, bottom=training, label="everything else", width=0.75, **other)
    axes.set(title="seconds per round", xlabel="round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    alt = "Stacked bars: seconds of each round, computing and everything else."
    return png(figure, "time.png", alt, "Where the time goes.", label)


def png(figure: Figure, name: str, alt: str, caption: str, label: str) -> Picture:
    """Return a finished figure as a picture, with a label below everything else where there is one."""
    if label:
        # a band of its own below everything else, so that it never lies on an axis label or a legend
        band = LABEL_INCHES / figure.get_figheight()
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.set(rect=(0, band, 1, 1 - band))  # type: ignore[call-arg]
        figure.text(0.995, 0.005, label, ha="right", va="bottom", fontsize=7.5, color="#8A1C1C")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(name, buffer.getvalue(), alt, caption, width=round(100 * figure.get_figwidth()))
