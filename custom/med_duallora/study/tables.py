"""The tables of a study's page."""

from collections.abc import Sequence

from med_duallora.report.document import Table
from med_duallora.study.arms import ALONE, NEW_SITE, REFERENCE, arms
from med_duallora.study.comparison import Comparison
from med_duallora.study.statistics import MACRO, POOLED, WORST, Scored
from med_duallora.study.ways import FROZEN, SHOTS, shot_name
from med_duallora.study.words import NONE, UNITS, difference, joining, number, p_value, verdict, with_interval


def main_table(found: Comparison) -> Table:
    """Return every arm with its scores, the bytes that a site sends and the time of a run."""
    rows = []
    for arm, scored in found.scored.items():
        macro = [number(scored.estimate(MACRO, name).value) for name in ("sensitivity", "specificity", "auroc", "mcc")]
        rows.append(
            [
                arm,
                str(len(scored.series)),
                with_interval(scored.estimate(MACRO)),
                number(scored.spread()),
                number(scored.estimate(POOLED).value),
                number(scored.estimate(WORST).value),
                *macro,
                number(scored.estimate(MACRO, "brier").value),
                _sent(arm, found.payload_bytes[arm]),
                f"{found.seconds(arm):.0f}",
            ]
        )
    scores = ["sensitivity", "specificity", "AUROC", "MCC", "Brier score"]
    return Table(
        caption="Test scores by method: mean over splits and, where no other is named, over sites",
        header=[
            "method",
            "splits",
            "balanced accuracy (95 %)",
            "sd of splits",
            "pooled",
            "worst site",
            *scores,
            "KiB sent",
            "CPU s per run",
        ],
        rows=rows,
        note=f"KiB sent: by a site in a round, as FLARE serialises it; {NONE}: all sites' subjects are in one place. "
        "Threshold 0.5, never tuned. A lower Brier score is better.",
        strong_rows=[row for row, cells in enumerate(rows) if cells[0] == REFERENCE],
    )


def _sent(arm: str, n_bytes: int) -> str:
    if arms()[arm].way.in_one_place:
        return NONE
    return f"{n_bytes / 1024:.1f}" if n_bytes else "0"


def site_table(found: Comparison) -> Table:
    """Return the balanced accuracy of every arm at every site."""
    rows = [
        [arm, *(with_interval(scored.estimate(site)) if site in scored.sites else NONE for site in found.sites)]
        for arm, scored in found.scored.items()
    ]
    return Table(
        caption="Test balanced accuracy by site, mean over splits (95 %)",
        header=["method", *found.sites],
        rows=rows,
        strong_rows=[row for row, cells in enumerate(rows) if cells[0] == REFERENCE],
    )


def cohort_table(found: Comparison) -> Table | None:
    """Return the macro balanced accuracy of every arm on each of several cohorts; None where there is one cohort."""
    if len(found.cohorts) < 2:
        return None
    rows = []
    for arm in found.scored:
        scored = [found.of_cohort(arm, cohort) for cohort in found.cohorts]
        rows.append([arm, *(number(one.estimate(MACRO).value) if one else NONE for one in scored)])
    return Table(
        caption="Test balanced accuracy by federation, mean over its splits and sites",
        header=["method", *found.cohorts],
        rows=rows,
        strong_rows=[row for row, cells in enumerate(rows) if cells[0] == REFERENCE],
    )


def against_table(found: Comparison) -> Table | None:
    """Return the reference minus every other arm; None where nothing can be compared."""
    rows = [
        [
            arm,
            difference(held.difference),
            verdict(held.difference),
            f"{held.test.n_better} of {held.test.n_pairs}",
            p_value(held.test.p),
            p_value(held.holm),
        ]
        for arm, held in found.against.items()
    ]
    if not rows:
        return None
    return Table(
        caption=f"Macro balanced accuracy of {REFERENCE} minus that of",
        header=["method", "difference (95 %)", f"{REFERENCE} is", "better in", "p", "p (Holm)"],
        rows=rows,
        note=UNITS,
    )


def joining_table(found: Comparison) -> Table | None:
    """Return what joining was worth to each site; None where training alone was not run."""
    rows = [[site, difference(held), joining(site, held)] for site, held in found.joining.items()]
    if not rows:
        return None
    return Table(
        caption=f"Is joining worth it for me? Balanced accuracy of {REFERENCE} minus that of {ALONE}",
        header=["site", "difference (95 %)", "in words"],
        rows=rows,
        prose=True,
    )


