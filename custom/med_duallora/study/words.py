"""What a study's numbers mean in plain words: pure functions of estimates."""

import math

from med_duallora.study.statistics import Estimate

NONE = "-"
PAPER = (
    "For orientation, not comparable: the abstract of Med-DualLoRA (arXiv 2603.10967) reports a balanced accuracy of "
    ".768 and a specificity of .612, with the 12-block CineMA backbone on the patients of ACDC and M&Ms."
)
UNITS = (
    "p: Wilcoxon signed-rank test, two-sided, over pairs of seed and site. Pairs of one seed share a training, and "
    "pairs of one site share subjects, so that they are not independent and p is too small by an unknown factor; Holm: "
    "adjusted for the number of comparisons in this table. The interval resamples subjects within site and class, each "
    "with its answers in all seeds; it holds for these sites and these trainings with other subjects."
)


def number(value: float) -> str:
    """Return a score with two digits; a dash where it is not defined."""
    return f"{value:.3f}" if math.isfinite(value) else NONE


def with_interval(found: Estimate) -> str:
    """Return a score with its interval."""
    return (
        f"{number(found.value)} ({number(found.low)} to {number(found.high)})" if math.isfinite(found.value) else NONE
    )


def difference(found: Estimate) -> str:
    """Return a difference with its sign and interval."""
    if not math.isfinite(found.value):
        return NONE
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def verdict(found: Estimate) -> str:
    """Return what the interval of a difference shows."""
    if not math.isfinite(found.low):
        return "not known"
    return "better" if found.low > 0 else "worse" if found.high < 0 else "no difference shown"


def p_value(p: float) -> str:
    """Return a p value with what its digits are worth."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 0.9995 else "1"


def joining(site: str, found: Estimate) -> str:
    """Say to a site in one sentence whether joining was worth it: its model from the federation against its own."""
    if not math.isfinite(found.low):
        return f"Nobody can tell whether joining is worth it for {site}."
    limits = f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    if found.low > 0:
        return (
            f"Joining was worth it for {site}: balanced accuracy {found.value:+.2f} against training alone, {limits}."
        )
    if found.high < 0:
        return f"Joining cost {site} balanced accuracy: {found.value:+.2f} against training alone, {limits}."
    return f"No gain of joining is shown for {site}: {found.value:+.2f} against training alone, {limits}."
