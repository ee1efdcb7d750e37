import copy
import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from med_duallora.support import files
from med_duallora.support.files import (
    MAX_JSON_DEPTH,
    atomic_path,
    canonical_json,
    open_regular,
    parsed_json,
    read_object,
    sentence,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)
from med_duallora.support.folders import check_writable


def test_a_file_appears_whole_with_its_parents_and_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "secret.txt"
    write_text(target, "grün", mode=0o600)
    assert target.read_text(encoding="utf-8") == "grün"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["secret.txt"]


@pytest.mark.parametrize(("mask", "expected"), [(0o000, 0o666), (0o022, 0o644), (0o077, 0o600)])
def test_what_is_made_to_be_shared_follows_the_umask(mask: int, expected: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "report.md", "scores by site")
        write_text(tmp_path / "policy.json", "{}", mode=0o644)
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("report.md", "policy.json")] == [
        expected,
        0o644,
    ]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("elsewhere")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "file", "here")
    assert (tmp_path / "elsewhere").read_text() == "elsewhere" and not (tmp_path / "file").is_symlink()


def test_the_temporary_name_keeps_the_suffixes(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "volume.nii.gz") as partial:
        assert partial.name.endswith("volume.nii.gz")
        assert partial.parent == tmp_path


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as partial:
            partial.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "scores.json", {"auroc": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path, full_disk: None) -> None:
    target = tmp_path / "numbers.json"
    with pytest.raises(OSError, match="File too large") as told:
        write_json(target, list(range(10_000)))
    assert told.value.filename == str(target)
    assert sentence(told.value).startswith(f"{target}: File too large; files of this size are not allowed here")
    with pytest.raises(OSError, match="File too large") as told, atomic_path(target) as partial:
        save_file({"a": np.zeros(10_000)}, partial)
    assert told.value.filename == str(target), "the writer of tensors has an error of its own"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_shall_last_waits_for_the_disk(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(os, "fsync", waited.append)
    with atomic_path(tmp_path / "a.txt", durable=durable) as partial:
        partial.write_text("content")
    assert (tmp_path / "a.txt").read_text() == "content"
    assert len(waited) == durable


def test_a_place_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for write in (
        lambda: write_text(tmp_path / "file" / "folder" / "x.txt", "x"),
        lambda: check_writable(tmp_path / "file" / "folder" / "x"),
    ):
        with pytest.raises(OSError, match="Not a directory") as told:
            write()
        assert str(tmp_path / "file") in sentence(told.value)
        assert sentence(told.value).endswith("a part of this path is a file; choose another place")


def test_several_errors_of_a_copied_folder_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    for name in ("a", "b"):
        (tmp_path / "from" / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(shutil.Error) as told:
        shutil.copytree(tmp_path / "from", tmp_path / "to")
    assert sentence(told.value).count("No such file or directory") == 1


@pytest.mark.parametrize("n", [MAX_JSON_DEPTH + 1, 1000, 100_000])
@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_json_without_end_is_a_value_error(begin: str, end: str, n: int) -> None:
    with pytest.raises(ValueError, match="more than 64 lists and objects lie inside each other"):
        parsed_json(begin * n + "0" + end * n)


def test_json_as_deep_as_allowed_is_read_and_can_be_copied(tmp_path: Path) -> None:
    text = "[" * MAX_JSON_DEPTH + "0" + "]" * MAX_JSON_DEPTH
    assert canonical_json(copy.deepcopy(parsed_json(text))) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\xff", "it is not JSON: .*decode", id="no text"),
        pytest.param(b'{"a": ', "it is not JSON: Expecting value", id="cut off"),
        pytest.param(b"[1]", "it must hold one JSON object, not list", id="a list"),
        pytest.param(b'{"a":' * 100 + b"0" + b"}" * 100, "lie inside each other", id="too deep"),
    ],
)
def test_a_file_without_one_object_says_why(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_object(tmp_path / "file.json")


def test_a_name_that_is_no_text_is_written_in_escapes(tmp_path: Path) -> None:
    write_text(tmp_path / "list.txt", os.fsdecode(b"M\xfcller/\xc3\xa4"))
    assert (tmp_path / "list.txt").read_text(encoding="utf-8") == "M\\udcfcller/ä"


def test_json_that_windows_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_object(tmp_path / "file.json") == {"a": 1}


def test_a_huge_json_file_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 5)
    (tmp_path / "file.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="larger than"):
        read_object(tmp_path / "file.json")


def test_a_pipe_or_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="pipe or device") as error:
            open_regular(place)
        assert str(place) in sentence(error.value)


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None], "a": "ä"}
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == value


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000  # more than one read
    (tmp_path / "file").write_bytes(content)
    assert sha256_of_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_equal_values_have_one_hash() -> None:
    assert canonical_json({"b": 1, "a": [1, {"d": 2, "c": 3}]}) == '{"a":[1,{"c":3,"d":2}],"b":1}'
    assert sha256_of_json({"b": 1, "a": 2}) == sha256_of_json({"a": 2, "b": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": "1"})


def test_what_has_no_json_has_no_hash() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_of_json({"a": float("inf")})
