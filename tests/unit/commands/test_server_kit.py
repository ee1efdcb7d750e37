import json
import shutil
from pathlib import Path

import pytest

from med_duallora.cli import main
from tests.unit.flare.local.conftest import kits, project

__all__ = ["kits", "project"]


def test_a_server_kit_is_prepared(kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = Path(shutil.copytree(kits / "fl-server.example.org", tmp_path / "server"))
    assert main(["server-kit", "--startup-kit", str(kit), "--storage", str(tmp_path / "store")]) == 0
    written = Path(capsys.readouterr().out.splitlines()[0].removeprefix("written: "))
    assert (
        "med_duallora.flare.server.aggregator.DualLoRAAggregator" in json.loads(written.read_text())["class_allow_list"]
    )


def test_another_kit_is_refused(kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = Path(shutil.copytree(kits / "ge", tmp_path / "ge"))
    assert main(["server-kit", "--startup-kit", str(kit), "--storage", str(tmp_path)]) == 2
    assert "not a server kit of FLARE 2.9" in capsys.readouterr().err


def test_a_kit_that_flare_cannot_start_jobs_from_is_refused(
    kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = Path(shutil.copytree(kits / "fl-server.example.org", tmp_path / "my server"))
    assert main(["server-kit", "--startup-kit", str(kit), "--storage", str(tmp_path / "store")]) == 2
    assert "the startup kit" in (error := capsys.readouterr().err) and "has a blank in it" in error
    assert not (kit / "local" / "resources.json").exists()


def test_a_second_time_there_is_nothing_to_do(kits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = Path(shutil.copytree(kits / "fl-server.example.org", tmp_path / "server"))
    command = ["server-kit", "--startup-kit", str(kit), "--storage", str(tmp_path / "store")]
    assert main(command) == 0
    before = (kit / "local" / "resources.json").read_bytes()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out == f"{kit}: nothing to do\n"
    assert (kit / "local" / "resources.json").read_bytes() == before