def attribution_table(found: Comparison) -> Table | None:
    """Return what each adapter of the reference is worth by site; None where it was not run."""
    if REFERENCE not in found.scored:
        return None
    variants = [name for name in ("backbone", "global", "local", "both") if name in found.variants(REFERENCE)]
    scored = {name: found.of(REFERENCE, name) for name in variants}
    rows = []
    for site in found.sites:
        sizes = found.attribution(site)
        rows.append(
            [
                site,
                *(number(scored[name].estimate(site).value) for name in variants),
                *(_of(sizes, name) for name in ("norm_global", "norm_local", "angle")),
            ]
        )
    heads = {"backbone": "backbone + own head", "global": "global only", "local": "local only", "both": "both"}
    return Table(
        caption=f"What the adapters of {REFERENCE} are worth: test balanced accuracy, sizes, angle",
        header=["site", *(heads[name] for name in variants), "global: norm", "local: norm", "angle in degrees"],
        rows=rows,
        note="Norm: Frobenius norm of the weight update over all adapted layers. Angle: mean principal angle between "
        "the outputs that the two updates reach; 90: they never say the same.",
    )


def shots_table(found: Comparison) -> Table | None:
    """Return how a site fares that joins after the training; None where that was not run."""
    if NEW_SITE not in found.runs:
        return None
    known = found.variants(NEW_SITE)
    rows = []
    for k in (0, *SHOTS):
        ours, frozen = (_scored(found, known, shot_name(k, alone)) for alone in (False, True))
        gain = difference(ours.difference(frozen, MACRO)) if ours and frozen else NONE
        rows.append([str(k), *(with_interval(one.estimate(MACRO)) if one else NONE for one in (ours, frozen)), gain])
    return Table(
        caption="A site that joins after the training: test balanced accuracy there, mean over the sites left out",
        header=["labelled subjects", "global adapter", "frozen backbone", "difference (95 %)"],
        rows=rows,
        note="A head is fitted to that many labelled subjects of the site, half of each class; with the global adapter "
        "it is the sites' shared head, corrected by them, where there is one. With none, the sites' "
        "shared head is used, where there is one, on features standardised with the site's training subjects, whose "
        f"labels are not looked at. '{NONE}': not defined.{_lacking(found, known)}",
    )


def recipe_table(found: Sequence[Comparison]) -> Table | None:
    """Return what each recipe changes, for every arm that was run under several, on the same subjects.

    Args:
        found: of one cohort, a comparison per recipe; the first one is what the others are held against.
    """
    if len(found) < 2:
        return None
    first, *others = found
    rows = []
    for arm, ours in first.scored.items():
        for other in others:
            if arm in other.scored and other.scored[arm].series.keys() == ours.series.keys():
                theirs = other.scored[arm]
                gain = theirs.difference(ours, MACRO)
                cells = [with_interval(one.estimate(MACRO)) for one in (ours, theirs)]
                rows.append([arm, other.recipe, *cells, difference(gain), verdict(gain)])
    if not rows:
        return None
    return Table(
        caption=f"Macro balanced accuracy under other recipes than {first.recipe}",
        header=["method", "recipe", first.recipe, "under the recipe", "difference (95 %)", f"than {first.recipe}"],
        rows=rows,
        note="Only what was run on the same splits under both.",
    )


def arms_table(found: Comparison) -> Table:
    """Return what every arm is."""
    known = arms()
    rows = [[name, known[name].about, known[name].how] for name in found.runs]
    return Table(caption="What is compared", header=["method", "what it is", "training"], rows=rows, prose=True)


def _scored(found: Comparison, known: list[str], variant: str) -> Scored | None:
    return found.of(NEW_SITE, variant) if variant in known else None


def _lacking(found: Comparison, known: list[str]) -> str:
    sites = {variant: set(found.of(NEW_SITE, variant).sites) for variant in known if not variant.endswith(FROZEN)}
    uneven = len({frozenset(named) for named in sites.values()}) > 1
    return " Not every site has subjects enough for every row." if uneven else ""


def _of(sizes: dict[str, float], name: str) -> str:
    return f"{sizes[name]:.2f}" if name in sizes else NONE
