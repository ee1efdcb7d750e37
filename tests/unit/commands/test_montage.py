import argparse
from pathlib import Path

import pytest

from med_duallora.commands import montage
from med_duallora.errors import InputError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    montage.add_parser(parser.add_subparsers())
    options = parser.parse_args(["montage", *map(str, arguments)])
    return int(options.run(options))


def test_a_picture_is_written(
    tiny_cohorts: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "cohort.png"
    assert run(tiny_cohorts["ge"], tiny_cohorts["canon"], "--n-per-vendor", 1, "--out", out) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert f"2 subjects in {out}" in capsys.readouterr().out


def test_the_number_of_subjects_is_checked(tiny_cohorts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--n-per-vendor = 0, but it must be at least 1"):
        run(tiny_cohorts["ge"], "--n-per-vendor", 0, "--out", tmp_path / "x.png")
