"""Jobs that ran to their end once for all tests of a worker."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.site_kit.job_check import job_settings
from med_duallora.support.files import sha256_of_file
from tests.integration.captured import Captured, with_capture
from tests.integration.harness import PATIENCE_S, FinishedJob, RunningFederation
from tests.integration.programs import med_duallora, read_until, running


@dataclass(frozen=True)
class Submitted:
    """What ``federation submit --wait`` did with a job.

    Args:
        folder: the job folder that was submitted.
        code: exit code.
        text: what was printed.
        job: the job as another console saw it meanwhile.
    """

    folder: Path
    code: int
    text: str
    job: FinishedJob

    @property
    def result(self) -> Path:
        """The folder into which the command downloaded the result."""
        (place,) = re.findall(r"^result: (.*)$", self.text, re.MULTILINE)
        return Path(place)


@pytest.fixture(scope="session")
def submitted(federation: RunningFederation, tiny_checkpoint: Path) -> Submitted:
    """A production job of three rounds, submitted and followed by the command as a researcher gives it."""
    folder = federation.job(f"backbone_sha256={sha256_of_file(tiny_checkpoint)}")
    command = med_duallora("federation", "submit", "--workspace", federation.directory, "--job", folder, "--wait")
    with running(command) as program:
        said = read_until(program, " submitted by ")
        job = federation.wait(said.split()[1])
        rest, _ = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0, said + rest
    return Submitted(folder, program.returncode, said + rest, job)


@pytest.fixture(scope="session")
def finished(submitted: Submitted) -> FinishedJob:
    return submitted.job


@pytest.fixture(scope="session")
def result(submitted: Submitted) -> Path:
    return submitted.result


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
