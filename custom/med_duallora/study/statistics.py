"""Scores with intervals from repeated splits, and paired tests: pure functions of labels and probabilities.

A study scores the same subjects several times, under several seeds, and a site's subjects in one seed are those of
another one in part. So subjects are resampled, each with all its answers: within each site and class (stratified
bootstrap), the same draws for every method, which makes differences paired.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from med_duallora.site.scores import THRESHOLD
from med_duallora.support.seeds import generator

Values = NDArray[np.float64]
"""(1 + n_draws,): the value of the subjects as they are, then of every bootstrap draw."""
SCORES = ("balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "brier")
MACRO, POOLED, WORST = "macro", "pooled", "worst site"
ANYWHERE = ""
"""Where subjects are who belong to no site in particular; no site has this name."""
LIMITS = (2.5, 97.5)


@dataclass(frozen=True)
class Answers:
    """What one model says of one site's test subjects.

    Args:
        subjects: (n,) names, unique within the site.
        labels: (n,) 0 or 1.
        chances: (n,) probability of disease.

    Raises:
        ValueError: the lengths differ.
    """

    subjects: tuple[str, ...]
    labels: tuple[int, ...]
    chances: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.subjects) == len(self.labels) == len(self.chances):
            raise ValueError("there must be as many labels and probabilities as subjects")


Split = int | tuple[str, int]
"""What dealt the subjects out: a seed, or a cohort with a seed."""
Series = Mapping[Split, Mapping[str, Answers]]
"""The answers of one method by split and site."""


@dataclass(frozen=True)
class Estimate:
    """A value with the limits of its 95 % interval; NaN where it is not defined."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Values) -> "Estimate":
        """Return the value of the subjects as they are, with the percentiles of the draws."""
        draws = values[1:][np.isfinite(values[1:])]
        low, high = np.percentile(draws, LIMITS) if len(draws) else (np.nan, np.nan)
        return cls(float(values[0]), float(low), float(high))

    @property
    def excludes_zero(self) -> bool:
        """Return whether the interval of a difference lies on one side of 0."""
        return self.low > 0 or self.high < 0


class Resampling:
    """Weights of subjects in bootstrap draws; the first row weighs each with 1.

    Args:
        labels: by site, the label of every subject that is ever tested.
        n_draws: number of draws.
        seed: of the draws; they depend on the site's name, the class and the order of the names, on nothing else.
        moving: whether a name means one subject wherever it is, because several federations were cut from the same
            subjects: it is then drawn once for all sites, within its class alone.

    Raises:
        ValueError: a subject that moves has one label here and another one there.
    """

    def __init__(
        self, labels: Mapping[str, Mapping[str, int]], n_draws: int, seed: int, *, moving: bool = False
    ) -> None:
        self.n_draws, self._moving = n_draws, moving
        if moving:
            labels = {ANYWHERE: _labels_of(labels.values())}
        self._places = {site: {name: row for row, name in enumerate(sorted(found))} for site, found in labels.items()}
        self._weights = {site: self._drawn(site, found, seed) for site, found in labels.items()}

    @classmethod
    def of(cls, series: Iterable[Series], n_draws: int, seed: int = 0, *, moving: bool = False) -> "Resampling":
        """Return the draws for several methods, over all subjects that any of them ever tested.

        Raises:
            ValueError: a subject has one label here and another one there.
        """
        said: dict[str, list[dict[str, int]]] = {}
        for one in series:
            for sites in one.values():
                for site, answers in sites.items():
                    said.setdefault(site, []).append(dict(zip(answers.subjects, answers.labels, strict=True)))
        labels = {site: _labels_of(found) for site, found in said.items()}
        return cls(labels, n_draws, seed, moving=moving)

    def weights(self, site: str, subjects: Sequence[str]) -> NDArray[np.float64]:
        """Return the weights (1 + n_draws, n_subjects) of some of a site's subjects."""
        place = ANYWHERE if self._moving else site
        rows = self._places[place]
        return self._weights[place][:, [rows[name] for name in subjects]]

    def _drawn(self, site: str, labels: Mapping[str, int], seed: int) -> NDArray[np.float64]:
        names = sorted(labels)
        found = np.ones((1 + self.n_draws, len(names)))
        for label in (0, 1):
            columns = [row for row, name in enumerate(names) if labels[name] == label]
            if columns:
                stream = generator(seed, "bootstrap", site, label)
                share = np.full(len(columns), 1 / len(columns))
                found[1:, columns] = stream.multinomial(len(columns), share, size=self.n_draws)
        return found


