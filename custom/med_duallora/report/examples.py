"""A few test subjects of each site, as the model sees them and with what it says of them.

Only of a simulation on this machine, where the sites' cohorts and predictions are at hand. A server's report never has
any: neither images nor predictions leave a site.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from med_duallora.cohorts.nifti import read_nifti
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.errors import MedDualLoRAError
from med_duallora.report.document import Picture
from med_duallora.report.finished import Example, Run, SitePredictions
from med_duallora.report.plots import MOST_LETTERS, STYLE, WIDTH, png
from med_duallora.server.rundir import SITE_CONFIGS
from med_duallora.site.scores import THRESHOLD
from med_duallora.support.files import read_object

KINDS: dict[str, Callable[[int, float], bool]] = {
    "disease, found": lambda label, chance: label == 1 and chance >= THRESHOLD,
    "normal, recognised": lambda label, chance: label == 0 and chance < THRESHOLD,
    "disease, missed": lambda label, chance: label == 1 and chance < THRESHOLD,
    "normal, false alarm": lambda label, chance: label == 0 and chance >= THRESHOLD,
}
"""What becomes of a subject -> whether it is that; of each kind the one that the model is surest of is shown."""
SHOWN_MM = 120
"""Of a slice, about its centre, where the heart is."""
PICTURE_WIDTH, ROW_HEIGHT, HEAD_HEIGHT = 1.4 * WIDTH, 1.05, 0.35
"""Inches."""


def read_examples(workspace: Path, predictions: Mapping[str, SitePredictions]) -> dict[str, tuple[Example, ...]]:
    """Return examples by site; a site whose cohort is no longer there or is another one now has none."""
    found = {}
    for site, kept in predictions.items():
        try:
            place = read_object(workspace / SITE_CONFIGS / f"{site}.json")["data_dir"]
            cohort = PreparedCohort.read(Path(place))
            found[site] = tuple(_examples({item.subject: item for item in cohort.subjects}, kept))
        except (MedDualLoRAError, OSError, ValueError, KeyError, TypeError):
            continue
    return {site: examples for site, examples in found.items() if examples}


def _examples(subjects: Mapping[str, PreparedSubject], kept: SitePredictions) -> list[Example]:
    rows = list(zip(kept.subjects, kept.labels, kept.chances, strict=False))
    chosen = []
    for is_kind in KINDS.values():
        of_kind = [row for row in rows if is_kind(*row[1:]) and row[0] in subjects]
        if of_kind:
            name, label, chance = max(of_kind, key=lambda row: abs(row[2] - THRESHOLD))
            chosen.append(Example(label, chance, _mid_slices(subjects[name])))
    return chosen


def _mid_slices(subject: PreparedSubject) -> npt.NDArray[np.uint8]:
    volumes = [read_nifti(path).data for path in (subject.ed_path, subject.es_path)]
    return np.stack([volume[..., volume.shape[2] // 2] for volume in volumes]).astype(np.uint8)


def examples_picture(run: Run) -> Picture:
    """Draw a row per site and a column per kind, ED and ES side by side."""
    label = "synthetic phantoms" if run.origin and run.origin.phantoms == "all" else ""
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        height = HEAD_HEIGHT + ROW_HEIGHT * len(run.examples)
        figure = Figure(figsize=(PICTURE_WIDTH, height), layout="constrained")
        panels = figure.subplots(len(run.examples), len(KINDS), squeeze=False)
        for axes, kind in zip(panels[0], KINDS, strict=True):
            axes.set_title(kind, fontsize=8, loc="center")
        for row, (site, examples) in zip(panels, run.examples.items(), strict=True):
            _row(row, site, examples)
        return png(
            figure,
            "examples.png",
            "Middle slices at end-diastole and end-systole of test subjects of every site, with the probability of "
            f"disease that the model gives: {', '.join(KINDS)}.",
            "Middle slice at ED (left) and ES (right), probability of disease with both adapters; of each kind the "
            "test subject that the model is surest of. Not a sample: most subjects are less clear.",
            label,
        )


def _row(panels: Sequence[Axes], site: str, examples: Sequence[Example]) -> None:
    by_kind = {kind: item for kind, test in KINDS.items() for item in examples if test(item.label, item.chance)}
    for axes, kind in zip(panels, KINDS, strict=True):
        axes.set(xticks=[], yticks=[])
        for side in axes.spines.values():
            side.set_visible(False)
        if kind in by_kind:
            item = by_kind[kind]
            axes.imshow(_side_by_side(item.slices), cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(f"p = {item.chance:.2f}", fontsize=8, labelpad=1)
        else:
            axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, fontsize=8)
    panels[0].set_ylabel(site[:MOST_LETTERS], fontsize=8)


def _side_by_side(slices: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the middle of both slices, upright, with a white line between them."""
    parts = []
    for image in slices:
        x, y = ((size - min(size, SHOWN_MM)) // 2 for size in image.shape)
        parts.append(image[x : x + SHOWN_MM, y : y + SHOWN_MM].T)
    line = np.full((parts[0].shape[0], 2), 255, np.uint8)
    return np.concatenate([parts[0], line, parts[1]], axis=1)
