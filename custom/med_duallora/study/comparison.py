"""A federation's arms side by side: what tables and plots of a study read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from med_duallora.study.arms import ALONE, REFERENCE
from med_duallora.study.records import Run, series_of
from med_duallora.study.statistics import MACRO, Estimate, PairedTest, Resampling, Scored, Split, holm, paired_test
from med_duallora.study.ways import BOTH


@dataclass(frozen=True)
class Against:
    """The reference held against another arm.

    Args:
        difference: of the macro balanced accuracy, over the seeds that both have.
        test: over seeds and sites.
        holm: the test's p, adjusted for all arms that it was held against.
    """

    difference: Estimate
    test: PairedTest
    holm: float


class Comparison:
    """All finished runs of one cohort under one recipe, or of several cohorts that were cut from the same subjects.

    Args:
        cohort: its name, or what several are called together.
        recipe: its name.
        runs: by arm.
        payload_bytes: what a site sends in a round, by arm.
        n_draws: of the bootstrap.
    """

    def __init__(
        self,
        cohort: str,
        recipe: str,
        runs: Mapping[str, Sequence[Run]],
        payload_bytes: Mapping[str, int],
        n_draws: int,
    ) -> None:
        self.cohort, self.recipe, self.runs, self.payload_bytes = cohort, recipe, dict(runs), dict(payload_bytes)
        self.cohorts = list(dict.fromkeys(run.spec.cohort.name for found in runs.values() for run in found))
        self.series = {
            (arm, variant): series_of(found, variant)
            for arm, found in runs.items()
            for variant in dict.fromkeys(name for run in found for name in run.variants)
        }
        self.resampling = Resampling.of(self.series.values(), n_draws, moving=len(self.cohorts) > 1)

    @cached_property
    def scored(self) -> dict[str, Scored]:
        """Return the scores of every arm that is judged as a whole."""
        return {arm: self.of(arm, BOTH) for arm, variant in self.series if variant == BOTH}

    @property
    def synthetic(self) -> bool | None:
        """Return whether all subjects are phantoms, or none; None: some."""
        kinds = {run.record["synthetic"] for found in self.runs.values() for run in found}
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def sites(self) -> list[str]:
        """Return every site."""
        return sorted({site for series in self.series.values() for sites in series.values() for site in sites})

    def of(self, arm: str, variant: str) -> Scored:
        """Return the scores of a variant of an arm."""
        return Scored(self.series[arm, variant], self.resampling)

    def variants(self, arm: str) -> list[str]:
        """Return the variants of an arm."""
        return [variant for name, variant in self.series if name == arm]

    @cached_property
    def against(self) -> dict[str, Against]:
        """Return the reference against every other arm with which it shares a seed; nothing where it is not there."""
        if REFERENCE not in self.scored:
            return {}
        pairs = {arm: self._shared(REFERENCE, arm) for arm in self.scored if arm != REFERENCE}
        known = {arm: pair for arm, pair in pairs.items() if pair}
        tests = {arm: paired_test(ours.unit_values(), theirs.unit_values()) for arm, (ours, theirs) in known.items()}
        adjusted = holm({arm: test.p for arm, test in tests.items()})
        return {
            arm: Against(ours.difference(theirs, MACRO), tests[arm], adjusted[arm])
            for arm, (ours, theirs) in known.items()
        }

    @cached_property
    def joining(self) -> dict[str, Estimate]:
        """Return the reference minus training alone by site; nothing where one of them is not there."""
        pair = self._shared(REFERENCE, ALONE) if {REFERENCE, ALONE} <= set(self.scored) else None
        if pair is None:
            return {}
        ours, theirs = pair
        return {site: ours.difference(theirs, site) for site in ours.sites}

    def attribution(self, site: str) -> dict[str, float]:
        """Return the mean over seeds of what was measured of the reference's adapters at a site."""
        found = [run.record["sites"][site]["attribution"] for run in self.runs.get(REFERENCE, [])]
        names = dict.fromkeys(name for one in found for name in one)
        return {name: float(np.mean([one[name] for one in found if name in one])) for name in names}

    def of_cohort(self, arm: str, cohort: str) -> Scored | None:
        """Return the scores of an arm on one of several cohorts; None where it was not run there."""
        found = {split: said for split, said in self.series[arm, BOTH].items() if split in self._splits[cohort]}
        return Scored(found, self.resampling) if found else None

    @cached_property
    def _splits(self) -> dict[str, set[Split]]:
        runs = [run for found in self.runs.values() for run in found]
        return {
            cohort: {(cohort, run.spec.seed) for run in runs if run.spec.cohort.name == cohort}
            for cohort in self.cohorts
        }

    def seconds(self, arm: str) -> float:
        """Return the mean processor time of a run: wall time depends on what else the machine does."""
        return float(np.mean([run.record["cpu_seconds"] for run in self.runs[arm]]))

    def _shared(self, one: str, other: str) -> tuple[Scored, Scored] | None:
        """Return two arms over the splits that both have; a study that is not finished may lack some."""
        splits = self.series[one, BOTH].keys() & self.series[other, BOTH].keys()
        if not splits:
            return None
        if all(len(self.series[arm, BOTH]) == len(splits) for arm in (one, other)):
            return self.scored[one], self.scored[other]  # their draws are computed already
        first, second = (
            Scored({split: said for split, said in self.series[arm, BOTH].items() if split in splits}, self.resampling)
            for arm in (one, other)
        )
        return first, second
