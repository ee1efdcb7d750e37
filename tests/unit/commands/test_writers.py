"""A place that cannot be written, for every command that writes: one sentence, never a traceback, nothing half-written.

The commands come from the command line itself: a new one fails here until it has a row in ``writers``.
"""

import contextlib
import os
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.commands import federation_jobs
from med_duallora.flare.local.rehearsal import rehearsal, running
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.record import Federation
from tests.conftest import disk_of
from tests.unit.commands.writers import READERS, SUBJECTS, WRITERS, World, commands
from tests.unit.flare.local.conftest import kits, project
from tests.unit.inference.conftest import Trained, trained

__all__ = ["kits", "project", "trained"]


def test_no_command_is_forgotten() -> None:
    """A command that writes has a row in WRITERS, another one a reason in READERS; an option more is a row more."""
    rows = {name.partition(" --")[0] for name in WRITERS}
    assert sorted(commands()) == sorted(rows | set(READERS))
    assert not rows & set(READERS)


@pytest.fixture
def world(tiny_cohorts: dict[str, Path], server: Path, kits: Path, trained: Trained, tmp_path: Path) -> World:
    data = tmp_path / "data"
    data.mkdir()
    for site, cohort in tiny_cohorts.items():
        (data / site).symlink_to(cohort)
    lines = ["subject,ed,es,pathology,vendor,centre"]
    for index in range(SUBJECTS):
        name = f"ge{index:03d}"
        images = [f"ge/{name}/{name}_sax_{phase}.nii.gz" for phase in ("ed", "es")]
        lines.append(",".join([f"s{index}", *images, "DCM" if index % 2 else "NOR", "ge", "here"]))
    (data / "table.csv").write_text("\n".join(lines) + "\n")
    return World(data, tmp_path / "workspace", kits, trained)


class Session:
    """FLARE's session with a server that has one finished job, of some size."""

    def download_job_result(self, job_id: str, into: str) -> str:
        (Path(into) / job_id).mkdir()
        (Path(into) / job_id / "result").write_bytes(bytes(4096))
        return str(Path(into) / job_id)

    def list_jobs(self, **_: object) -> list[dict[str, str]]:
        return [{"job_id": "1"}]


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started, also no worker, and whoever submits or downloads finds a server."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(rehearsal, "start_one", lambda *_: pytest.fail("a process was to be started"))
    monkeypatch.setattr(running, "running", Federation.read)
    monkeypatch.setattr(federation_jobs, "console", lambda _: contextlib.nullcontext(Console(Session(), "lead")))


def said(name: str, place: Path, world: World, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Run a command and return its exit code and the lines that it said on standard error."""
    code = main([str(argument) for argument in WRITERS[name].arguments(place, world)])
    return code, capsys.readouterr().err.splitlines()


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_place_is_said(
    name: str, world: World, tmp_path: Path, bound_by_modes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    WRITERS[name].before(place, world)
    before = files(place)
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        code, lines = said(name, place, world, capsys)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("med-duallora ")
    assert str(place) in lines[-1]
    assert files(place) == before
    assert code == WRITERS[name].code


@pytest.mark.parametrize("name", [name for name, row in WRITERS.items() if row.before.__name__ == "_nothing"])
def test_a_place_below_a_file_is_said(
    name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    code, lines = said(name, tmp_path / "file" / "place", world, capsys)
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("med-duallora ")
    assert str(tmp_path / "file") in lines[-1]
    assert (tmp_path / "file").read_text() == "in the way"
    assert code in (1, 2)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_place_is_said(name: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    WRITERS[name].before(place, world)
    before = files(place)
    with disk_of(WRITERS[name].limit):
        code, lines = said(name, place, world, capsys)
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("med-duallora ")
    assert "File too large" in lines[-1] or "room" in lines[-1]
    assert str(place) in lines[-1] or name == "jobs check", "its jobs are made elsewhere first"
    left = {path: content for path, content in files(place).items() if path not in WRITERS[name].leaves}
    assert left == before
    assert code == WRITERS[name].code
