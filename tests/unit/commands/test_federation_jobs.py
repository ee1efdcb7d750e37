from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from med_duallora.commands.federation_jobs import kept_of_failed
from med_duallora.errors import FederationError
from med_duallora.flare.local.rehearsal.admin import Console
from med_duallora.flare.local.rehearsal.record import Federation


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return Federation(tmp_path, "", "p", 1, tmp_path / "kits", "server", ("siemens",), {})


def downloading(*files: str) -> Console:
    """A person who downloads these files of a job's result."""

    def download(job_id: str, into: Path) -> Path:
        for name in files:
            path = into / job_id / "workspace" / "app_server" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return into / job_id

    return cast(Console, SimpleNamespace(download=download))


def test_how_to_go_on_from_a_failed_job_is_said(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    kept_of_failed(federation, downloading("adapter_last.safetensors", "adapter_best.safetensors"), "7")
    place = federation.directory / "results" / "7"
    adapter = place / "workspace" / "app_server" / "adapter_last.safetensors"
    assert capsys.readouterr().out.splitlines() == [
        f"result, as far as the job got: {place}",
        f"to resume from its last finished round: the same command with --resume-from {adapter}",
    ]


def test_a_job_without_a_finished_round_leaves_nothing_to_go_on_from(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_of_failed(federation, downloading("log.txt"), "7")
    assert "--resume-from" not in capsys.readouterr().out


def test_a_result_that_does_not_come_hides_no_reason(
    federation: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_arguments: object) -> Path:
        raise FederationError("is there room?")

    kept_of_failed(federation, cast(Console, SimpleNamespace(download=nothing)), "7")
    assert capsys.readouterr().err == "nothing was downloaded of job 7: is there room?\n"
