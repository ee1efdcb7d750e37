"""Real startup kits, made by FLARE's own provisioning."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import write_tiny_cohort

PROJECT = """
api_version: 3
name: cmr
description: four scanner vendors
participants:
  - {name: localhost, type: server, org: centre, fed_learn_port: 8102, admin_port: 8103}
  - {name: siemens, type: client, org: clinic_a}
  - {name: lead@centre.org, type: admin, org: centre, role: lead}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {config_folder: config, scheme: grpc}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
"""


@pytest.fixture(scope="session")
def provisioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all kits of one small federation, as FLARE 2.9 makes them."""
    folder = tmp_path_factory.mktemp("provisioned")
    (folder / "project.yml").write_text(PROJECT)
    nvflare = Path(sys.executable).with_name("nvflare")
    command = [nvflare, "provision", "-p", "project.yml", "-w", "kits"]
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "kits" / "cmr" / "prod_00"


@pytest.fixture
def site_kit(provisioned: Path, tmp_path: Path) -> Path:
    """An untouched kit of the site siemens, this test's own copy."""
    return Path(shutil.copytree(provisioned / "siemens", tmp_path / "siemens"))


def places(folder: Path) -> dict[str, str]:
    """Return places of a site's configuration that can be used: a cohort is there."""
    cohort = folder / "cohort"
    if not cohort.exists():
        write_tiny_cohort(cohort, "siemens", seed=0, n_subjects=14, n_by_split=(10, 2, 2))
    return {"data_dir": str(cohort), "state_dir": str(folder / "state"), "cache_dir": str(folder / "cache")}
