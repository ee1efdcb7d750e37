import re
import subprocess
import sys
from pathlib import Path

import pytest

import med_duallora
from med_duallora.cli import build_parser, main
from med_duallora.flare.local.rehearsal.record import Federation
from tests.conftest import REPOSITORY

ACTIONS = ("up", "status", "submit", "monitor", "download", "abort", "down", "run")


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["federation", action, "--help"])
    assert stopped.value.code == 0
    assert "--workspace" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["status", "submit", "monitor", "download", "abort", "down"])
def test_a_directory_without_federation_is_bad_usage(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["federation", action, "--workspace", str(tmp_path)]) == 2
    assert "holds no federation" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["submit", "monitor", "download", "abort"])
def test_a_federation_whose_server_does_not_run_is_said_at_once(action: str, tmp_path: Path) -> None:
    """Nobody waits for a session with a server that is not there, nor for FLARE and torch to be imported."""
    federation = Federation(tmp_path, "mark", "p", 8002, tmp_path / "kits", "server", ("ge",), {"lead": "lead"})
    federation.write()
    run = f"main(['federation', '{action}', '--workspace', {str(tmp_path)!r}])"
    slow = "sorted({'nvflare', 'torch', 'sklearn'} & set(sys.modules))"
    code = f"import sys; from med_duallora.cli import main; print({run}, {slow})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n"
    assert f"the server of the federation in {tmp_path} does not run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--sites", "ge,toshiba"], "no prepared cohort .*toshiba", id="a site without data"),
        pytest.param(["--project", "nowhere.yml"], "no project file nowhere.yml", id="no project"),
        pytest.param(["--backbone-checkpoint", "nowhere"], "checkpoint nowhere does not exist", id="no checkpoint"),
        pytest.param(["--port", "70000"], "--port 70000", id="no port"),
        pytest.param(["--timeout", "0"], "--timeout 0", id="no patience"),
        pytest.param(["--site-set", "device=gpu"], "device = 'gpu'", id="wrong site setting"),
    ],
)
def test_wrong_arguments_are_bad_usage(
    arguments: list[str],
    message: str,
    tiny_cohorts: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = str(tiny_cohorts["ge"].parent)
    start = ["federation", "up", "--workspace", str(tmp_path / "here"), "--data", data]
    assert main([*start, *([] if "--sites" in arguments else ["--sites", "ge"]), *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error


def test_the_project_of_the_checkout_is_the_default(
    tiny_cohorts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the package is installed without its checkout, the command must be given in one."""
    site_packages = tmp_path / "lib" / "python3" / "site-packages" / "med_duallora"
    monkeypatch.setattr(med_duallora, "__file__", str(site_packages / "__init__.py"))
    command = ["federation", "up", "--workspace", str(tmp_path / "here"), "--data", str(tiny_cohorts["ge"].parent)]
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "there is no poc/project.yml" in error
    assert f"{tmp_path} is not a checkout; run the command in a checkout, or name a project file with" in error
    monkeypatch.chdir(REPOSITORY)
    assert main([*command, "--port", "70000"]) == 2
    assert "--port 70000" in capsys.readouterr().err, "the project file was found"


def test_up_inside_the_checkout_is_bad_usage(tiny_cohorts: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data = str(tiny_cohorts["ge"].parent)
    place = REPOSITORY / "runs" / "federation"
    assert main(["federation", "up", "--workspace", str(place), "--data", data]) == 2
    assert "private keys" in capsys.readouterr().err
    assert not place.exists()
