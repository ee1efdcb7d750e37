"""A signed job whose configuration reads the site: refused by the real server, and by the real sites."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.commands import federation_jobs
from tests.integration.harness import SITES, RunningFederation

pytestmark = pytest.mark.flare

CLIENT, SERVER = (f"config_fed_{side}.json" for side in ("client", "server"))


def with_reference(config: Path) -> None:
    text = config.read_text()
    assert text.count('"local_epochs": 1,') == 1
    config.write_text(text.replace('"local_epochs": 1,', '"local_epochs": "{{v_{$HOME}}}",'))


def with_hocon(config: Path) -> None:
    config.with_suffix(".conf").write_text('include file("/etc/hostname")')


@pytest.mark.parametrize("attack", [with_reference, with_hocon])
@pytest.mark.parametrize("who", [("server",), SITES], ids=["server", "sites"])
def test_a_job_that_reads_where_it_runs_is_deployed_nowhere(
    who: tuple[str, ...],
    attack: Callable[[Path], None],
    federation: RunningFederation,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # whoever attacks submits by a console that does not ask the kits first
    monkeypatch.setattr(federation_jobs, "check_taken", lambda *_: {})
    folder = federation.job(name="reading")
    shutil.copytree(folder / "app", folder / "app_server")
    (folder / "app" / "config" / SERVER).unlink()
    (folder / "app_server" / "config" / CLIENT).unlink()
    meta = json.loads((folder / "meta.json").read_text())
    meta["deploy_map"] = {"app_server": ["server"], "app": list(SITES)}
    (folder / "meta.json").write_text(json.dumps(meta))
    attack(folder / "app_server" / "config" / SERVER if who == ("server",) else folder / "app" / "config" / CLIENT)
    assert main(["federation", "submit", "--workspace", str(federation.directory), "--job", str(folder), "--wait"]) == 1
    error = capsys.readouterr().err
    for name in who:
        assert f"deployment, {name}: " in error
    assert error.count("refused: ") == len(who)
    assert "is not literal" in error or "none of the files of a job" in error
