"""Is a model better than another one on the same test subjects? The difference with an interval, and a word for it."""

from collections.abc import Iterable
from dataclasses import dataclass

from med_duallora.report.finished import Evaluation, Run, SitePredictions
from med_duallora.report.summary import by_site, counts
from med_duallora.support.proportions import Counts, difference_interval, mean_interval, phi, wilson_interval

Estimate = tuple[float, float, float]
"""A value with the limits of its 95 % interval."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two variants' balanced accuracy: of one site, or the mean over sites.

    Args:
        gain: the first one's minus the second one's.
        low: lower limit of its 95 % interval.
        high: upper limit.
        is_paired: whether both answers to each subject were known; else, the interval is that of two models which err
            independently, and wider than it need be.
    """

    gain: float
    low: float
    high: float
    is_paired: bool

    @property
    def word(self) -> str:
        """Return what the interval shows: a gain, a loss, or neither."""
        return "gain shown" if self.low > 0 else "loss shown" if self.high < 0 else "no gain shown"

    @property
    def text(self) -> str:
        """Return the difference with its interval, such as ``+0.14 (-0.03 to +0.31)``."""
        return f"{self.gain:+.2f} ({self.between})"

    @property
    def between(self) -> str:
        """Return the interval."""
        return f"{self.low:+.2f} to {self.high:+.2f}"


def compare(run: Run, ours: str, theirs: str) -> Comparison | None:
    """Compare two variants over the sites that scored both, each site counting the same.

    It speaks of these sites with other subjects; other sites are another question.

    Returns:
        None where no site scored both, or one that did holds back how many subjects it has.
    """
    scored = by_site(run.evaluation, ours, "balanced_accuracy").keys() & by_site(
        run.evaluation, theirs, "balanced_accuracy"
    )
    return _mean(compare_at(run, site, ours, theirs) for site in sorted(scored))


def compare_at(run: Run, site: str, ours: str, theirs: str) -> Comparison | None:
    """Compare two variants at a site; None where the site does not tell both, or not on how many subjects."""
    first, second = (counts(run.evaluation.sites.get(site, {}), variant) for variant in (ours, theirs))
    if first is None or second is None or not (first.n_positive and first.n_negative):
        return None
    kept = run.predictions.get(site)
    if kept and not {ours, theirs} <= kept.right.keys():
        kept = None
    sensitivity = _difference((first.hits, second.hits), first.n_positive, _phi(kept, 1, ours, theirs))
    specificity = _difference((first.rejections, second.rejections), first.n_negative, _phi(kept, 0, ours, theirs))
    return _mean([Comparison(*part, is_paired=kept is not None) for part in (sensitivity, specificity)])


def belongs(kept: SitePredictions, evaluation: Evaluation, site: str) -> bool:
    """Return whether predictions are those behind the scores that a site sent."""
    told = {variant: counts(evaluation.sites.get(site, {}), variant) for variant in kept.right}
    return bool(told) and all(found == _counted(kept, variant) for variant, found in told.items())


def _counted(kept: SitePredictions, variant: str) -> Counts:
    answers = list(zip(kept.right[variant], kept.labels, strict=True))
    hits, rejections = ([right for right, label in answers if label == of_class] for of_class in (1, 0))
    return Counts(sum(hits), len(hits), sum(rejections), len(rejections))


def _phi(kept: SitePredictions | None, label: int, ours: str, theirs: str) -> float:
    if kept is None:
        return 0.0
    rows = [row for row, found in enumerate(kept.labels) if found == label]
    return phi(*([kept.right[variant][row] for row in rows] for variant in (ours, theirs)))


def _difference(n_right: tuple[int, int], n: int, correlation: float) -> Estimate:
    ours, theirs = ((right / n, *wilson_interval(right, n)) for right in n_right)
    return (ours[0] - theirs[0], *difference_interval(ours, theirs, correlation))


def _mean(found: Iterable[Comparison | None]) -> Comparison | None:
    parts = list(found)
    known = [part for part in parts if part is not None]
    if not parts or len(known) < len(parts):
        return None
    gain = sum(part.gain for part in known) / len(known)
    interval = mean_interval([(part.gain, part.low, part.high) for part in known])
    return Comparison(gain, *interval, is_paired=all(part.is_paired for part in known))
