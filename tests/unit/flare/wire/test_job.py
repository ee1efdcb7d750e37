import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import ConfigError
from med_duallora.flare.wire.job import FederatedJob, job_of
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine
from tests.unit.refused import refused


def test_settings_and_contract_follow_from_the_configuration(tiny_job: JobConfig) -> None:
    job = FederatedJob(tiny_job.to_dict())
    assert job.settings == tiny_job
    assert job.contract.sha256 == EgressContract.for_job(tiny_job).sha256


def test_bad_settings_are_found_when_the_job_is_loaded() -> None:
    with refused("train.n_rounds", 0):
        FederatedJob({"train": {"n_rounds": 0}})


def test_every_component_finds_the_job(engine: Engine, tiny_job: JobConfig) -> None:
    assert job_of(engine.context("ge")).settings == tiny_job


def test_a_job_without_settings_is_said(engine: Engine) -> None:
    engine.components.clear()
    with pytest.raises(ConfigError, match="no component 'job'"):
        job_of(engine.context("ge"))


def test_a_method_that_sends_nothing_is_not_a_job_of_flare() -> None:
    with refused("method", "local-lora") as caught:
        FederatedJob({"method": "local-lora"})
    assert "runs in one process" in str(caught.value)
