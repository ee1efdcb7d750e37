"""Numbers computed from an evaluation: means over sites, pooled counts, intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from med_duallora.measures import score_name
from med_duallora.report.finished import Evaluation
from med_duallora.support.proportions import Counts, balanced_interval, mean_interval


@dataclass(frozen=True)
class Extent:
    """How far sites lie apart in one metric.

    Args:
        where: the site with the lowest value, or how many share it.
        worst: its value.
        spread: highest minus lowest value.
    """

    where: str
    worst: float
    spread: float


def by_site(evaluation: Evaluation, variant: str, metric: str) -> dict[str, float]:
    """Return the metric of every site for which it is defined (a test split with one class only has no AUROC)."""
    name = score_name(variant, metric)
    return {site: scores[name] for site, scores in evaluation.sites.items() if name in scores}


def macro(evaluation: Evaluation, variant: str, metric: str) -> float | None:
    """Return the mean over sites, each site counting the same; None where no site has the metric."""
    values = by_site(evaluation, variant, metric)
    return math.fsum(values.values()) / len(values) if values else None


def extent(evaluation: Evaluation, variant: str, metric: str) -> Extent | None:
    """Return the worst site and the spread over sites; None where no site has the metric."""
    values = by_site(evaluation, variant, metric)
    if not values:
        return None
    worst, best = min(values.values()), max(values.values())
    sites = [site for site, value in values.items() if value == worst]
    return Extent(sites[0] if len(sites) == 1 else f"{len(sites)} sites", worst, best - worst)


def counts(scores: Mapping[str, float], variant: str) -> Counts | None:
    """Return the counts behind one site's sensitivity and specificity; None where the site did not send them."""
    if not {"n_positive", "n_negative"} <= set(scores):
        return None
    n_positive, n_negative = int(scores["n_positive"]), int(scores["n_negative"])
    hits = _part(scores.get(score_name(variant, "sensitivity")), n_positive)
    rejections = _part(scores.get(score_name(variant, "specificity")), n_negative)
    return None if hits is None or rejections is None else Counts(hits, n_positive, rejections, n_negative)


def pooled_counts(evaluation: Evaluation, variant: str) -> Counts | None:
    """Return the counts over all sites' test subjects together; None where a site's counts are unknown."""
    total = Counts(0, 0, 0, 0)
    for scores in evaluation.sites.values():
        found = counts(scores, variant)
        if found is None:
            return None
        total += found
    return total


def pooled(evaluation: Evaluation, variant: str, metric: str) -> float | None:
    """Return a metric over all test subjects together.

    Only what follows from counts has one: the AUROC, say, needs every prediction on one scale, and predictions stay at
    the sites.
    """
    total = pooled_counts(evaluation, variant)
    if total is None or not total.n_positive or not total.n_negative:
        return None
    sensitivity, specificity = total.hits / total.n_positive, total.rejections / total.n_negative
    return {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
    }.get(metric)


def site_intervals(evaluation: Evaluation, variant: str) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each site's balanced accuracy, where the counts behind it are known."""
    known = {site: counts(scores, variant) for site, scores in evaluation.sites.items()}
    intervals = {site: balanced_interval(found) for site, found in known.items() if found}
    return {site: interval for site, interval in intervals.items() if interval}


def macro_interval(evaluation: Evaluation, variant: str) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean balanced accuracy over these sites; None where one site's is unknown.

    It speaks of these sites with other subjects; other sites are another question.
    """
    values, intervals = by_site(evaluation, variant, "balanced_accuracy"), site_intervals(evaluation, variant)
    if not values or set(values) - set(intervals):
        return None
    return mean_interval([(value, *intervals[site]) for site, value in values.items()])


def _part(share: float | None, n: int) -> int | None:
    if n == 0:
        return 0
    return None if share is None else round(share * n)
