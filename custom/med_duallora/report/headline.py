"""What a report says first, in words: whether joining is shown to be better, than what, and what was missed."""

from dataclasses import replace

from med_duallora.report.comparison import compare
from med_duallora.report.finished import Evaluation, Run
from med_duallora.report.summary import by_site, macro, pooled_counts


def headline(run: Run) -> str:
    """Say whether both adapters are shown to be better than the start, on how many subjects, and what was missed."""
    both, start = (macro(with_both(run), variant, "balanced_accuracy") for variant in ("both", "backbone"))
    size = _size(run)
    if both is None or start is None:
        return (
            f"Balanced accuracy cannot be compared ({size}): no site gave one with both adapters and with the "
            "backbone; it takes a site that trains, and a test split with enough subjects of both classes."
        )
    n_sites, n_scored = len(run.evaluation.sites), len(by_site(run.evaluation, "both", "balanced_accuracy"))
    scored = "the sites" if n_scored == n_sites else f"the {n_scored} of {n_sites} sites that gave one"
    means = (
        f"mean balanced accuracy over {scored} {both:.2f} with both adapters, {start:.2f} with the frozen backbone "
        "and a fitted head"
    )
    found = compare(run, "both", "backbone")
    if found is None:
        return f"{means[0].upper()}{means[1:]}. {size[0].upper()}{size[1:]}."
    verdict = f"{found.word[0].upper()}{found.word[1:]} over each site's own head: {found.gain:+.2f}, 95 % interval "
    verdict += found.between
    return " ".join(
        [
            f"{verdict} ({means}).",
            *_mistakes(run),
            *_against_alone(run),
            *_better_alone(run, both),
            f"{size[0].upper()}{size[1:]}.",
        ]
    )


def with_both(run: Run) -> Evaluation:
    """Return the evaluation of the sites with both adapters: a site that only evaluates would change one mean alone."""
    scored = by_site(run.evaluation, "both", "balanced_accuracy")
    return replace(run.evaluation, sites={site: run.evaluation.sites[site] for site in scored})


def _size(run: Run) -> str:
    n_sites, subjects = len(run.evaluation.sites), _n_subjects(run)
    return ("1 site" if n_sites == 1 else f"{n_sites} sites") + (f", {subjects} test subjects" if subjects else "")


def _mistakes(run: Run) -> list[str]:
    scored = with_both(run)
    found = pooled_counts(scored, "both")
    if found is None:
        return []
    missed, alarms = found.n_positive - found.hits, found.n_negative - found.rejections
    there = "" if len(scored.sites) == len(run.evaluation.sites) else " there"
    return [
        f"{missed} of {found.n_positive} diseased test subjects were missed{there}, {alarms} of {found.n_negative} "
        "normal ones taken for diseased."
    ]


def _against_alone(run: Run) -> list[str]:
    """Say whether joining is shown to be better than what each site trained by itself, where the sites did."""
    found, mean = compare(run, "both", "alone"), macro(with_both(run), "alone", "balanced_accuracy")
    if found is None or mean is None:
        return []
    better = ", which was better" if found.gain < 0 else ""
    return [
        f"Against what each site trained alone ({mean:.2f}{better}): {found.word}, {found.gain:+.2f}, 95 % interval "
        f"{found.between}."
    ]


def _better_alone(run: Run, both: float) -> list[str]:
    """Say which adapter did better with the other one switched off."""
    means = {name: macro(with_both(run), name, "balanced_accuracy") for name in ("global", "local")}
    better = [
        f"the {name} adapter with the other one switched off {mean:.2f}"
        for name, mean in means.items()
        if mean is not None and mean > both
    ]
    text = " and ".join(better)
    return [f"{text[0].upper()}{text[1:]}: better than both."] if text else []


def _n_subjects(run: Run) -> int:
    """Return the number of test subjects; 0 where a site did not tell its own. Older runs have another name for it."""
    told = [scores.get("n_test_subjects", scores.get("n_subjects")) for scores in run.evaluation.sites.values()]
    return int(sum(n for n in told if n is not None)) if None not in told else 0
