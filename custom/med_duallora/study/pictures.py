"""The plots of a study's page, in the style of the report's."""

import math

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from med_duallora.report.document import Picture
from med_duallora.report.plots import COLOURS, MARKERS, STYLE, WIDTH, looks, png
from med_duallora.study.arms import NEW_SITE, REFERENCE
from med_duallora.study.comparison import Comparison
from med_duallora.study.statistics import MACRO, Estimate
from med_duallora.study.ways import SHOTS, shot_name

CHANCE = 0.5
STYLES = list(zip(COLOURS, MARKERS, strict=False))
SHIFT = 0.12
"""Of the two curves to both sides of their place, so that neither interval hides the other."""


def pictures(found: Comparison, prefix: str, label: str) -> list[Picture]:
    """Return the plots of a comparison: method by site; accuracy against bytes and what few labels give, where known.

    Args:
        found: what is drawn.
        prefix: of the files' names.
        label: stands on every plot, where it is not empty.
    """
    with mpl.rc_context(STYLE):
        drawn = [_by_site(found, f"{prefix}-sites.png", label)]
        if any(found.payload_bytes[arm] for arm in found.scored):
            drawn.append(_by_bytes(found, f"{prefix}-bytes.png", label))
        if NEW_SITE in found.runs:
            drawn.append(_by_shots(found, f"{prefix}-shots.png", label))
        return drawn


def _by_site(found: Comparison, name: str, label: str) -> Picture:
    """Balanced accuracy of every method: a mark per site, and the mean over sites with its interval."""
    arms = list(found.scored)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(arms)), layout="constrained")
    axes = figure.subplots()
    marks = dict(zip(found.sites, looks(), strict=False))
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
    for (arm, scored), (colour, mark) in zip(sending.items(), looks(), strict=False):
        mean, x = scored.estimate(MACRO), found.payload_bytes[arm] / 1024
        axes.plot((x, x), _limits(mean), color=colour, linewidth=1.1, alpha=0.7)
        size = 7.5 if arm == REFERENCE else 5
        axes.plot([x], [mean.value], linestyle="none", marker=mark, color=colour, label=arm, markersize=size)
    axes.axhline(CHANCE, color="#777777", linewidth=1, linestyle="dashed")
    axes.set(xlabel="KiB that a site sends in a round", ylabel="macro balanced accuracy")
    sizes = [found.payload_bytes[arm] for arm in sending]
    if max(sizes) > 10 * min(sizes):
        axes.set_xscale("log")  # whole weights beside low rank: all others would be one column
        axes.set_xlabel("KiB that a site sends in a round (logarithmic)")
        axes.xaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.set_xlim(0, None)
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.1, handletextpad=0.2)
    caption = "What is sent, as FLARE serialises it, and what comes of it (95 % intervals; dashed: chance)."
    return png(figure, name, "Balanced accuracy of each method against the bytes that it sends.", caption, label)


def _by_shots(found: Comparison, name: str, label: str) -> Picture:
    """Balanced accuracy at a site that joins later against its labelled subjects, with the adapter and without."""
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    known = found.variants(NEW_SITE)
    for frozen, said, colour, mark in ((False, "global adapter", *STYLES[0]), (True, "frozen backbone", *STYLES[1])):
        names = {k: shot_name(k, frozen) for k in (0, *SHOTS)}
        scored = {k: found.of(NEW_SITE, name).estimate(MACRO) for k, name in names.items() if name in known}
        xs = [k + (SHIFT if frozen else -SHIFT) for k in scored]
        axes.plot(xs, [one.value for one in scored.values()], color=colour, marker=mark, label=said, linewidth=1.1)
        for x, one in zip(xs, scored.values(), strict=True):
            axes.plot((x, x), _limits(one), color=colour, linewidth=1.1, alpha=0.7)
    axes.axhline(CHANCE, color="#777777", linewidth=1, linestyle="dashed")
    axes.set(xlabel="labelled subjects of the site that joins later", ylabel="balanced accuracy there")
    axes.set_xticks((0, *SHOTS))
    figure.legend(loc="outside upper center", ncols=2)
    caption = "A site that took no part, mean over the sites left out (95 % intervals; dashed: chance)."
    return png(figure, name, "Balanced accuracy at a new site against its labelled subjects.", caption, label)


def _limits(found: Estimate) -> tuple[float, float]:
    known = math.isfinite(found.low)
    return (found.low, found.high) if known else (found.value, found.value)
