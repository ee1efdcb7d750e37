"""Fixtures of the FLARE components' tests."""

import dataclasses
import json
from pathlib import Path

import pytest
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.settings.config import SITE_CONFIG_VARIABLE, JobConfig, SiteConfig
from tests.unit.flare.learning import Site
from tests.unit.flare.standin import Engine
from tests.unit.tiny import random_payload


@pytest.fixture(autouse=True, scope="session")
def serialisation() -> None:
    """FLARE's processes do this when they start."""
    nvflare_fobs_initialize()


@pytest.fixture
def contract(tiny_job: JobConfig) -> EgressContract:
    return EgressContract.for_job(tiny_job)


@pytest.fixture
def engine(tiny_job: JobConfig, tmp_path: Path) -> Engine:
    return Engine(tiny_job, tmp_path)


@pytest.fixture
def reply(contract: EgressContract) -> TrainReply:
    """A reply to round 0 that the contract allows."""
    metrics = {"train_loss": 0.5, "n_subjects": 6.0}
    return TrainReply(random_payload(contract), 6.0, 0, metrics, {"val_balanced_accuracy": 0.75})


@pytest.fixture
def configured(tiny_sites: dict[str, SiteConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site's configuration file, named by the environment variable."""
    path = tmp_path / "site_ge.json"
    path.write_text(json.dumps(dataclasses.asdict(tiny_sites["ge"]), default=str))
    monkeypatch.setenv(SITE_CONFIG_VARIABLE, str(tmp_path / "site_{site}.json"))
    return path


@pytest.fixture
def site(engine: Engine, tiny_job: JobConfig, configured: Path) -> Site:
    return Site(engine, tiny_job)
