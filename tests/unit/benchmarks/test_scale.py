"""The benchmark of many sites: the smallest run, through FLARE's own messages, and its table."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.scale import summary, table
from benchmarks.scale_plot import draw

from tests.conftest import REPOSITORY


def test_three_sites_in_two_rounds_through_flares_messages(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    sizes = ["--backbone", "cinema-tiny", "--sites", "3", "--rules", "svd", "--rounds", "2"]
    command = [sys.executable, "-m", "benchmarks.scale", *sizes, "--out", str(out)]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    (row,) = json.loads(out.read_text())["servers"]
    assert (row["rule"], row["n_sites"]) == ("svd", 3)
    assert [len(one[name]) for one in row["rounds"] for name in ("accept_s", "memory", "met_s")] == [3] * 6
    assert table([row]) in found.stdout
    draw([row], tmp_path / "scale.svg")
    assert "contributions, all rounds" in (tmp_path / "scale.svg").read_text()


def a_round(accept: list[float], memory: list[int], after: int) -> dict[str, object]:
    return {"accept_s": accept, "memory": memory, "memory_after": after, "met_s": accept, "aggregate_s": 1.0}


def test_what_grows_is_told() -> None:
    warm = a_round([9.0] * 4, [1, 1, 1, 1], 50)
    found = summary(
        [warm, a_round([1.0, 1.0, 1.0, 3.0], [100, 110, 120, 150], 100), a_round([1.0] * 4, [100] * 4, 140)]
    )
    assert found["memory_over_sites"] == 1.5
    assert found["memory_over_rounds"] == 1.4
    assert found["accept_over_sites"] == 2.0, "the last quarter of two rounds, 3 and 1, over the first, 1 and 1"
    assert found["accept_ms"] == 1000
