import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.support.files import sentence
from med_duallora.support.private import (
    append_own,
    claim,
    close_folder,
    open_own,
    own_size,
    private_folder,
    refuse_link,
)
from med_duallora.support.tensors import read_tensors


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_missing_folders_are_private_and_others_keep_their_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0)
    try:
        private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [mode_of(path) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [0o755, 0o700, 0o700]
    (tmp_path / "a").chmod(0o750)
    private_folder(tmp_path / "a")
    assert mode_of(tmp_path / "a") == 0o750, "who set it meant it"


def test_a_folder_that_another_process_makes_meanwhile_is_no_error(tmp_path: Path, monkeypatch) -> None:
    plain = Path.mkdir

    def second(self: Path, *args, **options) -> None:
        if not self.exists():
            plain(self)
        plain(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", second)
    private_folder(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "file", tmp_path / "link"):
        with pytest.raises(FileExistsError):
            private_folder(place)


READERS: list[Callable[[Path], object]] = [
    open_own,
    own_size,
    claim,
    lambda path: append_own(path, b"x"),
    refuse_link,
]


@pytest.mark.parametrize("target", ["there", "nowhere"])
@pytest.mark.parametrize("use", READERS, ids=["open", "size", "claim", "append", "refuse"])
def test_a_link_is_not_followed(use, target: str, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(OSError, match="symbolic link") as told:
        use(tmp_path / "link")
    assert sentence(told.value).startswith(f"{tmp_path / 'link'}: it is a symbolic link")
    assert (tmp_path / "there").read_bytes() == b"elsewhere" and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("use", READERS[:4], ids=["open", "size", "claim", "append"])
def test_a_folder_or_pipe_is_no_file(use, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place, reason in ((tmp_path, "directory"), (tmp_path / "pipe", "pipe or device|No such device")):
        with pytest.raises(OSError, match=reason):
            use(place)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    assert own_size(tmp_path / "file") == 0
    for data in (b"one\n", b"two\n"):
        append_own(tmp_path / "file", data)
    with open_own(tmp_path / "file") as stream:
        assert stream.read() == b"one\ntwo\n"
    assert (own_size(tmp_path / "file"), mode_of(tmp_path / "file")) == (8, 0o600)


@pytest.mark.parametrize(("mode", "before", "after"), [(0o666, 0o666, 0o600), (0o620, 0o620, 0o600), (0o640, 0, 0o640)])
def test_the_right_to_write_is_taken_away(mode: int, before: int, after: int, tmp_path: Path) -> None:
    """A group that may read it, an auditor's say, may go on reading."""
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(mode)
    assert claim(tmp_path / "file") == before
    assert mode_of(tmp_path / "file") == after
    assert claim(tmp_path / "nothing") == 0


def test_a_folder_is_closed_with_its_files_and_no_link_is_followed(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "folder").mkdir(mode=0o755)
    (tmp_path / "elsewhere").touch(mode=0o644)
    (tmp_path / "folder" / "file").touch(mode=0o644)
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "elsewhere")
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: os.getuid() + 1)
        close_folder(tmp_path / "folder")
    assert mode_of(tmp_path / "folder") == 0o755, "it is not ours"
    close_folder(tmp_path / "folder")
    found = [mode_of(tmp_path / name) for name in ("folder", "folder/file", "elsewhere")]
    assert found == [0o700, 0o600, 0o644]


def test_tensors_are_those_of_the_opened_file(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    for name in ("one", "other"):
        save_file({"x": np.full(3, len(name), np.float32)}, tmp_path / name, metadata={"name": name})
    with open_own(tmp_path / "one") as stream:
        (tmp_path / "other").replace(tmp_path / "one")
        facts, tensors = read_tensors(stream, "numpy")
    assert facts == {"name": "one"} and tensors["x"].tolist() == [3, 3, 3]
