"""The page of a run at its site: how far the model's probabilities can be taken at their word, and is it released."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from med_duallora.inference.gate import Reached
from med_duallora.measures import SCORES
from med_duallora.report.document import Block, Document, KeyNumber, Paragraph, Picture, Section, Table
from med_duallora.report.plots import STYLE, WIDTH, png
from med_duallora.report.site_run import SiteRun
from med_duallora.report.tables import NONE, between, number, share
from med_duallora.site.calibration import Bin, Values, brier, calibration_error, counted, reliability
from med_duallora.site.scores import THRESHOLD
from med_duallora.support.proportions import Counts, balanced_interval

NOT_FOR_DIAGNOSIS = "Research use, not for diagnosis."
PATIENTS = "This page is about this site's subjects: it must not leave the site."
PHANTOMS = "Synthetic phantoms."
CHOSEN = "The threshold was chosen on the site's validation subjects, never on these."
AT_HALF = "The scores that leave the site, and that the server's report shows, are those at 0.5."
AS_GIVEN, AFTER = "as the model gives them", "after calibration"
FEW = 20
"""Test subjects below which a reliability curve is drawn with a warning."""


def build(found: SiteRun) -> Document:
    """Return the page of a site's run."""
    kept = found.kept
    return Document(
        title=f"The model of {kept.site} in the experiment {kept.experiment}",
        banner=f"{PHANTOMS if kept.phantoms else PATIENTS} {NOT_FOR_DIAGNOSIS}",
        headline=found.gate.sentence,
        key_numbers=_key_numbers(found),
        sections=[
            *([Section("Which model the site uses", [Paragraph(kept.chosen.why)])] if kept.chosen.why else []),
            Section("Release gate", _gate_blocks(found)),
            Section("At the site's threshold", [_confusion_table(found), Paragraph(_about_threshold(found))]),
            Section("Can a probability be taken at its word?", _reliability_blocks(found)),
            Section("What was fitted", [_fitted_table(found), *map(Paragraph, kept.calibration.remarks)]),
        ],
    )


def _key_numbers(found: SiteRun) -> list[KeyNumber]:
    calibration, counts = found.kept.calibration, found.kept.test.counts
    at = f"balanced accuracy on {len(found.labels)} test subjects at the site's threshold"
    return [
        KeyNumber("passed" if found.gate.passed else "not passed", "release gate"),
        KeyNumber(number(counts.balanced_accuracy), f"{at}{_in_brackets(balanced_interval(counts))}"),
        KeyNumber(_brier(found, found.kept.calibration.calibrated(found.chances)), "Brier score after calibration"),
        KeyNumber(f"{calibration.threshold:.3f}", "threshold of the model's probability of disease"),
    ]


def _in_brackets(interval: tuple[float, float] | None) -> str:
    return f" (95 % {between(interval)})" if interval else ""


def _gate_blocks(found: SiteRun) -> list[Block]:
    gate = found.gate
    rows = [[SCORES[item.score].heading, *_reached(item)] for item in gate.reached]
    table = Table(
        caption="Test subjects at the site's threshold, beside the floors",
        header=["score", "reached", "95 % interval", "floor", "gate"],
        rows=rows,
        note="The point is held against the floor; the interval says how far it could lie off with so few subjects.",
        strong_rows=[index for index, item in enumerate(gate.reached) if not item.passed],
    )
    where = "Floors are set in the site's configuration: release.min_sensitivity, release.min_specificity and "
    return [Paragraph(gate.sentence), *([table] if rows else []), Paragraph(f"{where}release.min_balanced_accuracy.")]


def _reached(item: Reached) -> list[str]:
    return [
        number(item.value),
        between(item.interval) or NONE,
        f"{item.floor:g}",
        "passed" if item.passed else "failed",
    ]


def _confusion_table(found: SiteRun) -> Table:
    """Return what became of normal and diseased test subjects, at the site's threshold and at 0.5."""
    threshold = found.kept.calibration.threshold
    at = {
        f"{threshold:.3f} (this site's)": found.kept.test.counts,
        f"{THRESHOLD:g} (of the scores that leave)": counted(found.labels, found.chances, THRESHOLD),
    }
    return Table(
        caption="Test subjects by truth and by what the model calls them",
        header=[
            *("threshold", "NOR called NOR", "NOR called disease", "disease called disease", "disease called NOR"),
            *("specificity", "sensitivity"),
        ],
        rows=[[name, *_confusion(counts)] for name, counts in at.items()],
        note="In brackets, 95 % intervals by Wilson's method.",
        strong_rows=[0],
    )


def _confusion(counts: Counts) -> list[str]:
    cells = [counts.rejections, counts.n_negative - counts.rejections, counts.hits, counts.n_positive - counts.hits]
    shares = [share(counts.rejections, counts.n_negative), share(counts.hits, counts.n_positive)]
    return [*map(str, cells), *shares]


