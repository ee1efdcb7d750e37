"""Attacks by a job's configuration: references that read the site, other formats, and what is built in the end.

Every trick is first made in FLARE as it is, where it must succeed; then with the guard.
"""

import importlib.metadata
import json
import os
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
from med_duallora.site_kit.wanted import LITERAL_GUARD
from tests.conftest import REPOSITORY

Json = dict[str, Any]
SECRET = "NOR"
"""The label of a patient, as the site's own file of predictions has it."""
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


def changed(app: Path, change: Callable[[Json], object], name: str = "config_fed_client.json") -> Path:
    path = app / "config" / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    return app


def train(values: Json) -> Json:
    settings = next(item for item in values["components"] if item["id"] == "job")["args"]["config"]["train"]
    assert isinstance(settings, dict)
    return settings


def configurator(app: Path, kind: type[FedJsonConfigurator] = ClientJsonConfigurator) -> FedJsonConfigurator:
    """What the job process makes of a deployed job, up to the components."""
    workspace = app.parent.parent
    for part in ("startup", "local"):
        (workspace / part).mkdir(exist_ok=True)
    args = Namespace(
        job_id=JOB_ID, client_name="siemens", workspace=str(workspace), sp_scheme="grpc", sp_target="localhost:8002"
    )
    name = "config_fed_client.json" if kind is ClientJsonConfigurator else "config_fed_server.json"
    site = Workspace(str(workspace), "siemens")
    found = kind(site, str(app / "config" / name), args, str(app), ["secure_train=True"])
    assert isinstance(found, FedJsonConfigurator)
    return found


def built(app: Path, kind: type[FedJsonConfigurator] = ClientJsonConfigurator) -> FedJsonConfigurator:
    found = configurator(app, kind)
    found.configure()
    return found


def settings_of(found: FedJsonConfigurator) -> JobConfig:
    job = found.components["job"]
    assert isinstance(job, FederatedJob)
    return job.settings


# --- the tricks ------------------------------------------------------------------------------------------------------


def lookup(values: Json) -> None:
    """The site's own file is carried in the job here; on a site, HOCON's ``include file`` reads it (see below)."""
    values["predictions"] = [{"subject": "patient001", "label": SECRET}]
    values |= {"v_NOR": 11, "v_DCM": 12, "v_HCM": 13}
    train(values)["local_epochs"] = "{{v_{predictions[0][label]}}}"


def _of_train(name: str, value: object) -> Callable[[Json], object]:
    return lambda values: train(values).update({name: value})


def _table(values: Json) -> None:
    values["v_7"] = 9
    train(values)["local_epochs"] = "{{v_{$SITE_SECRET}}}"


def _chain(values: Json) -> None:
    values |= {"one": "{two}", "two": "{three}", "three": 9}
    train(values)["local_epochs"] = "{one}"


def _dict(values: Json) -> None:
    values["whole"] = {**train(values), "local_epochs": 9}
    next(item for item in values["components"] if item["id"] == "job")["args"]["config"]["train"] = "{whole}"


def _parameters(values: Json) -> None:
    values["@made"] = {**train(values), "local_epochs": "{n}"}
    next(item for item in values["components"] if item["id"] == "job")["args"]["config"]["train"] = "{@made:n=9}"


REFERENCES: list[tuple[str, Callable[[Json], object]]] = [
    ("an environment variable as the experiment's name", lambda v: _job(v).update(experiment="{$SITE_SECRET}")),
    ("an environment variable in a table of values", _table),
    ("a label of a patient as a number of epochs", lookup),
    ("a reference to a reference to a reference", _chain),
    ("a whole group of settings by reference", _dict),
    ("a definition with parameters", _parameters),
    ("the path of the workspace as the experiment's name", lambda v: _job(v).update(experiment="{WORKSPACE}")),
    ("the path of the workspace inside a text", lambda v: _job(v).update(experiment="x{WORKSPACE}")),
    ("an attribute of a value", lambda v: v.update(note="{SITE_NAME.__class__}")),
    (
        "the site's name in an argument of the executor",
        lambda v: v["executors"][0]["executor"]["args"].update(learner_id="{SITE_NAME}"),
    ),
    (
        "a reference in an argument of a filter",
        lambda v: v["task_result_filters"][0]["filters"][0]["args"].update(x="{WORKSPACE}"),
    ),
    ("a reference in the path of a class", lambda v: v["components"][1].update(path="{SITE_NAME}.x.Y")),
    ("a reference in a list of tasks", lambda v: v["executors"][0]["tasks"].append("{JOB_ID}")),
    ("a reference in a top-level value", lambda v: v.update(default_task_fetch_interval="{$SITE_SECRET}")),
    ("a secret of the launcher", lambda v: v.update(note="${secret:token}")),
    ("a shell's variable", lambda v: v.update(note="$HOME")),
    ("a reference in a key", lambda v: v.update({"{WORKSPACE}": 1})),
    ("a definition that nobody calls", lambda v: v.update({"@later": {"path": "x"}})),
    ("doubled braces, which formatting takes away", lambda v: v.update(note="{{plain}}")),
    ("closing braces alone", lambda v: v.update(note="}}")),
]
SERVER_REFERENCES: list[tuple[str, Callable[[Json], object]]] = [
    ("an environment variable in a workflow", lambda v: v["workflows"][0]["args"].update(num_rounds="{$SITE_SECRET}")),
    ("the server's path in an argument of a component", lambda v: v["components"][4]["args"].update(x="{WORKSPACE}")),
    ("an environment variable in the server's settings of the job", _table),
]


