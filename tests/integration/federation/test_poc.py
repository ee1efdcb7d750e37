"""FLARE's own proof of concept on one machine, as poc/README.md says: the package travels in the job."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from med_duallora.config import SITE_CONFIG_VARIABLE
from med_duallora.files import write_json
from med_duallora.flare.export import JOBS, export_job
from med_duallora.flare.federation import processes
from med_duallora.flare.federation.provision import read_project, rehearsed
from med_duallora.report import read_run
from tests.conftest import REPOSITORY
from tests.integration.harness import SETTINGS, SITES

pytestmark = [pytest.mark.flare, pytest.mark.xdist_group("federation")]

Nvflare = Callable[..., str]
PATIENCE = "240"


@pytest.fixture
def nvflare(tmp_path: Path, tiny_cohorts: dict[str, Path], tiny_checkpoint: Path) -> Iterator[Nvflare]:
    """FLARE's command line with a home of its own; whatever it started is gone after the test."""
    identity = processes.new_identity()
    for site in SITES:
        places = {"data_dir": tiny_cohorts[site], "state_dir": tmp_path / site / "state", "cache_dir": tmp_path / site}
        places |= {"backbone_checkpoint": tiny_checkpoint}
        values = {name: str(place) for name, place in places.items()} | {"device": "cpu"}
        write_json(tmp_path / "site_config" / f"{site}.json", values)
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "NVFLARE_POC_WORKSPACE": str(tmp_path / "poc"),
        SITE_CONFIG_VARIABLE: str(tmp_path / "site_config" / "{site}.json"),
        processes.MARK: identity,
    }

    def run(*arguments: object) -> str:
        output = tmp_path / "output.txt"  # a file: processes that stay would keep a pipe open
        with output.open("w") as stream:
            done = subprocess.run(
                [programs / "nvflare", *map(str, arguments)],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=400,
                check=False,
            )
        assert done.returncode == 0, f"nvflare {arguments}: {output.read_text()}"
        return output.read_text()

    yield run
    processes.stop(identity)


def test_the_poc_of_the_readme(nvflare: Nvflare, tmp_path: Path) -> None:
    project = rehearsed(read_project(REPOSITORY / "poc" / "project.yml"), list(SITES), processes.free_port())
    (tmp_path / "project.yml").write_text(yaml.safe_dump(project.values))
    job = export_job(JOBS["poc"].with_overrides([*SETTINGS, "train.n_rounds=1"]), tmp_path / "jobs" / "poc")

    nvflare("poc", "prepare", "-i", "project.yml")
    nvflare("poc", "start", "--timeout", PATIENCE)
    found = re.search(r"job_id: (\S+)", nvflare("job", "submit", "-j", job))
    assert found
    nvflare("job", "wait", found.group(1), "--timeout", PATIENCE)
    nvflare("job", "download", found.group(1), "-o", "results")
    nvflare("poc", "stop")

    run = read_run(tmp_path / "results")
    assert [sorted(item.sites) for item in run.rounds] == [sorted(SITES)]
