"""Fixtures of whole FLARE runs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from med_duallora.flare.local import processes
from med_duallora.flare.local.rehearsal.rehearsal import Plan, down, up
from tests.conftest import REPOSITORY
from tests.integration.harness import PATIENCE_S, SITE_SETTINGS, SITES, RunningFederation

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="session")
def plan(tiny_cohorts: dict[str, Path], tiny_checkpoint: Path) -> MakePlan:
    """Make the plan of a federation of two sites in a directory."""

    def make(directory: Path, *settings: str) -> Plan:
        return Plan(
            directory=directory,
            project=REPOSITORY / "poc" / "project.yml",
            cohorts={site: tiny_cohorts[site] for site in SITES},
            backbone_checkpoint=tiny_checkpoint,
            site_settings=(*SITE_SETTINGS, *settings),
            timeout_s=PATIENCE_S,
        )

    return make


@pytest.fixture(scope="session")
def federation(plan: MakePlan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFederation]:
    """One federation for all tests of a worker: start it once, submit as many jobs as needed."""
    running = RunningFederation(
        up(plan(tmp_path_factory.mktemp("federation") / "up")), tmp_path_factory.mktemp("scratch")
    )
    try:
        yield running
    finally:
        down(running.federation, polite=False)
    assert processes.members(running.federation.identity) == [], "a process outlived its federation"
