"""The figures of ``benchmarks/scale.py`` as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from med_duallora.report.plots import COLOURS, DASHES, MARKERS, STYLE

MIB = 2**20
PANELS = (
    ("accept_ms", "Processor time per contribution, ms"),
    ("aggregate_s", "Processor time of an aggregation, s"),
)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw memory by contribution, and both times by number of sites.

    Args:
        rows: as ``benchmarks.scale.measured`` returns them.
        path: of the picture; its suffix says which kind.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": "scale"}):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        memory, *times = figure.subplots(1, 1 + len(PANELS))
        rules = list(dict.fromkeys(row["rule"] for row in rows))
        styles = {
            rule: {"color": colour, "linestyle": dashes, "label": rule}
            for rule, colour, dashes in zip(rules, COLOURS, DASHES, strict=False)
        }
        _memory(memory, rows, styles)
        for axes, (key, title) in zip(times, PANELS, strict=True):
            for rule, marker in zip(rules, MARKERS, strict=False):
                of_rule = [row for row in rows if row["rule"] == rule]
                axes.plot(
                    [row["n_sites"] for row in of_rule], [row[key] for row in of_rule], marker=marker, **styles[rule]
                )
            axes.set_title(title)
            axes.set_xlabel("sites")
            axes.set_ylim(bottom=0)
        memory.legend()
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _memory(axes: Axes, rows: Sequence[Mapping[str, Any]], styles: Mapping[str, Mapping[str, Any]]) -> None:
    most = max(row["n_sites"] for row in rows)
    for row in rows:
        if row["n_sites"] == most:
            noted = [value / MIB for one in row["rounds"] for value in one["memory"]]
            axes.plot(range(1, len(noted) + 1), noted, **styles[row["rule"]])
    axes.set_title(f"Memory of the server, MiB, {most} sites")
    axes.set_xlabel("contributions, all rounds")
    axes.set_ylim(bottom=0)
