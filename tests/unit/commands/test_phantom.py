import argparse
from pathlib import Path

import pytest

from med_duallora.cohorts.phantom import PRESETS
from med_duallora.commands import phantom
from med_duallora.errors import ConfigError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    phantom.add_parser(parser.add_subparsers())
    options = parser.parse_args(["phantom", *map(str, arguments)])
    return int(options.run(options))


def test_a_pool_is_written_and_the_next_step_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pool"
    assert run("--out", out, "--preset", "pretrain", "--n-per-vendor", 4, "--seed", 3, "--processes", 1) == 0
    text = capsys.readouterr().out
    assert f"4 synthetic phantoms (not for diagnosis) in {out}" in text
    assert f"med-duallora prepare --out PREPARED --acdc {out / 'acdc'}" in text
    assert "--mnms" not in text
    assert run("--out", out, "--preset", "pretrain", "--n-per-vendor", 4, "--seed", 3, "--processes", 1) == 0


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("--n-per-vendor", 2), "n_per_vendor = 2"),
        (("--seed", -1), "seed = -1"),
        (("--processes", 0), "processes = 0"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, arguments: tuple[object, ...], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        run("--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_the_command_knows_the_presets() -> None:
    """They are spelt twice so that --help need not import numpy."""
    assert tuple(PRESETS) == phantom.PRESETS
