"""Fixtures of the command tests."""

from pathlib import Path

import pytest

from tests.unit.report.conftest import coarse_pictures, server

__all__ = ["coarse_pictures", "server"]


@pytest.fixture
def arguments(tiny_cohorts: dict[str, Path], tiny_checkpoint: Path, tmp_path: Path) -> list[str]:
    """A small simulation of four sites in a new workspace."""
    data = tiny_cohorts["ge"].parent
    places = ["--data", str(data), "--workspace", str(tmp_path / "run"), "--backbone-checkpoint", str(tiny_checkpoint)]
    return ["simulate", *places, "--set", "backbone=cinema-tiny", "--set", "train.n_rounds=2"]
