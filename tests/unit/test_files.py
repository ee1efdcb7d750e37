import hashlib
import json
import stat
from pathlib import Path

import pytest

from med_duallora.files import atomic_path, canonical_json, sha256_of_file, sha256_of_json, write_json, write_text


def test_a_file_appears_whole_with_its_parents_and_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "secret.txt"
    write_text(target, "grün", mode=0o600)
    assert target.read_text(encoding="utf-8") == "grün"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["secret.txt"]


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