def _about_threshold(found: SiteRun) -> str:
    calibration = found.kept.calibration
    return f"{CHOSEN if calibration.is_fitted else ' '.join(calibration.remarks)} {AT_HALF}"


def _said(found: SiteRun) -> dict[str, Values]:
    """Return the test subjects' probabilities before and, where it changes them, after calibration."""
    calibration = found.kept.calibration
    after = {AFTER: calibration.calibrated(found.chances)} if calibration.temperature != 1 else {}
    return {AS_GIVEN: found.chances, **after}


def _reliability_blocks(found: SiteRun) -> list[Block]:
    if not len(found.labels):
        return [Paragraph("The site has no test subjects, so nothing can be said.")]
    bins = {name: reliability(found.labels, chances) for name, chances in _said(found).items()}
    last = list(bins)[-1]
    few = " With so few test subjects the curve is a rough sketch." if len(found.labels) < FEW else ""
    text = (
        "Of the subjects that the model gives a probability near 0.8, four of five should have the disease. The curve "
        f"shows what it was among the test subjects.{few}"
    )
    return [Paragraph(text), _curve(found, bins), _bins_table(last, bins[last]), _scores_table(found, bins)]


def _scores_table(found: SiteRun, bins: dict[str, list[Bin]]) -> Table:
    prevalence = float(sum(found.labels)) / len(found.labels)
    rows = [
        [name, _brier(found, chances), f"{calibration_error(bins[name]):.3f}"] for name, chances in _said(found).items()
    ]
    rows.append(["share of disease, said of everybody", f"{prevalence * (1 - prevalence):.3f}", NONE])
    return Table(
        caption="How far probabilities lie from the truth, test subjects",
        header=["probabilities", "Brier score", "expected calibration error"],
        rows=rows,
        note="Brier score: mean squared distance of probability and truth; 0 is perfect, always saying 0.5 gives 0.25. "
        "Expected calibration error: mean distance of the curve from the diagonal; with few subjects chance alone "
        "makes it large.",
    )


def _brier(found: SiteRun, chances: Values) -> str:
    return f"{brier(found.labels, chances):.3f}" if len(found.labels) else NONE


def _bins_table(name: str, bins: list[Bin]) -> Table:
    rows = [
        [f"{item.mean:.2f}", str(item.n), str(item.n_positive), number(item.share), between(item.interval)]
        for item in bins
    ]
    header = [f"mean probability, {name}", "subjects", "with disease", "share", "95 % interval"]
    return Table("The curve in numbers: equally many test subjects in each bin", header, rows)


def _curve(found: SiteRun, bins: dict[str, list[Bin]]) -> Picture:
    """Draw the share with disease over the mean probability, before and after calibration, and every subject."""
    styles = ({"color": "#5A5A5A", "marker": "x"}, {"color": "#0072B2", "marker": "o"})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="dashed")
        for (name, items), style in zip(bins.items(), styles, strict=False):
            for item in items:
                axes.plot([item.mean] * 2, item.interval, color=style["color"], linewidth=1, alpha=0.6)
            xs, ys = [item.mean for item in items], [item.share for item in items]
            axes.plot(xs, ys, label=name, linestyle="solid" if style["marker"] == "o" else (0, (4, 2)), **style)  # type: ignore[arg-type]
        _subjects(axes, found)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.12, 1.12), xlabel="probability of disease", ylabel="share with disease")
        figure.legend(loc="outside upper center", ncols=2)
        return png(
            figure,
            "reliability.png",
            "Line plot: share of test subjects with disease over the mean probability that the model gave them, with "
            "intervals; the tables below have the numbers.",
            "Share with disease by probability, with 95 % intervals (dashed: what was said is what was true). Ticks "
            "above and below: single subjects with and without disease.",
            "synthetic phantoms" if found.kept.phantoms else "",
        )


def _subjects(axes: Axes, found: SiteRun) -> None:
    *_, last = _said(found).values()
    for label, height in ((0, -0.07), (1, 1.07)):
        xs = [chance for chance, truth in zip(last, found.labels, strict=True) if truth == label]
        axes.plot(xs, [height] * len(xs), linestyle="none", marker="|", markersize=7, color="#111111", alpha=0.6)


def _fitted_table(found: SiteRun) -> Table:
    calibration = found.kept.calibration
    rows = [
        ["validation subjects, NOR + disease", f"{calibration.n_negative} + {calibration.n_positive}"],
        ["temperature, which divides the log odds", f"{calibration.temperature:.3f}"],
        ["threshold of the model's probability", f"{calibration.threshold:.4f}"],
        ["the same after calibration", f"{float(calibration.calibrated(calibration.threshold)):.4f}"],
        ["belongs to the newest state here", "yes" if found.is_current else "no: evaluate the model again"],
    ]
    return Table("Fitted to the validation subjects", ["what", "value"], rows)
