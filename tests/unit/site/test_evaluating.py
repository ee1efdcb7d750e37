"""A site that evaluates only: scores of the global adapter alone, no training, no state."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import EgressViolation, UnfitError
from med_duallora.measures import VARIANTS
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.evaluating import EvaluatingSite, site_at_work
from med_duallora.site.fitness import check
from med_duallora.site.runtime import SiteRuntime
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import random_payload


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig], tmp_path: Path) -> SiteConfig:
    cohort = write_tiny_cohort(tmp_path / "west", "ge", 3, 20, (10, 2, 8))
    return replace(tiny_sites["ge"], data_dir=cohort, role="predict")


def at_work(config: SiteConfig, job: JobConfig) -> SiteRuntime:
    site = site_at_work("ge", job, config)
    site.model.follow(Lineage.begin())
    return site


def trained_variant_scores(found: dict[str, float]) -> set[str]:
    return {name.partition(".")[0] for name in found if "." in name}


@pytest.mark.parametrize("policy", ["local", "shared", "global"])
def test_it_scores_the_global_adapter_on_its_test_subjects(config: SiteConfig, tiny_job: JobConfig, policy) -> None:
    job = tiny_job.with_overrides([f"lora.head_policy={policy}"])
    site = at_work(config, job)
    state = random_payload(EgressContract.for_job(job), scale=0.3)
    found = site.evaluate(state)
    assert trained_variant_scores(found) == {"backbone", "global"}
    assert found["n_test_subjects"] == 8
    assert set(found) <= set(site.reported)
    assert site.offered is None
    assert not list(site.model.directory.glob("*.safetensors")), "no state: there is no training to go on with"
    assert not (site.model.directory / "calibration.json").exists()
    assert (site.model.directory / "predictions.json").stat().st_mode & 0o777 == 0o600


def test_a_head_that_stays_is_fitted_here_and_a_shared_one_is_used_as_it_comes(
    config: SiteConfig, tiny_job: JobConfig
) -> None:
    for policy, changed in (("local", True), ("shared", False)):
        job = tiny_job.with_overrides([f"lora.head_policy={policy}"])
        site = at_work(config, job)
        state = random_payload(EgressContract.for_job(job), scale=0.3)
        site.evaluate(state)
        heads = {n: v for n, v in site.kept_state().items() if "pred_head_dict" in n}
        assert any(value.any() for value in heads.values()) == changed
        assert all(np.array_equal(value, state[name]) for name, value in site.model.sent_state().items())
        local = [value for name, value in site.kept_state().items() if name.endswith("local_b")]
        assert local
        assert not any(value.any() for value in local)


def test_a_shared_head_is_scored_without_the_labels_of_the_train_split(config: SiteConfig, tiny_job: JobConfig) -> None:
    """A site that predicts without a training of its own has none either: one answer, whoever asks."""
    site = at_work(config, tiny_job)
    site.evaluate(random_payload(EgressContract.for_job(tiny_job), scale=0.3))
    kept = site.model.statistics()
    train = PreparedCohort.read(config.data_dir).split("train")
    with site.model.network.using(True, False):
        site.model.fit_head(train, labelled=False)
        unlabelled = site.model.statistics()
        site.model.fit_head(train)
    assert np.array_equal(kept["mean"], unlabelled["mean"])
    assert not np.array_equal(kept["mean"], site.model.statistics()["mean"])


def test_the_backbone_alone_is_scored_as_at_a_site_that_trains(config: SiteConfig, tiny_job: JobConfig) -> None:
    state = initial_global_state(tiny_job)
    evaluating = at_work(config, tiny_job).evaluate(state)
    training = at_work(replace(config, role="train"), tiny_job).evaluate(state)
    names = [name for name in training if name.startswith("backbone.")]
    assert names
    assert {name: evaluating[name] for name in names} == {name: training[name] for name in names}
    assert trained_variant_scores(training) == set(VARIANTS) - {"alone"}


def test_nothing_is_counted_computed_or_kept_for_a_round(config: SiteConfig, tiny_job: JobConfig) -> None:
    for site in (at_work(config, tiny_job), SiteRuntime("ge", tiny_job, config)):
        site.model.follow(Lineage.begin())
        before = site.model.sent_state(), site.kept_state()
        for ask in (site.train_round, site.validate):
            with pytest.raises(EgressViolation, match="evaluates only: role of the site configuration is predict"):
                ask(random_payload(site.contract), 0)
        assert not (config.state_dir / "answers.json").exists()
        assert not list(config.state_dir.rglob("*.safetensors"))
        assert site.offered is None
        assert site.reported == {}
        for now, then in zip((site.model.sent_state(), site.kept_state()), before, strict=True):
            assert all(np.array_equal(now[name], then[name]) for name in then)


def test_each_kind_of_adapter_is_scored_once_and_counted(config: SiteConfig, tiny_job: JobConfig) -> None:
    site = at_work(config, tiny_job)
    contract = EgressContract.for_job(tiny_job)
    found = site.evaluate(random_payload(contract, scale=0.3))
    assert site.evaluate(random_payload(contract, scale=0.3)) == found
    with pytest.raises(EgressViolation, match="already answered with another adapter"):
        site.evaluate(random_payload(contract, seed=1))


def test_the_policy_decides_which_scores_leave(config: SiteConfig, tiny_job: JobConfig) -> None:
    strict = replace(SitePolicy.for_one_machine(), min_subjects=5)
    assert at_work(replace(config, policy=strict), tiny_job).evaluate(initial_global_state(tiny_job)) == {}


def test_fewer_training_subjects_than_an_adapter_needs_are_no_obstacle(config: SiteConfig, tiny_job: JobConfig) -> None:
    policy = replace(SitePolicy.for_one_machine(), min_train_subjects=50)
    check(replace(config, policy=policy), tiny_job)
    with pytest.raises(UnfitError, match="from 50 in all on"):
        check(replace(config, policy=policy, role="train"), tiny_job)


def test_a_job_that_shares_its_head_asks_nothing_of_it(config: SiteConfig, tiny_job: JobConfig) -> None:
    job = tiny_job
    policy = replace(SitePolicy.for_one_machine(), head_leaves="none")
    check(replace(config, policy=policy), job)
    with pytest.raises(UnfitError, match=r"policy\.head_leaves"):
        check(replace(config, policy=policy, role="train"), job)


CASES = [((4, 2, 4), "fewer than 3 subjects of a class"), ((8, 2, 0), "no subject to evaluate on")]


@pytest.mark.parametrize(("sizes", "sentence"), CASES)
def test_a_cohort_that_no_head_can_be_fitted_to_is_found_beforehand(
    config: SiteConfig, tiny_job: JobConfig, tmp_path: Path, sizes: tuple[int, int, int], sentence: str
) -> None:
    cohort = write_tiny_cohort(tmp_path / "few", "ge", 3, 10, sizes)
    assert len(PreparedCohort.read(cohort).subjects) == 10
    with pytest.raises(UnfitError, match=sentence):
        check(replace(config, data_dir=cohort), tiny_job)


def test_the_role_decides_who_is_at_work(config: SiteConfig, tiny_job: JobConfig) -> None:
    assert isinstance(site_at_work("ge", tiny_job, config), EvaluatingSite)
    assert type(site_at_work("ge", tiny_job, replace(config, role="train"))) is SiteRuntime


@pytest.mark.parametrize("policy", ["local", "shared"])
def test_a_site_that_trained_before_scores_the_global_adapter_alone(
    config: SiteConfig, tiny_job: JobConfig, tmp_path: Path, policy: str
) -> None:
    """A job is resumed after the role was changed: local adapter and head of the former role are not put to use."""
    job = tiny_job.with_overrides([f"lora.head_policy={policy}"])
    lineage, state = Lineage.begin(), random_payload(EgressContract.for_job(job), scale=0.3)
    before = site_at_work("ge", job, replace(config, role="train"))
    before.model.follow(lineage)
    before.train_round(state, 0)
    files = {path: path.read_bytes() for path in config.state_dir.rglob("*.safetensors")}
    assert files
    after = site_at_work("ge", job, config)
    after.model.follow(lineage.continued(1))
    found = after.evaluate(state)
    fresh = at_work(replace(config, state_dir=tmp_path / "fresh"), job)
    assert fresh.evaluate(state) == found
    kept = after.kept_state(), fresh.kept_state()
    assert all(np.array_equal(kept[0][name], kept[1][name]) for name in kept[1])
    assert {path: path.read_bytes() for path in config.state_dir.rglob("*.safetensors")} == files
