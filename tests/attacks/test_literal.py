"""Attacks by a job's configuration: references that read the site, other formats, and what is built in the end.

Every trick is first made in FLARE as it is, where it must succeed; then with the guard.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.workspace import Workspace
from nvflare.fuel.utils.config import ConfigFormat
from nvflare.fuel.utils.config_factory import ConfigFactory
from nvflare.private.fed.app.fl_app_validator import FLAppValidator
from nvflare.private.fed.client.client_json_config import ClientJsonConfigurator
from nvflare.private.fed.server.server_json_config import ServerJsonConfigurator
from nvflare.private.fed_json_config import FedJsonConfigurator

from med_duallora.errors import ConfigError
from med_duallora.flare.wire import literal_guard
from med_duallora.flare.wire.job import FederatedJob
from med_duallora.flare.wire.literal_guard import REPLACED, LiteralGuard, is_closed
from med_duallora.settings.config import JobConfig
from med_duallora.site_kit import harden
from med_duallora.site_kit.install import install_server
from med_duallora.site_kit.wanted import LITERAL_GUARD
from tests.attacks.configurations import (
    FILES,
    REFERENCES,
    SECRET,
    SERVER_REFERENCES,
    Json,
    changed,
    train,
    with_include,
)
from tests.conftest import REPOSITORY
from tests.unit.site_kit.conftest import provisioned

__all__ = ["provisioned"]

JOB_ID = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(autouse=True)
def open_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give other tests of this process FLARE's own functions back."""
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in REPLACED]
    own = [name in vars(owner) for owner, name, _ in REPLACED]
    monkeypatch.setattr(ConfigFactory, "_fmt2Loader", dict(ConfigFactory._fmt2Loader))
    monkeypatch.setenv("SITE_SECRET", "7")
    yield
    for (owner, name, inner), was_own in zip(kept, own, strict=True):
        if was_own:
            setattr(owner, name, inner)
        elif name in vars(owner):
            delattr(owner, name)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A deployed production job in the workspace of a site."""
    folder = tmp_path / JOB_ID / "app_siemens"
    (folder / "config").mkdir(parents=True)
    for name in ("config_fed_client.json", "config_fed_server.json"):
        (folder / "config" / name).write_text((REPOSITORY / "jobs/production/app/config" / name).read_text())
    return folder


def configurator(
    app: Path, kind: type[FedJsonConfigurator] = ClientJsonConfigurator, folder: str = "config"
) -> FedJsonConfigurator:
    """What the job process makes of a deployed job, up to the components; ``folder`` as the kit's start script says."""
    workspace = app.parent.parent
    for part in ("startup", "local"):
        (workspace / part).mkdir(exist_ok=True)
    args = Namespace(
        job_id=JOB_ID, client_name="siemens", workspace=str(workspace), sp_scheme="grpc", sp_target="localhost:8002"
    )
    name = "config_fed_client.json" if kind is ClientJsonConfigurator else "config_fed_server.json"
    site = Workspace(str(workspace), "siemens")
    found = kind(site, str(app / folder / name), args, str(app), ["secure_train=True"])
    assert isinstance(found, FedJsonConfigurator)
    return found


def built(
    app: Path, kind: type[FedJsonConfigurator] = ClientJsonConfigurator, folder: str = "config"
) -> FedJsonConfigurator:
    found = configurator(app, kind, folder)
    found.configure()
    return found


def settings_of(found: FedJsonConfigurator) -> JobConfig:
    job = found.components["job"]
    assert isinstance(job, FederatedJob)
    return job.settings


# --- they succeed in FLARE as it is ----------------------------------------------------------------------------------

SUCCEED = [
    (REFERENCES[1], 9),
    (REFERENCES[2], 11),
    (REFERENCES[3], 9),
    (REFERENCES[4], 9),
    (REFERENCES[5], 9),
]


@pytest.mark.parametrize(("attack", "n_epochs"), SUCCEED, ids=[row[0][0] for row in SUCCEED])
def test_without_the_guard_a_reference_decides_what_is_trained(attack: Any, n_epochs: int, app: Path) -> None:
    assert settings_of(built(changed(app, attack[1]))).train.local_epochs == n_epochs


