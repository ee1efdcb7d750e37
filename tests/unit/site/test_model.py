"""A site's model on its own: what a saved state needs in order to predict, and that it needs no subject to train on."""

import json
from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import StateError
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.model import SiteModel
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import random_payload, same
from tests.unit.tiny_site import JOB, START, cohort_with, files_of, runtime_of

PLAIN_HEAD = JOB.with_overrides(["lora.head_norm=none"])


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig], tmp_path) -> SiteConfig:
    """A site whose cohort is this test's own, and has only two subjects of one class to test on."""
    return replace(tiny_sites["siemens"], data_dir=write_tiny_cohort(tmp_path / "cohort", "siemens", 0))


def without_training_subjects(config: SiteConfig, tmp_path) -> SiteConfig:
    """The same site once nothing but the test split is left, without what was computed of the others."""
    for subject in PreparedCohort.read(config.data_dir).subjects:
        if subject.split != "test":
            subject.ed_path.unlink()
            subject.es_path.unlink()
    (config.data_dir / "cohort.csv").unlink()
    return replace(config, cache_dir=tmp_path / "empty-cache", data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "job", [JOB, PLAIN_HEAD, *(JOB.with_overrides([f"method={name}"]) for name in ("fedavg-lora", "fedavg-full"))]
)
def test_a_saved_state_predicts_as_the_evaluation_did_without_any_training_subject(
    job: JobConfig, config: SiteConfig, tmp_path
) -> None:
    runtime = runtime_of(config, job)
    subjects = runtime.cohort.split("test")
    start = random_payload(runtime.contract, scale=0.3)
    runtime.train_round(start, 0)
    runtime.evaluate(random_payload(runtime.contract, seed=1, scale=0.3))
    predictions = runtime.model.directory / "predictions.json"
    expected = [row["both"] for row in json.loads(predictions.read_text())["predictions"]]
    later = SiteModel("siemens", job, without_training_subjects(config, tmp_path))
    later.recall()
    np.testing.assert_allclose(later.predict(subjects), expected, rtol=0, atol=1e-6)
    assert len(set(expected)) == len(expected)


def test_a_state_can_predict_after_every_round(config: SiteConfig, tmp_path) -> None:
    runtime = runtime_of(config)
    subjects = runtime.cohort.split("test")
    update = runtime.train_round(random_payload(runtime.contract, scale=0.3), 0)
    expected = runtime._predictions(subjects, lambda: False)
    later = SiteModel("siemens", JOB, without_training_subjects(config, tmp_path))
    state = later.recall()
    assert same(state.sent, update.tensors)
    np.testing.assert_allclose(later.predict(subjects), expected, rtol=0, atol=1e-6)


def test_the_model_that_was_evaluated_last_is_the_one_that_is_kept(config: SiteConfig) -> None:
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    trained = runtime.model.store.latest()
    final = random_payload(runtime.contract, seed=3)
    runtime.evaluate(final)
    state = runtime.model.store.latest()
    assert same(state.sent, final)
    assert not same(state.statistics, trained.statistics), "of another global adapter"
    for part in ("kept", "moments"):
        assert same(getattr(state, part), getattr(trained, part)), "training goes on from where it was"
    assert (state.round_index, state.cohort) == (trained.round_index, trained.cohort)


def test_without_test_subjects_the_evaluated_model_is_kept_all_the_same(config: SiteConfig) -> None:
    cohort_with(config.data_dir, lambda row: {**row, "split": "val" if row["split"] == "test" else row["split"]})
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    final = random_payload(runtime.contract, seed=3)
    runtime.evaluate(final)
    found = SiteModel("siemens", JOB, config)
    assert same(found.recall().sent, final)
    runtime.model.fit_head(runtime.train_subjects)
    assert same(found.statistics(), runtime.model.statistics())


def test_evaluating_changes_nothing_that_training_goes_on_from(config: SiteConfig, tmp_path) -> None:
    plain = runtime_of(replace(config, state_dir=tmp_path / "plain"))
    evaluated = runtime_of(config)
    for round_index in range(2):
        expected = plain.train_round(START, round_index)
        assert same(evaluated.train_round(START, round_index).tensors, expected.tensors)
        evaluated.evaluate(random_payload(plain.contract, seed=round_index))


def test_a_site_that_never_trained_keeps_no_state_and_says_so(config: SiteConfig) -> None:
    runtime = runtime_of(config)
    runtime.evaluate(START)
    assert not [name for name in files_of(runtime) if name.endswith(".safetensors")]
    with pytest.raises(StateError, match="no state of this site in the experiment test"):
        SiteModel("siemens", JOB, config).recall()


def test_a_model_of_another_site_or_method_does_not_take_the_state(config: SiteConfig) -> None:
    runtime_of(config).train_round(START, 0)
    with pytest.raises(StateError, match="no state of this site"):
        SiteModel("siemens", JOB.with_overrides(["lora.head_norm=none"]), config).recall()
