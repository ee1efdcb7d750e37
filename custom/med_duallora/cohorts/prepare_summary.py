"""What the user is told of a preparation: pure functions that return lines of text."""

from collections import Counter
from pathlib import Path

from med_duallora.cohorts.prepare_tables import REFUSED_TABLE, Preparation, PrepareOptions
from med_duallora.cohorts.prepared import COHORT_TABLE, REMARK_SEPARATOR, SPLITS
from med_duallora.cohorts.subject import REASONS, Refusal


def summary_lines(result: Preparation, out: Path, options: PrepareOptions) -> list[str]:
    """Return the lines that tell the user what was done, and where to read more."""
    read = ", ".join(f"{name} {n}" for name, n in result.n_read.items())
    lines = [
        f"Read {sum(result.n_read.values())} subjects ({read}): {result.n_prepared} prepared "
        f"({result.n_reused} of them unchanged since an earlier run), {len(result.refused)} refused.",
    ]
    parts = (
        cohort_lines(result),
        site_lines(result, options),
        dicom_lines(result),
        crop_lines(result),
        remark_lines(result),
        refusal_lines(result, out),
    )
    for part in parts:
        lines += ["", *part] if part else []
    lines += ["", *(f"Note: {note}." for note in result.notes)] if result.notes else []
    return [*lines, "", f"Written to {out}"]


def cohort_lines(result: Preparation) -> list[str]:
    """Return a table of the cohorts: subjects in each split, by class."""
    if not result.cohorts:
        return []
    width = max(10, *(len(name) + 2 for name in result.cohorts))
    titles = "".join(f"{split + ' (NOR + disease)':<24}" for split in SPLITS)
    lines = [f"{'site':<{width}}subjects  {titles}".rstrip()]
    for name, rows in result.cohorts.items():
        cells = []
        for split in SPLITS:
            labels = [row["label"] for row in rows if row["split"] == split]
            cells.append(f"{f'{len(labels)} ({labels.count(0)} + {labels.count(1)})':<24}")
        lines.append(f"{name:<{width}}{len(rows):<10}{''.join(cells)}".rstrip())
    return lines


def site_lines(result: Preparation, options: PrepareOptions) -> list[str]:
    """Say what the sites are, where their names alone do not."""
    if options.sites.n_simulated:
        of_each = f" of each {' and '.join(options.sites.columns)}" if options.sites.columns else ""
        within = " of one of these" if of_each else ""
        return [
            f"The {len(result.cohorts)} sites are simulated: the subjects{of_each} were dealt out at random, alike in "
            f"class and pathology. No hospital is behind a site, and sites{within} differ by chance only."
        ]
    return [
        f"{site} is {', '.join(f'{column} {value!r}' for column, value in told.items())}"
        for site, told in result.told_by.items()
        if site != "-".join(told.values())
    ]


def crop_lines(result: Preparation) -> list[str]:
    """Say how the subjects without a segmentation were cropped: around the heart that was found, or not."""
    centres = Counter(row["crop_centre"] for rows in result.cohorts.values() for row in rows)
    texts = {
        "motion": "were cropped around the heart, which was found by its motion",
        "image": "were cropped at the image centre, because the heart was not found",
    }
    return [
        f"{centres[centre]} subject(s) without segmentation {text} ({COHORT_TABLE} says)."
        for centre, text in texts.items()
        if centres[centre]
    ]


def dicom_lines(result: Preparation) -> list[str]:
    """Say of how many subjects ED and ES were chosen by a rule, and how many are not named by their folder."""
    rows = [row for of_cohort in result.cohorts.values() for row in of_cohort if row.get("dataset") == "dicom"]
    lines = []
    if n_chosen := sum(row["frames"] == "automatic" for row in rows):
        lines.append(
            f"ED and ES of {n_chosen} subject(s) were chosen by the size of the blood pool (frames 'automatic' in "
            f"{COHORT_TABLE}): look at them with `med-duallora montage`."
        )
    if n_renamed := sum(row["subject"].startswith("dicom-") for row in rows):
        lines.append(
            f"{n_renamed} subject(s) are called dicom-... because their folder's name says who the patient is, by the "
            "headers, or is not a name for a folder here; the column 'name' of --dicom-table gives them your own."
        )
    return lines


def remark_lines(result: Preparation) -> list[str]:
    """Return one line per kind of remark with the number of subjects; a kind is the text before a colon."""
    kinds: Counter[str] = Counter()
    for rows in result.cohorts.values():
        for row in rows:
            # A set: a remark about both ED and ES is about one subject.
            kinds.update({text.partition(":")[0] for text in row["remarks"].split(REMARK_SEPARATOR) if text})
    if not kinds:
        return []
    lines = [f"Remarks on prepared subjects, in full in the column 'remarks' of each {COHORT_TABLE}:"]
    return lines + [f"  {n:4} {kind}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]


def refusal_lines(result: Preparation, out: Path) -> list[str]:
    """Return one line per reason of a refusal, each with its first subject."""
    by_reason: dict[str, list[Refusal]] = {}
    for item in result.refused:
        by_reason.setdefault(item.reason, []).append(item)
    if not by_reason:
        return []
    lines = [f"Refused, all listed in {out / REFUSED_TABLE}:"]
    for reason, items in sorted(by_reason.items(), key=lambda pair: -len(pair[1])):
        lines.append(f"  {len(items):4} {reason}: {REASONS[reason]}")
        lines.append(f"       first: {items[0].subject}: {items[0].detail}")
    return lines
