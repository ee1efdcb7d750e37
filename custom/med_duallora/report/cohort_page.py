"""The page of an examination: what was found about a cohort, with the pictures of those to look at."""

import io
import random
from collections import Counter
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from med_duallora.cohorts.examination import ERROR, WARNING, Examination, SubjectMeasures
from med_duallora.cohorts.examination.measures import MEASURES
from med_duallora.cohorts.prepared import SPLITS, PreparedSubject, load_volume
from med_duallora.errors import CohortError
from med_duallora.report.document import Block, Document, KeyNumber, Picture, Section, Table
from med_duallora.report.plots import DPI, STYLE, WIDTH

NOT_FOR_DIAGNOSIS = "Research use, not for diagnosis."
PATIENTS = "This page shows images and names of this site's subjects: it must not leave the site."
PHANTOMS = "Synthetic phantoms."
MOST_SHOWN = 12
"""Subjects with a finding whose images are shown; the table of reasons has all of them."""
MOST_NAMED = 8
"""Subjects that the table of findings names; `doctor --json` names all."""
PER_CLASS = 4
"""Subjects of each class on the sheet of examples."""


def build(examinations: Sequence[Examination]) -> Document:
    """Return the page of one or several cohorts."""
    synthetic = all(item.synthetic for item in examinations)
    several = len(examinations) > 1
    return Document(
        title="Is this cohort fit to join?" if not several else "Are these cohorts fit to join?",
        banner=f"{PHANTOMS if synthetic else PATIENTS} {NOT_FOR_DIAGNOSIS}",
        headline=" ".join(item.sentence() for item in examinations),
        key_numbers=_key_numbers(examinations),
        sections=[section for item in examinations for section in _sections(item, several)],
    )


def _key_numbers(examinations: Sequence[Examination]) -> list[KeyNumber]:
    subjects = [subject for item in examinations for subject in item.cohort.subjects]
    labels = [subject.label for subject in subjects]
    return [
        KeyNumber(str(len(subjects)), "prepared subjects"),
        KeyNumber(f"{labels.count(0)} + {labels.count(1)}", "normal (NOR) + diseased"),
        KeyNumber(str(sum(item.n(ERROR) for item in examinations)), "errors: reasons not to join yet"),
        KeyNumber(str(sum(item.n(WARNING) for item in examinations)), "warnings: somebody should look"),
    ]


def _sections(found: Examination, several: bool) -> list[Section]:
    title = f"{found.cohort.directory.name}: " if several else ""
    parts: list[tuple[str, list[Block]]] = [("Findings", [_findings_table(found)])]
    if found.cohort.subjects:
        parts.append(("Subjects", [_classes_table(found), _origins_table(found)]))
    if found.measured:
        parts.append(("Measures", [_measures_picture(found), _measures_table(found)]))
        parts += [("Subjects to look at", _suspects(found)), ("Some of the others", _examples(found))]
    return [Section(title + name, blocks) for name, blocks in parts if blocks]


def _findings_table(found: Examination) -> Table:
    rows = [[item.severity, item.text, _named(item.subjects)] for item in found.findings]
    return Table(
        caption=f"What was found about {found.cohort.directory.name}",
        header=["severity", "finding", "subjects"],
        rows=rows or [["none", "nothing speaks against joining", ""]],
        note="Error: it cannot join so. Warning: it can, but somebody should look. Note: good to know.",
        strong_rows=[index for index, item in enumerate(found.findings) if item.severity == ERROR],
        prose=True,
    )


