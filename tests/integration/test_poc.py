"""FLARE's own proof of concept on one machine, as poc/README.md says: the package travels in the job."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import med_duallora
from med_duallora.flare.jobs.export import JOBS, export_job
from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.provision import read_project, rehearsed
from med_duallora.report import read_run
from med_duallora.settings.config import SITE_CONFIG_VARIABLE
from med_duallora.settings.policy import SitePolicy
from med_duallora.support.files import write_json
from tests.conftest import REPOSITORY
from tests.integration.harness import SETTINGS, SITES
from tests.integration.programs import N_TRIES, UNANSWERED

pytestmark = pytest.mark.flare

PATIENCE = "240"


@dataclass(frozen=True)
class Home:
    """A home directory of its own for FLARE's programs: whatever they started is gone after the test."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: object) -> str:
        """Run a program to its end and return what it printed; again where FLARE's server did not answer at once."""
        output = self.folder / "output.txt"  # a file: processes that stay would keep a pipe open
        for _ in range(N_TRIES):
            with output.open("w") as stream:
                done = subprocess.run(
                    list(map(str, command)),
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    timeout=400,
                    check=False,
                )
            if not done.returncode or UNANSWERED not in output.read_text():
                break
        assert done.returncode == 0, f"{command}: {output.read_text()}"
        return output.read_text()

    def nvflare(self, *arguments: object) -> str:
        return self.run(Path(sys.executable).parent / "nvflare", *arguments)

    def stop(self) -> None:
        """Stop the proof of concept.

        FLARE finds out whether it has ended by logging in again and again. A login that the server takes and does not
        live to answer is tried for 26 s, and then FLARE says that it waited too long. The processes tell the truth.
        """
        self.nvflare("poc", "stop")
        identity = self.environment[processes.MARK]
        processes.wait_until("stopping", lambda: not processes.members(identity), float(PATIENCE))


@pytest.fixture
def sites() -> tuple[str, ...]:
    return SITES


@pytest.fixture
def home(
    sites: tuple[str, ...], tmp_path: Path, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path
) -> Iterator[Home]:
    identity = processes.new_identity()
    for site in sites:
        places = {"data_dir": tiny_cohorts[site], "state_dir": tmp_path / site / "state", "cache_dir": tmp_path / site}
        places |= {"backbone_checkpoint": tiny_checkpoint}
        policy = dataclasses.asdict(SitePolicy.for_one_machine())
        values = {name: str(place) for name, place in places.items()} | {"device": "cpu", "policy": policy}
        write_json(tmp_path / "site_config" / f"{site}.json", values)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "NVFLARE_POC_WORKSPACE": str(tmp_path / "poc"),
        SITE_CONFIG_VARIABLE: str(tmp_path / "site_config" / "{site}.json"),
        processes.MARK: identity,
    }
    project = rehearsed(read_project(REPOSITORY / "poc" / "project.yml"), list(sites), processes.free_port())
    (tmp_path / "project.yml").write_text(yaml.safe_dump(project.values))
    yield Home(tmp_path, environment)
    processes.stop(identity)


def test_the_poc_of_the_readme(home: Home, tmp_path: Path) -> None:
    job = export_job(JOBS["poc"].with_overrides([*SETTINGS, "train.n_rounds=1"]), tmp_path / "jobs" / "poc")

    home.nvflare("poc", "prepare", "-i", "project.yml")
    home.nvflare("poc", "start", "--timeout", PATIENCE)
    found = re.search(r"job_id: (\S+)", home.nvflare("job", "submit", "-j", job, "--submit-token", "once"))
    assert found
    home.nvflare("job", "wait", found.group(1), "--timeout", PATIENCE)
    home.nvflare("job", "download", found.group(1), "-o", "results")
    home.stop()

    run = read_run(tmp_path / "results")
    assert [sorted(item.sites) for item in run.rounds] == [sorted(SITES)]


@pytest.mark.parametrize("environment", ["sim", "poc"])
@pytest.mark.parametrize("sites", [SITES[:1]], ids="-".join)  # in place of the fixture
def test_the_recipe_runs_in_flare_s_environments(
    environment: str, sites: tuple[str, ...], home: Home, tmp_path: Path
) -> None:
    code = Path(med_duallora.__file__).parents[1]
    arguments = (environment, tmp_path / "runs", code, tmp_path / "project.yml", ",".join(sites))
    said = home.run(sys.executable, "-m", "tests.integration.run_recipe", *arguments, *SETTINGS, "train.n_rounds=1")
    (place,) = re.findall(r"^result: (.*)$", said, re.MULTILINE)
    run = read_run(Path(place))
    assert [sorted(item.sites) for item in run.rounds] == [sorted(sites)]
    assert set(run.evaluation.sites) == set(sites)