def test_without_the_guard_an_environment_variable_is_the_experiment_s_name(app: Path) -> None:
    assert settings_of(built(changed(app, REFERENCES[0][1]))).experiment == "7"


@pytest.mark.parametrize(("label", "n_epochs"), [("NOR", 11), ("DCM", 12)])
def test_without_the_guard_a_job_reads_the_site_s_own_file(
    label: str, n_epochs: int, app: Path, tmp_path: Path
) -> None:
    own = tmp_path / "predictions.json"
    own.write_text(json.dumps({"predictions": [{"subject": "patient001", "label": label}]}))
    assert settings_of(built(with_include(app, own))).train.local_epochs == n_epochs


def test_without_the_guard_a_key_that_stands_twice_is_read_once(app: Path) -> None:
    FILES_BY_NAME["a setting twice"](app)
    assert settings_of(built(app)).train.local_epochs == 9


def test_without_the_guard_the_server_s_job_reads_the_server(app: Path) -> None:
    changed(app, SERVER_REFERENCES[2][1], "config_fed_server.json")
    assert settings_of(built(app, ServerJsonConfigurator)).train.local_epochs == 9


# --- and are refused, at deployment and in the job process -----------------------------------------------------------

FILES_BY_NAME = dict(FILES)
REFUSED = [*((name, lambda app, change=change: changed(app, change)) for name, change in REFERENCES), *FILES]


def deployed(app: Path, side: str = "client") -> str:
    """Ask the parent process, as FLARE's deployment does."""
    error, found = FLAppValidator(side).validate(str(app))
    assert not error or not found
    return error


def test_an_honest_job_is_deployed_and_built_as_before(app: Path) -> None:
    LiteralGuard()
    assert is_closed()
    (app / "config" / "resume_from.safetensors").write_bytes(b"adapter")
    (app / "config" / "resume_from.json").write_text('{"round": 1}')
    for folder in (app, app / "config"):
        (folder / ".__nvfl_sig.json").write_text("{}")
        (folder / ".__nvfl_submitter.crt").write_text("x")
    assert deployed(app) == deployed(app, "server") == ""
    assert settings_of(built(app)) == settings_of(built(app, ServerJsonConfigurator)) == JobConfig()


@pytest.mark.parametrize("kind", [ClientJsonConfigurator, ServerJsonConfigurator])
def test_a_kit_that_names_no_folder_builds_the_same(kind: type[FedJsonConfigurator], app: Path) -> None:
    """``nvflare package`` makes such kits; FLARE then takes the first file of that name below the app."""
    LiteralGuard()
    assert settings_of(built(app, kind, folder="")) == JobConfig()
    (app / "also").mkdir()
    for name in ("config_fed_client.json", "config_fed_server.json"):
        shutil.copy(app / "config" / name, app / "also" / name)
    with pytest.raises(ConfigError, match="none of the files of a job"):
        configurator(app, kind, folder="")


def test_the_manifest_of_a_carried_adapter_is_literal_as_well(app: Path) -> None:
    LiteralGuard()
    (app / "config" / "resume_from.json").write_text('{"round": "{$HOME}"}')
    assert deployed(app, "server").startswith("refused: ")


