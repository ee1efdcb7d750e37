"""What a malicious job's configuration tries: references in FLARE's words, and files that FLARE would read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Change = Callable[[Json], object]
SECRET = "NOR"
"""The label of a patient, as the site's own file of predictions has it."""


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


def with_include(app: Path, place: Path) -> Path:
    """HOCON that includes the site's own file, and counts epochs by a patient's label."""
    text = (app / CLIENT).read_text().replace('"local_epochs": 2', '"local_epochs": "{{v_{predictions[0][label]}}}"')
    (app / CLIENT).unlink()
    first, rest = text.split("{", 1)
    included = f'{first}{{ include file("{place}"), "v_NOR": 11, "v_DCM": 12,{rest}'
    (app / "config" / "config_fed_client.conf").write_text(included)
    return app
