"""One captured job for all tests that look at what reached the server."""

import pytest
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from med_duallora.egress import EgressContract
from med_duallora.flare.federation.verdict import COMPLETED
from med_duallora.site_kit.job_check import job_settings
from tests.integration.captured import Captured, with_capture
from tests.integration.harness import RunningFederation


@pytest.fixture(scope="session")
def captured(federation: RunningFederation, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Run a job whose server keeps every task result and every message."""
    nvflare_fobs_initialize()
    captures = tmp_path_factory.mktemp("captures")
    folder = federation.job(name="captured")
    contract = EgressContract.for_job(job_settings(folder))
    job = federation.run(with_capture(folder, captures))
    assert job.status == COMPLETED
    return Captured(job, contract, federation.fetch(job.job_id), captures)
