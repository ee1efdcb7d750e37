from pathlib import Path

import pytest

from med_duallora.support.folders import check_writable, made, replace_folder, unused


def test_a_place_that_was_only_tried_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "there" / "new" / "newer"):
        check_writable(folder)
    with pytest.raises(OSError, match="File name too long"):
        check_writable(tmp_path / "there" / "new" / ("x" * 300))
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_folder_goes_again_where_its_block_fails_and_left_it_empty(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "there", tmp_path / "there" / "new" / "newer"):
        with pytest.raises(KeyError), made(folder):
            raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    with pytest.raises(KeyError), made(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
        raise KeyError
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"kept"}
    with made(tmp_path / "c" / "d"):
        pass
    assert (tmp_path / "c" / "d").is_dir()


def test_a_folder_takes_another_s_place_or_leaves_it(tmp_path: Path) -> None:
    for name in ("fresh", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "nowhere", tmp_path / "old")
    assert (tmp_path / "old" / "old").exists(), "what was there is there again"
    assert replace_folder(tmp_path / "fresh", tmp_path / "old") == tmp_path / "old"
    assert [path.name for path in tmp_path.rglob("*")] == ["old", "fresh"]
    (tmp_path / "next").mkdir()
    assert replace_folder(tmp_path / "next", tmp_path / "new").is_dir(), "nothing was there"


def test_what_is_set_aside_replaces_nothing(tmp_path: Path) -> None:
    place = tmp_path / "ledger.jsonl"
    for number in (0, 1):
        unused(place, "torn").touch()
        assert (tmp_path / f"ledger.jsonl.torn-{number}").exists()
    assert unused(place, "previous", first=1) == tmp_path / "ledger.jsonl.previous-1"
