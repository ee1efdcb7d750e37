import os
import stat
from pathlib import Path

import pytest

from med_duallora.errors import StateError
from med_duallora.site.secret import N_BYTES, SECRET_FILE, site_secret, write_secret


def test_a_site_has_one_secret(tmp_path: Path) -> None:
    first = site_secret(tmp_path / "one" / "state")
    assert len(first) == N_BYTES and site_secret(tmp_path / "one" / "state") == first
    assert site_secret(tmp_path / "other") != first
    path = tmp_path / "one" / "state" / SECRET_FILE
    assert [stat.S_IMODE(place.stat().st_mode) for place in (path, path.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("content", [b"", b"short", bytes(N_BYTES + 1)], ids=["empty", "cut", "too long"])
def test_a_damaged_one_is_made_anew(content: bytes, tmp_path: Path) -> None:
    (tmp_path / SECRET_FILE).write_bytes(content)
    found = site_secret(tmp_path)
    assert len(found) == N_BYTES and site_secret(tmp_path) == found


def test_one_that_others_may_have_read_is_made_anew(tmp_path: Path, caplog) -> None:
    first = site_secret(tmp_path)
    (tmp_path / SECRET_FILE).chmod(0o644)
    assert site_secret(tmp_path) != first
    assert "readable by other accounts" in caplog.text and str(tmp_path) not in caplog.text


def test_a_given_one_is_used(tmp_path: Path) -> None:
    write_secret(tmp_path / "state" / SECRET_FILE, b"s" * N_BYTES)
    assert site_secret(tmp_path / "state") == b"s" * N_BYTES


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_it_is_not_a_link(target: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(bytes(N_BYTES))
    (tmp_path / SECRET_FILE).symlink_to(tmp_path / target)
    with pytest.raises(StateError, match=r"site.secret in state_dir cannot be used \(it is a symbolic link"):
        site_secret(tmp_path)


def test_a_place_that_cannot_be_used_is_told_without_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="Not a directory") as told:
        site_secret(tmp_path / "file" / "state")
    assert str(tmp_path) not in str(told.value), "a log can be read elsewhere"


@pytest.mark.skipif(os.geteuid() != 0, reason="only the administrator can give a file away")
def test_one_of_another_account_is_refused(tmp_path: Path) -> None:
    site_secret(tmp_path)
    os.chown(tmp_path / SECRET_FILE, 12345, 12345)
    with pytest.raises(StateError, match="belongs to another account"):
        site_secret(tmp_path)
