"""Preflight of a server's kit: what is open before server-kit, nothing after, and every way to open it again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from med_duallora.cli import main
from med_duallora.errors import KitError
from med_duallora.site_kit import SERVER_CLASSES, inspect_kit
from med_duallora.site_kit.install import install_server
from med_duallora.site_kit.wanted import CONNECTION_GUARD, LITERAL_GUARD
from tests.unit.site_kit.conftest import provisioned

__all__ = ["provisioned"]


@pytest.fixture
def server_kit(provisioned: Path, tmp_path: Path) -> Path:
    """An untouched kit of the server, this test's own copy."""
    return Path(shutil.copytree(provisioned / "localhost", tmp_path / "server"))


@pytest.fixture
def prepared_kit(server_kit: Path, tmp_path: Path) -> Path:
    install_server(server_kit, tmp_path / "store")
    return server_kit


def open_ones(kit: Path) -> list[str]:
    return [channel.name for channel in inspect_kit(kit) if channel.is_open]


def change(kit: Path, name: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((kit / name).read_text())
    edit(values)
    (kit / name).write_text(json.dumps(values))


def test_an_untouched_kit_is_open(server_kit: Path) -> None:
    assert open_ones(server_kit) == [
        "files and environment variables of the server, read by references in a job's configuration",
        "job configurations in other formats than JSON at the server",
        "messages of a member in the server's or another member's name",
        "classes that a job may name at the server",
        "jobs and results in a folder that all servers of the machine share",
    ]


def test_a_prepared_one_is_closed_and_every_open_channel_has_a_fix(server_kit: Path, tmp_path: Path) -> None:
    for channel in inspect_kit(server_kit):
        assert channel.evidence and bool(channel.fix) == channel.is_open, channel
    install_server(server_kit, tmp_path / "store")
    assert open_ones(server_kit) == []


RESOURCES, SERVER = "local/resources.json", "startup/fed_server.json"
OPENED: list[tuple[str, str, Callable[[dict[str, Any]], Any], str]] = [
    ("no literal guard", RESOURCES, lambda v: v["components"].remove(LITERAL_GUARD), "references"),
    ("no connection guard", RESOURCES, lambda v: v["components"].remove(CONNECTION_GUARD), "in the server's or"),
    ("a class more", RESOURCES, lambda v: v["class_allow_list"].append("subprocess.Popen"), "classes"),
    ("our whole package", RESOURCES, lambda v: v["class_allow_list"].append("med_duallora."), "classes"),
    ("a class less", RESOURCES, lambda v: v["class_allow_list"].remove(SERVER_CLASSES[0]), "classes"),
    ("no list", RESOURCES, lambda v: v.pop("class_allow_list"), "classes"),
    ("only warnings", RESOURCES, lambda v: v.update(class_list_enforcement_mode="warn"), "classes"),
    ("unsigned jobs", SERVER, lambda v: v.update(require_signed_jobs=False), "nobody signed"),
    ("a connection in clear", SERVER, lambda v: v["servers"][0].update(connection_security="clear"), "listeners"),
]


@pytest.mark.parametrize("row", OPENED, ids=[row[0] for row in OPENED])
def test_every_way_to_open_it_is_seen(row, prepared_kit: Path) -> None:
    _, name, edit, words = row
    change(prepared_kit, name, edit)
    assert any(words in name for name in open_ones(prepared_kit))


def test_nor_is_a_missing_certificate_or_a_changed_start_script(prepared_kit: Path) -> None:
    (prepared_kit / "startup" / "rootCA.pem").unlink()
    script = prepared_kit / "startup" / "sub_start.sh"
    script.write_text(script.read_text().replace("secure_train=true", "secure_train=false"))
    assert open_ones(prepared_kit) == [
        "jobs that nobody signed, or that were changed on the way",
        "commands that nobody authorises",
    ]


def test_modes_are_found_and_server_kit_sets_them(prepared_kit: Path, tmp_path: Path, capsys) -> None:
    for name, mode in (("local", 0o777), ("startup/server.key", 0o640)):
        (prepared_kit / name).chmod(mode)
    assert open_ones(prepared_kit) == [
        "the kit changed by other accounts of this machine",
        "private keys of the kit read by other accounts of this machine",
    ]
    assert main(["server-kit", "--startup-kit", str(prepared_kit), "--storage", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "local: mode 777 -> 755" in said and "server.key: mode 640 -> 600" in said
    assert open_ones(prepared_kit) == []


def test_the_command_judges_it(server_kit: Path, tmp_path: Path, capsys) -> None:
    assert main(["preflight", "--startup-kit", str(server_kit)]) == 1
    assert "to close it: run med-duallora server-kit" in capsys.readouterr().out
    assert main(["server-kit", "--startup-kit", str(server_kit), "--storage", str(tmp_path / "store")]) == 0
    assert main(["preflight", "--startup-kit", str(server_kit)]) == 0
    assert "channels closed" in capsys.readouterr().out
    assert main(["preflight", "--startup-kit", str(server_kit), "--job", str(tmp_path)]) == 2
    assert "is the server's kit" in capsys.readouterr().err


def test_what_is_no_whole_kit_is_refused(server_kit: Path) -> None:
    change(server_kit, SERVER, lambda v: v.pop("servers"))
    with pytest.raises(KitError, match=r"not a server kit of FLARE 2\.9"):
        inspect_kit(server_kit)
    (server_kit / "local" / "resources.json.default").unlink()
    with pytest.raises(KitError, match="not complete"):
        inspect_kit(server_kit)
