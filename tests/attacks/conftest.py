"""One trained site for all attacks: its state is only read."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize
from nvflare.security.logging import SECURE_LOGGING_VAR_NAME

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.runtime import SiteRuntime
from tests.attacks.harness import SITE, SiteProcess
from tests.attacks.tricks import SUBJECT


@pytest.fixture(autouse=True, scope="session")
def serialisation() -> None:
    """FLARE's processes do this when they start."""
    nvflare_fobs_initialize()


@pytest.fixture
def loud() -> None:
    """Asked for by tests whose attacker writes the secret into the site's own log: that is not what they test."""


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest, caplog, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No log record of an attack may tell the secret; FLARE logs as at a closed site, see ``ConsoleGuard``."""
    monkeypatch.setenv(SECURE_LOGGING_VAR_NAME, "true")
    caplog.set_level(logging.INFO)
    yield
    if "loud" not in request.fixturenames:
        records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
        told = [record for record in records if SUBJECT in logging.Formatter().format(record)]
        assert not told, f"{told[0].name} wrote into the log: {told[0].getMessage()}"


@pytest.fixture(scope="session")
def attacked_job() -> JobConfig:
    settings = [
        "experiment=attack",
        "train.n_rounds=3",
        "train.compare_alone=false",
        "train.local_epochs=1",
        "train.batch_size=4",
        "train.n_views=0",
    ]
    return JobConfig(backbone="cinema-tiny").with_overrides(settings)


@pytest.fixture(scope="session")
def contract(attacked_job: JobConfig) -> EgressContract:
    return EgressContract.for_job(attacked_job)


@pytest.fixture(scope="session")
def trained(attacked_job, tiny_cohorts, tiny_checkpoint, tmp_path_factory) -> tuple[SiteRuntime, TrainReply]:
    """A site after round 1, and the honest reply that it would give."""
    home = tmp_path_factory.mktemp("site")
    config = SiteConfig(
        data_dir=tiny_cohorts[SITE],
        state_dir=home / "state",
        cache_dir=home / "cache",
        backbone_checkpoint=tiny_checkpoint,
        device="cpu",
        policy=SitePolicy(min_subjects=1, min_train_subjects=6),
    )
    runtime = SiteRuntime(SITE, attacked_job, config)
    state = initial_global_state(attacked_job)
    runtime.train_round(state, 0)
    initial = runtime.validate(state, 1)
    update = runtime.train_round(state, 1)
    return runtime, TrainReply(update.tensors, update.weight, 1, update.metrics, initial)


@pytest.fixture
def site_files(trained, tmp_path: Path) -> tuple[Path, Path]:
    """The site's configuration file and its ledger; both are this test's own."""
    runtime, _ = trained
    ledger = tmp_path / "egress_ledger.jsonl"
    values = {
        "data_dir": str(runtime.cohort.directory),
        "state_dir": str(tmp_path / "state"),
        "cache_dir": str(tmp_path / "cache"),
        "ledger": str(ledger),
        "policy": dataclasses.asdict(runtime.policy),
    }
    path = tmp_path / "site.json"
    path.write_text(json.dumps(values))
    return path, ledger


@pytest.fixture
def process(trained, attacked_job: JobConfig, site_files) -> Callable[..., SiteProcess]:
    """Start a job process of the hardened site; arguments change what the job brings."""

    def start(**changes: Any) -> SiteProcess:
        properties = {"med_duallora_site_config": str(site_files[0])}
        values = {"job": attacked_job, "runtime": trained[0], "scope_properties": properties}
        return SiteProcess(**{**values, **changes})

    return start
