from pathlib import Path

import pytest

from med_duallora.cohorts.phantom.truth import TARGETS
from med_duallora.settings.config import JobConfig
from med_duallora.study.arms import arms
from med_duallora.study.plan import Cohort, Recipe, RunSpec, specs
from med_duallora.study.running import run_one
from med_duallora.study.splits import rows_of
from tests.unit.truths import truth_table

SETTINGS = ("train.n_rounds=1", "train.local_epochs=1", "train.batch_size=4", "train.n_views=1")


@pytest.fixture(scope="session")
def cohort(tiny_cohorts: dict[str, Path]) -> Cohort:
    """Two sites of ten subjects."""
    sites = {site: tiny_cohorts[site] for site in ("ge", "canon")}
    return Cohort.of(tiny_cohorts["ge"].parent, sites, is_synthetic=True)


@pytest.fixture(scope="session")
def job() -> JobConfig:
    return JobConfig(backbone="cinema-tiny").with_overrides([*SETTINGS, "lora.head_policy=shared"])


@pytest.fixture(scope="session")
def spec_of(cohort, job, tiny_checkpoint, tmp_path_factory):
    """Makes the run of an arm in the session's study, whose feature cache all of them share."""
    shared = tmp_path_factory.mktemp("study")
    rows = [row for folder in cohort.sites.values() for row in rows_of(folder)]
    values = [[row["subject"], *[100 * (1 + int(row["label"]))] * len(TARGETS)] for row in rows]
    truth = truth_table(tmp_path_factory.mktemp("truth") / "truth.csv", values)

    def make(name: str, seed: int = 0, out: Path = shared, **changes) -> RunSpec:
        return specs(
            [arms()[name]],
            [Recipe("default")],
            [cohort],
            [seed],
            job=changes.pop("job", job),
            checkpoint=tiny_checkpoint,
            n_train=6,
            n_test=None,
            out=out,
            truth=changes.pop("truth", truth),
            **changes,
        )[0]

    return make


@pytest.fixture(scope="session")
def done(spec_of):
    """Does the run of an arm, once for all tests of the session, and gives the file of its record."""
    known: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in known:
            known[name] = run_one(spec_of(name))
        return known[name]

    return run
