"""Real startup kits of the project in poc/, and kits whose processes only sleep."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.provision import Project, provision, read_project, rehearsed
from med_duallora.flare.local.rehearsal.record import Federation
from med_duallora.flare.local.rehearsal.rehearsal import start_one
from tests.conftest import REPOSITORY

SLEEPS = "#!/usr/bin/env bash\nsetsid sleep 300 &\nexec sleep 300\n"
"""Like FLARE's processes: a child moves to a session of its own, and nobody ends it when the parent ends."""


@pytest.fixture(scope="session")
def project() -> Project:
    return read_project(REPOSITORY / "poc" / "project.yml")


@pytest.fixture(scope="session")
def kits(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kits of poc/project.yml with two sites; treat as read-only."""
    return provision(rehearsed(project, ["siemens", "ge"], 8123), tmp_path_factory.mktemp("provisioned"))


@pytest.fixture
def sleeping_kit(tmp_path: Path) -> Callable[..., Path]:
    """Make a kit whose start script runs the given text."""

    def make(name: str = "siemens", script: str = SLEEPS) -> Path:
        path = tmp_path / "kits" / name / "startup" / "sub_start.sh"
        path.parent.mkdir(parents=True)
        path.write_text(script)
        return path.parents[1]

    return make


@pytest.fixture
def identity() -> Iterator[str]:
    """An identity whose processes are gone after the test, whatever happened in it."""
    value = processes.new_identity()
    yield value
    processes.stop(value, grace_s=1.0)


@pytest.fixture
def asleep(sleeping_kit: Callable[..., Path], identity: str, tmp_path: Path) -> Federation:
    """A federation whose processes only sleep."""
    for name in ("server", "siemens"):
        sleeping_kit(name)
    federation = Federation(
        directory=tmp_path,
        identity=identity,
        project="p",
        port=processes.free_port(),
        kits=tmp_path / "kits",
        server="server",
        sites=("siemens",),
        people={"admin@x": "project_admin"},
    )
    for name in federation.participants():
        federation = start_one(federation, name)
    # each kit's script starts a sleeper of its own, a moment later
    processes.wait_until("starting", lambda: len(processes.members(identity)) == 4, 60, 0.02)
    return federation
