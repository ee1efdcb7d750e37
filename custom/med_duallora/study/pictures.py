"""The plots of a study's page, in the style of the report's."""

import itertools
import math

import matplotlib as mpl
from matplotlib.figure import Figure

from med_duallora.report.document import Picture
from med_duallora.report.plots import COLOURS, MARKERS, STYLE, WIDTH, png
from med_duallora.study.arms import REFERENCE
from med_duallora.study.comparison import Comparison
from med_duallora.study.statistics import MACRO, Estimate

CHANCE = 0.5


def pictures(found: Comparison, prefix: str, label: str) -> list[Picture]:
    """Return the plots of a comparison: method by site, and accuracy against bytes where something is sent.

    Args:
        found: what is drawn.
        prefix: of the files' names.
        label: stands on every plot, where it is not empty.
    """
    with mpl.rc_context(STYLE):
        drawn = [_by_site(found, f"{prefix}-sites.png", label)]
        if any(found.payload_bytes[arm] for arm in found.scored):
            drawn.append(_by_bytes(found, f"{prefix}-bytes.png", label))
        return drawn


def _by_site(found: Comparison, name: str, label: str) -> Picture:
    """Balanced accuracy of every method: a mark per site, and the mean over sites with its interval."""
    arms = list(found.scored)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(arms)), layout="constrained")
    axes = figure.subplots()
    marks = dict(zip(found.sites, zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS)), strict=False))
    for site, (colour, mark) in marks.items():
        points = [(arm.estimate(site).value, row) for row, arm in enumerate(found.scored.values()) if site in arm.sites]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        axes.plot(xs, ys, linestyle="none", marker=mark, color=colour, alpha=0.6, label=site, markersize=4)
    for row, arm in enumerate(found.scored.values()):
        mean = arm.estimate(MACRO)
        axes.plot(_limits(mean), (row, row), color="#111111", linewidth=1.6, zorder=3)
        axes.plot([mean.value], [row], marker="|", color="#111111", markersize=11, markeredgewidth=2, zorder=4)
    axes.axvline(CHANCE, color="#777777", linewidth=1, linestyle="dashed", zorder=1)
    axes.set(ylim=(len(arms) - 0.5, -0.5), xlabel="test balanced accuracy (dashed: chance)")
    axes.set_yticks(range(len(arms)), arms)
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=4, columnspacing=1.1, handletextpad=0.2)
    caption = "Mean over splits: a mark per site; the bar is the mean over sites with its 95 % interval."
    return png(figure, name, "Test balanced accuracy of each method by site and on average.", caption, label)


def _by_bytes(found: Comparison, name: str, label: str) -> Picture:
    """Macro balanced accuracy of every method that sends something against what a site sends in a round."""
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.subplots()
    sending = {arm: scored for arm, scored in found.scored.items() if found.payload_bytes[arm]}
    styles = zip(sending.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False)
    for (arm, scored), colour, mark in styles:
        mean, x = scored.estimate(MACRO), found.payload_bytes[arm] / 1024
        axes.plot((x, x), _limits(mean), color=colour, linewidth=1.1, alpha=0.7)
        size = 7.5 if arm == REFERENCE else 5
        axes.plot([x], [mean.value], linestyle="none", marker=mark, color=colour, label=arm, markersize=size)
    axes.axhline(CHANCE, color="#777777", linewidth=1, linestyle="dashed")
    axes.set(xlabel="KiB that a site sends in a round", ylabel="macro balanced accuracy")
    axes.set_xlim(0, None)
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.1, handletextpad=0.2)
    caption = "What is sent, as FLARE serialises it, and what comes of it (95 % intervals; dashed: chance)."
    return png(figure, name, "Balanced accuracy of each method against the bytes that it sends.", caption, label)


def _limits(found: Estimate) -> tuple[float, float]:
    known = math.isfinite(found.low)
    return (found.low, found.high) if known else (found.value, found.value)