def _job(values: Json) -> Json:
    config = next(item for item in values["components"] if item["id"] == "job")["args"]["config"]
    assert isinstance(config, dict)
    return config


def _file(name: str, text: str, gone: str = "") -> Callable[[Path], object]:
    def put(app: Path) -> None:
        if gone:
            (app / gone).unlink()
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)

    return put


CLIENT = "config/config_fed_client.json"


def _linked(app: Path) -> None:
    (app / CLIENT).rename(app.parent / "elsewhere.json")
    (app / CLIENT).symlink_to(app.parent / "elsewhere.json")


def _linked_folder(app: Path) -> None:
    (app / "config").rename(app.parent / "elsewhere")
    (app / "config").symlink_to(app.parent / "elsewhere")


def _text(change: Callable[[str], str], encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda app: (app / CLIENT).write_bytes(change((app / CLIENT).read_text()).encode(encoding))


FILES: list[tuple[str, Callable[[Path], object]]] = [
    ("HOCON alone", _file("config/config_fed_client.conf", "format_version = 2", CLIENT)),
    ("HOCON beside the JSON", _file("config/config_fed_client.conf", "format_version = 2")),
    (
        "HOCON that includes a file of the site",
        _file("config/config_fed_client.conf", 'include file("/etc/hostname")', CLIENT),
    ),
    (
        "HOCON that includes an address",
        _file("config/config_fed_client.conf", 'include url("http://127.0.0.1:9/x")', CLIENT),
    ),
    ("HOCON with an environment variable", _file("config/config_fed_client.conf", "x = ${SITE_SECRET}", CLIENT)),
    ("HOCON by another name of it", _file("config/config_fed_client.CONF", "x = 1")),
    ("YAML", _file("config/config_fed_client.yml", "x: 1", CLIENT)),
    ("YAML with the long ending", _file("config/config_fed_client.yaml", "x: ${oc.env:SITE_SECRET}", CLIENT)),
    ("a default", _file("config/config_fed_client.json.default", "{}", CLIENT)),
    ("a default in HOCON", _file("config/config_fed_client.conf.default", "x = 1", CLIENT)),
    ("a default in YAML", _file("config/config_fed_client.yaml.default", "x: 1", CLIENT)),
    ("the JSON in a folder below", _file("config/below/config_fed_client.json", "{}", CLIENT)),
    ("the JSON beside the folder config", _file("config_fed_client.json", "{}", CLIENT)),
    ("the server's configuration in HOCON", _file("config/config_fed_server.conf", "x = 1")),
    ("settings of FLARE's network", _file("config/comm_config.json", '{"max_message_size": 1}')),
    ("settings of FLARE's log", _file("config/log_config.json", "{}")),
    ("a privacy policy of its own", _file("local/privacy.json", "{}")),
    ("code beside the folder for code", _file("config/custom/x.py", "import os")),
    ("settings in a folder for code that is none", _file("below/custom/comm_config.json", "{}")),
    ("any other file", _file("config/notes.txt", "x")),
    ("a link in place of the JSON", _linked),
    ("a link in place of the folder", _linked_folder),
    ("a key twice", _text(lambda t: t.replace('"format_version": 2,', '"format_version": 2, "format_version": 2,'))),
    ("a setting twice", _text(lambda t: t.replace('"local_epochs": 2,', '"local_epochs": 2, "local_epochs": 9,'))),
    ("braces written as numbers", _text(lambda t: t.replace('"demo"', '"\\u007bWORKSPACE\\u007d"'))),
    ("another encoding", _text(lambda t: t, "utf-16")),
    ("a mark of the encoding", _text(lambda t: "\ufeff" + t)),
    ("NaN", _text(lambda t: t.replace('"lr": 0.005', '"lr": NaN'))),
    ("a number beyond all numbers", _text(lambda t: t.replace('"lr": 0.005', '"lr": 1e999'))),
    ("a list in place of an object", _text(lambda _: "[]")),
    ("no JSON", _text(lambda _: "{")),
    ("lists in lists in lists", _text(lambda t: t.replace('"format_version": 2', '"x": ' + "[" * 5000 + "]" * 5000))),
]


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


def with_include(app: Path, place: Path) -> Path:
    """HOCON that includes the site's own file, and counts epochs by a patient's label."""
    text = (app / CLIENT).read_text().replace('"local_epochs": 2', '"local_epochs": "{{v_{predictions[0][label]}}}"')
    (app / CLIENT).unlink()
    first, rest = text.split("{", 1)
    included = f'{first}{{ include file("{place}"), "v_NOR": 11, "v_DCM": 12,{rest}'
    (app / "config" / "config_fed_client.conf").write_text(included)
    return app


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
    for folder in (app, app / "config"):
        (folder / ".__nvfl_sig.json").write_text("{}")
        (folder / ".__nvfl_submitter.crt").write_text("x")
    assert deployed(app) == deployed(app, "server") == ""
    assert settings_of(built(app)) == settings_of(built(app, ServerJsonConfigurator)) == JobConfig()


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


def test_the_guard_s_path_leads_to_it() -> None:
    assert LITERAL_GUARD["path"] == f"{LiteralGuard.__module__}.{LiteralGuard.__qualname__}"
