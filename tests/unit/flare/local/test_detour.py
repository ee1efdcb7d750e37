import sys
import tempfile
from pathlib import Path

import pytest

from med_duallora.errors import InputError
from med_duallora.flare.local import detour as detours
from med_duallora.flare.local.detour import detour


def test_a_plain_path_needs_no_link(tmp_path: Path) -> None:
    with detour(tmp_path / "run") as by:
        assert (by.workspace, by.python, by.links) == (tmp_path / "run", Path(sys.executable), {})


def test_a_path_with_blanks_is_reached_through_a_plain_link_while_it_is_needed(tmp_path: Path) -> None:
    place = tmp_path / "ws 1"
    with detour(place) as by:
        place.mkdir()
        (by.workspace / "file").write_text("here")
        assert by.links == {by.workspace: place} and by.workspace.is_symlink()
        assert (place / "file").read_text() == "here"
    assert not by.workspace.is_symlink() and (place / "file").is_file()


def test_so_is_an_environment_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = tmp_path / "my venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").touch()
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
    with detour(tmp_path / "run") as by:
        assert " " not in str(by.python) and by.python.samefile(environment / "bin" / "python")
        assert by.workspace == tmp_path / "run"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "another place" / "python"))
    with pytest.raises(InputError, match="has a blank in it"), detour(tmp_path / "run"):
        pass


def test_links_lie_where_the_path_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "odd #1"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    monkeypatch.setattr(detours, "OTHER_PLACES", (str(tmp_path),))
    with detour(odd) as by:
        assert by.workspace.parent == tmp_path
    monkeypatch.setattr(detours, "OTHER_PLACES", ())
    with pytest.raises(InputError, match="set TMPDIR"), detour(odd):
        pass