@pytest.mark.parametrize(("trick", "attack"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_not_literal_is_refused(trick: str, attack: Callable[[Path], object], app: Path) -> None:
    attack(app)
    LiteralGuard()
    assert deployed(app).startswith("refused: ")
    assert SECRET not in deployed(app)
    assert str(app) not in deployed(app)
    with pytest.raises(ConfigError):
        configurator(app)


@pytest.mark.parametrize(("trick", "change"), SERVER_REFERENCES, ids=[row[0] for row in SERVER_REFERENCES])
def test_what_is_not_literal_is_refused_at_the_server(trick: str, change: Callable[[Json], object], app: Path) -> None:
    changed(app, change, "config_fed_server.json")
    LiteralGuard()
    assert "is not literal" in deployed(app, "server")
    with pytest.raises(ConfigError, match="is not literal"):
        configurator(app, ServerJsonConfigurator)


def test_the_included_file_is_not_opened(app: Path, tmp_path: Path) -> None:
    own = tmp_path / "predictions.json"
    os.mkfifo(own)  # whoever opens it waits for ever
    with_include(app, own)
    LiteralGuard()
    assert "none of the files of a job" in deployed(app)
    with pytest.raises(ConfigError, match="none of the files of a job"):
        configurator(app)


def test_a_process_with_the_guard_knows_json_alone() -> None:
    LiteralGuard()
    assert set(ConfigFactory._fmt2Loader) == {ConfigFormat.JSON}
    assert ConfigFactory.get_config_loader(ConfigFormat.PYHOCON) is None


def test_a_job_that_changed_between_reading_and_building_is_refused(app: Path) -> None:
    LiteralGuard()
    found = configurator(app)
    train(found.config_data)["local_epochs"] = 9
    with pytest.raises(ConfigError, match="what FLARE would build is not what was signed"):
        found.configure()
    assert found.components == {}


def test_a_job_that_is_built_with_other_settings_is_refused(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LiteralGuard()
    inner = FederatedJob.__init__

    def other(self: FederatedJob, config: Json) -> None:
        inner(self, {**config, "experiment": "another"})

    monkeypatch.setattr(FederatedJob, "__init__", other)
    with pytest.raises(ConfigError, match="the job's settings is not what was signed"):
        built(app)


# --- the guard itself ------------------------------------------------------------------------------------------------


def test_a_second_guard_changes_nothing(app: Path) -> None:
    LiteralGuard()
    before = [getattr(owner, name) for owner, name, _ in REPLACED]
    LiteralGuard()
    assert [getattr(owner, name) for owner, name, _ in REPLACED] == before


def test_an_unknown_version_of_flare_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.10.0")
    with pytest.raises(UnsafeComponentError, match=r"how nvflare 2\.10\.0 reads a job is not known"):
        LiteralGuard()


def test_a_flare_without_the_place_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(literal_guard, "REPLACED", ((FedJsonConfigurator, "gone", lambda inner: inner),))
    with pytest.raises(UnsafeComponentError, match=r"has no FedJsonConfigurator\.gone"):
        LiteralGuard()


STARTED = """
import sys
from argparse import Namespace
from nvflare.apis.workspace import Workspace
from nvflare.private.fed.app.fl_conf import FLClientStarterConfiger, FLServerStarterConfiger
from med_duallora.flare.wire.literal_guard import is_closed
kit, side, job_id = sys.argv[1:]
args = Namespace(job_id=job_id or None, workspace=kit, sp_scheme="grpc", sp_target="localhost:8002", set=[],
                 parent_url="tcp://localhost:1", parent_conn_sec="clear")
before = is_closed()
kind = FLServerStarterConfiger if side == "server" else FLClientStarterConfiger
kind(Workspace(kit, side), args, ["uid=siemens", "secure_train=true", "org=clinic_a"]).configure()
print(before, is_closed())
"""
"""What FLARE's programs do first with a kit: the parent process, and a job process before it reads its job."""


@pytest.mark.parametrize("job_id", ["", JOB_ID], ids=["parent process", "job process"])
@pytest.mark.parametrize("side", ["siemens", "server"])
def test_every_process_of_a_kit_has_the_guard(side: str, job_id: str, provisioned: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(provisioned / ("localhost" if side == "server" else side), tmp_path / side))
    if side == "server":
        install_server(kit, tmp_path / "store")
    else:
        harden(kit)
    command = [sys.executable, "-c", STARTED, str(kit), side, job_id]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split()[-2:] == ["False", "True"], done.stdout + done.stderr


def test_the_guard_s_path_leads_to_it() -> None:
    assert LITERAL_GUARD["path"] == f"{LiteralGuard.__module__}.{LiteralGuard.__qualname__}"
