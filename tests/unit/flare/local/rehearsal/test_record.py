import json
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.errors import FederationError, InputError
from med_duallora.flare.local.rehearsal.record import RECORD, Federation, StartedProcess, private_directory
from tests.conftest import REPOSITORY


def some(directory: Path) -> Federation:
    return Federation(
        directory=directory,
        identity="0" * 32,
        project="med-duallora",
        port=8123,
        kits=directory / "provision" / "prod_00",
        server="fl-server.example.org",
        sites=("siemens", "ge"),
        people={"lead@example.org": "lead"},
        processes=(StartedProcess("siemens", 7, 1.5),),
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    some(tmp_path).write()
    assert Federation.read(tmp_path) == some(tmp_path)


def test_only_the_owner_reads_a_record(tmp_path: Path) -> None:
    some(tmp_path).write()
    assert stat.S_IMODE((tmp_path / RECORD).stat().st_mode) == 0o600


def test_a_directory_without_record_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="federation up --workspace"):
        Federation.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("{", id="no JSON"),
        pytest.param("[]", id="no object"),
        pytest.param("{}", id="empty"),
        pytest.param(json.dumps({"processes": [{"pid": 1}], "kits": "x", "sites": []}), id="process without name"),
        pytest.param(json.dumps({"processes": [], "kits": "x", "sites": [], "colour": 1}), id="unknown key"),
    ],
)
def test_a_damaged_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(InputError, match="cannot be read"):
        Federation.read(tmp_path)


def test_a_process_started_again_replaces_the_old_one(tmp_path: Path) -> None:
    again = StartedProcess("siemens", 8, 2.5)
    assert some(tmp_path).with_process(again).processes == (again,)
    assert len(some(tmp_path).with_process(replace(again, name="ge")).processes) == 2


def test_a_missing_kit_is_said(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"startup kit .*ge is missing"):
        some(tmp_path).kit("ge")


def test_a_missing_role_is_said(tmp_path: Path) -> None:
    assert some(tmp_path).person("lead") == "lead@example.org"
    with pytest.raises(FederationError, match="no person with the role member"):
        some(tmp_path).person("member")


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


@pytest.mark.parametrize("place", [".", "runs/federation", "poc/workspace"])
def test_keys_never_lie_in_a_checkout(place: str) -> None:
    with pytest.raises(InputError, match=r"lies inside the checkout .*private keys"):
        private_directory(REPOSITORY / place)


def test_a_link_into_a_checkout_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(REPOSITORY)
    with pytest.raises(InputError, match="inside the checkout"):
        private_directory(tmp_path / "link" / "federation")


@pytest.mark.parametrize("name", ["my federation", "a'b", 'a"b', "a#b", "{site}", "a\\b", "a:b", "a*"])
def test_a_path_that_flare_does_not_pass_on_is_refused_before_anything_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the federation's folder .* which FLARE does not pass on"):
        private_directory(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["-federation", "$HOME", "föderation", "a=b,c"])
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    assert private_directory(tmp_path / name).name == name


def test_a_python_that_flare_does_not_pass_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/srv/my project/.venv/bin/python")
    with pytest.raises(InputError, match=r"the Python that runs this, .* has a blank in it"):
        private_directory(tmp_path / "federation")


def test_a_full_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="holds no federation"):
        private_directory(tmp_path)
    with pytest.raises(InputError, match="holds no federation"):
        private_directory(tmp_path / "notes.txt")


def test_keys_that_were_left_over_are_named(tmp_path: Path) -> None:
    (tmp_path / "provision").mkdir()
    with pytest.raises(InputError, match=r"provision/ with private keys, but no federation.* Remove .*provision, or"):
        private_directory(tmp_path)