def _labels_of(said: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the label of every subject, of which several tables may tell (ValueError: they contradict each other)."""
    known: dict[str, int] = {}
    for one in said:
        for name, label in one.items():
            if known.setdefault(name, label) != label:
                raise ValueError("a subject has two labels")
    return known


def weighted_scores(
    labels: Sequence[int], chances: Sequence[float], weights: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return every score of ``SCORES`` for each row of weights (n_rows, n_subjects); NaN where it is not defined."""
    truth, chance = np.asarray(labels) == 1, np.asarray(chances, dtype=float)
    positive = chance >= THRESHOLD
    diseased, normal = weights[:, truth], weights[:, ~truth]
    hits, alarms = weights[:, truth & positive].sum(1), weights[:, ~truth & positive].sum(1)
    n_diseased, n_normal = diseased.sum(1), normal.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity, specificity = hits / n_diseased, 1 - alarms / n_normal
        above = np.sign(chance[truth][:, None] - chance[~truth][None]) / 2 + 0.5
        wins = ((diseased @ above) * normal).sum(1)
        called = hits + alarms
        product = called * (n_diseased + n_normal - called) * n_diseased * n_normal
        covariance = hits * (n_normal - alarms) - alarms * (n_diseased - hits)
        mcc = np.where(product > 0, covariance / np.sqrt(product), 0.0)
        mcc[(n_diseased == 0) | (n_normal == 0)] = np.nan
        return {
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "auroc": wins / (n_diseased * n_normal),
            "mcc": mcc,
            "brier": (weights @ (chance - truth) ** 2) / weights.sum(1),
        }


class Scored:
    """The scores of one method: at each site, on average over sites, over all subjects together, at the worst site.

    A site's value is the mean over splits; ``macro`` is the mean over sites, ``worst site`` the lowest site's (the
    highest for the Brier score), ``pooled`` scores all sites' subjects of a split together.

    Args:
        series: the answers by split and site.
        resampling: the draws.
    """

    def __init__(self, series: Series, resampling: Resampling) -> None:
        self.series = series
        self.resampling = resampling
        self.sites = sorted({site for sites in series.values() for site in sites})

    @cached_property
    def units(self) -> dict[tuple[Split, str], dict[str, Values]]:
        """Return the scores by split and site."""
        return {
            (seed, site): weighted_scores(
                answers.labels, answers.chances, self.resampling.weights(site, answers.subjects)
            )
            for seed, sites in self.series.items()
            for site, answers in sites.items()
        }

    @cached_property
    def _pooled(self) -> dict[str, Values]:
        rows = []
        for sites in self.series.values():
            labels = [label for answers in sites.values() for label in answers.labels]
            chances = [chance for answers in sites.values() for chance in answers.chances]
            weights = [self.resampling.weights(site, answers.subjects) for site, answers in sites.items()]
            rows.append(weighted_scores(labels, chances, np.concatenate(weights, axis=1)))
        return {score: _mean([row[score] for row in rows]) for score in SCORES}

    def values(self, level: str, score: str) -> Values:
        """Return a score at a level: a site's name, ``MACRO``, ``POOLED`` or ``WORST``."""
        if level == POOLED:
            return self._pooled[score]
        if level in (MACRO, WORST):
            sites = [self.values(site, score) for site in self.sites]
            joined = np.mean if level == MACRO else np.max if score == "brier" else np.min
            over_sites: Values = joined(np.stack(sites), axis=0)
            return over_sites
        return _mean([found[score] for (_, site), found in self.units.items() if site == level])

    def estimate(self, level: str, score: str = "balanced_accuracy") -> Estimate:
        """Return a score with its interval."""
        return Estimate.of(self.values(level, score))

    def spread(self, score: str = "balanced_accuracy") -> float:
        """Return the standard deviation over splits of the mean over sites; NaN with one split."""
        units = self.unit_values(score)
        means = [np.mean([value for (of, _), value in units.items() if of == seed]) for seed in self.series]
        return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")

    def difference(self, other: "Scored", level: str, score: str = "balanced_accuracy") -> Estimate:
        """Return by how much this is above another method on the same subjects, with the interval of the pairs."""
        return Estimate.of(self.values(level, score) - other.values(level, score))

    def unit_values(self, score: str = "balanced_accuracy") -> dict[tuple[Split, str], float]:
        """Return the plain score by split and site."""
        return {unit: float(found[score][0]) for unit, found in self.units.items()}


def _mean(rows: Sequence[Values]) -> Values:
    """Return the mean over seeds of what is defined: a draw may leave a small class without a subject in one seed."""
    stacked = np.stack(rows)
    known = np.isfinite(stacked)
    counts = known.sum(0)
    total = np.where(known, stacked, 0.0).sum(0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True)
class PairedTest:
    """A Wilcoxon signed-rank test, two-sided, over pairs of seed and site.

    Args:
        n_pairs: pairs that both methods have.
        n_better: pairs in which the first method is strictly better.
        p: probability of such differences, or larger ones, if neither method were better; 1 where all pairs tie.
    """

    n_pairs: int
    n_better: int
    p: float


def paired_test(ours: Mapping[tuple[Split, str], float], theirs: Mapping[tuple[Split, str], float]) -> PairedTest:
    """Test whether one method is better than another one in the units that both have."""
    from scipy.stats import wilcoxon  # here, because it takes longer to load than the rest of a study's page

    units = [unit for unit in ours if unit in theirs and np.isfinite([ours[unit], theirs[unit]]).all()]
    differences = np.round([ours[unit] - theirs[unit] for unit in units], 12)  # so that ties are ties
    if not differences.any():
        return PairedTest(len(units), 0, 1.0)
    return PairedTest(len(units), int((differences > 0).sum()), float(wilcoxon(differences).pvalue))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p values adjusted for there being several (Holm 1979, Scandinavian Journal of Statistics 6)."""
    adjusted, lowest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        lowest = max(lowest, min(1.0, p * (len(p_values) - rank)))
        adjusted[name] = lowest
    return {name: adjusted[name] for name in p_values}