def _named(subjects: Sequence[str]) -> str:
    more = len(subjects) - MOST_NAMED
    return ", ".join(subjects[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "") if subjects else "all"


def _classes_table(found: Examination) -> Table:
    subjects = found.cohort.subjects
    counted = Counter((subject.pathology, subject.split) for subject in subjects)
    # normal first, then the diseases by their size
    names = Counter(subject.pathology for subject in subjects if subject.label)
    pathologies = [*sorted({s.pathology for s in subjects if not s.label}), *(name for name, _ in names.most_common())]
    rows = [
        [name, *(str(counted[name, split]) for split in SPLITS), str(sum(counted[name, split] for split in SPLITS))]
        for name in pathologies
    ]
    total = [str(len(found.cohort.split(split))) for split in SPLITS]
    rows.append(["all", *total, str(len(subjects))])
    return Table("Subjects by class and split", ["class", *SPLITS, "all"], rows, strong_rows=[len(rows) - 1])


def _origins_table(found: Examination) -> Table:
    columns: dict[str, Callable[[PreparedSubject], str]] = {
        "vendor": lambda s: s.vendor,
        "centre": lambda s: s.centre or "not given",
        "data set": lambda s: s.dataset or "not given",
        "crop centred by": lambda s: s.crop_centre or "not given",
        "ED and ES": lambda s: s.frames or "not given",
    }
    rows = []
    for name, value in columns.items():
        counted = Counter(value(subject) for subject in found.cohort.subjects)
        rows.append([name, ", ".join(f"{key} {n}" for key, n in counted.most_common())])
    return Table("Where they come from", ["what", "how many"], rows)


def _measures_table(found: Examination) -> Table:
    rows = []
    for name, what in MEASURES.items():
        values = [item.values[name] for item in found.measured if name in item.values]
        if values:
            low, middle, high = (f"{value:.4g}" for value in np.percentile(values, (0, 50, 100)))
            rows.append([what, low, middle, high, str(len(values))])
    return Table("Measures of the prepared volumes", ["measure", "lowest", "median", "highest", "subjects"], rows)


def _measures_picture(found: Examination) -> Picture:
    """Draw one strip per measure with a dot per subject."""
    names = [name for name in MEASURES if any(name in item.values for item in found.measured)]
    shuffle = random.Random(0)  # noqa: S311  only spreads the dots, so that they do not hide each other
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.85 * len(names)), layout="constrained")
        for axes, name in zip(np.atleast_1d(figure.subplots(len(names), 1)), names, strict=True):
            for label, colour in ((0, "#0072B2"), (1, "#D55E00")):
                xs = [i.values[name] for i in found.measured if name in i.values and i.subject.label == label]
                ys = [label + shuffle.uniform(-0.3, 0.3) for _ in xs]
                axes.plot(xs, ys, linestyle="none", marker="o", markersize=3, color=colour, alpha=0.7)
            axes.set(ylim=(-0.6, 1.6))
            axes.set_yticks([0, 1], ["NOR", "disease"])
            axes.set_title(MEASURES[name], fontsize=9)
            axes.grid(visible=False, axis="y")
        alt = "A strip per measure with one dot per subject, normal and diseased apart."
        return _png(figure, f"measures-{found.cohort.directory.name}.png", alt, "One dot per subject.")


def _suspects(found: Examination) -> list[Block]:
    """Show the subjects that a warning or error is about, each with its reason."""
    reasons: dict[str, list[str]] = {}
    for finding in found.findings:
        if finding.severity in (ERROR, WARNING):
            for subject in finding.subjects:
                reasons.setdefault(subject, []).append(finding.text)
    known = {item.subject.subject: item for item in found.measured}
    shown = [known[name] for name in reasons if name in known]
    if not shown:
        return []
    rows = [[name, "; ".join(texts)] for name, texts in reasons.items()]
    sheet = _sheet(
        found, shown[:MOST_SHOWN], "suspects", "Middle slice at ED and ES of the subjects in the table above."
    )
    return [Table("Subjects with a warning or an error", ["subject", "why"], rows), *sheet]


def _examples(found: Examination) -> list[Block]:
    """Show a few subjects of each class, drawn at random but the same ones every time."""
    draw = random.Random(0)  # noqa: S311  a sample to look at
    chosen: list[SubjectMeasures] = []
    for label in (0, 1):
        group = [item for item in found.measured if item.subject.label == label]
        chosen += draw.sample(group, min(PER_CLASS, len(group)))
    return _sheet(found, chosen, "examples", f"Middle slice at ED and ES of up to {PER_CLASS} subjects per class.")


def _sheet(found: Examination, shown: Sequence[SubjectMeasures], name: str, caption: str) -> list[Block]:
    opened = [(item.subject, _middle(item.subject)) for item in shown]
    pictures = [(subject, image) for subject, image in opened if image is not None]
    if not pictures:
        return []
    n_rows = -(-len(pictures) // 2)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.45 * n_rows), layout="constrained")
        axes = figure.subplots(n_rows, 4, squeeze=False)
        for cell in axes.flat:
            cell.set_axis_off()
        for number, (subject, image) in enumerate(pictures):
            row, column = divmod(number, 2)
            for phase in (0, 1):
                cell = axes[row, 2 * column + phase]
                cell.imshow(image[phase].T, cmap="gray", vmin=0, vmax=255)
                cell.set_title(
                    f"{_short(subject.subject)}\n{_short(subject.pathology)} ED" if not phase else "\nES", fontsize=7
                )
        file = f"{name}-{found.cohort.directory.name}.png"
        return [_png(figure, file, caption, f"{caption} {NOT_FOR_DIAGNOSIS}")]


def _short(name: str) -> str:
    """Return a name for a picture's title; a dollar sign would begin a formula there."""
    return (name if len(name) <= 16 else f"{name[:15]}…").replace("$", r"\$")


def _middle(subject: PreparedSubject) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None":
    try:
        volume = load_volume(subject)
    except CohortError:  # it changed since it was measured
        return None
    return volume[:, :, :, volume.shape[3] // 2]


def _png(figure: Figure, name: str, alt: str, caption: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(name, buffer.getvalue(), alt, caption, width=round(100 * figure.get_figwidth()))
