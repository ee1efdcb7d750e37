"""Files and numbers that no command can take: one sentence, never a traceback. See test_writers for places."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.cli import main

Arguments = Callable[[Path, Path], list[object]]


@pytest.fixture
def data(tiny_cohorts: dict[str, Path], tmp_path: Path) -> Path:
    """The prepared cohorts, with a table of nobody beside them."""
    folder = tmp_path / "data"
    folder.mkdir()
    for site, cohort in tiny_cohorts.items():
        (folder / site).symlink_to(cohort)
    (folder / "table.csv").write_text("subject,ed,es,pathology,vendor,centre\na,ed.nii,es.nii,NOR,ge,here\n")
    return folder


def said(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command and return its exit code and what it said of the error."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse
        code = int(stopped.code or 0)
    return code, capsys.readouterr().err


DEEP = "[" * 100_000 + "]" * 100_000
OF_JSON: dict[str, Arguments] = {
    "report": lambda place, _: ["report", place],
    "ledger": lambda place, _: ["ledger", "verify", place / "ledger.jsonl"],
    "doctor": lambda place, data: ["doctor", data / "ge", "--site-config", place / "site.json"],
    "doctor job": lambda place, data: ["doctor", data / "ge", "--job", place / "folder"],
    "simulate job": lambda place, data: [
        "simulate",
        "--data",
        data,
        "--workspace",
        place / "w",
        "--job",
        place / "folder",
    ],
    "simulate record": lambda place, data: ["simulate", "--data", data, "--workspace", place / "run"],
    "federation": lambda place, _: ["federation", "status", "--workspace", place / "federation"],
    "site-kit": lambda place, _: ["site-kit", "--startup-kit", place / "kit"],
    "server-kit": lambda place, _: ["server-kit", "--startup-kit", place / "kit", "--storage", place / "store"],
    "preflight": lambda place, _: ["preflight", "--startup-kit", place / "kit"],
}


@pytest.mark.parametrize("name", OF_JSON)
def test_json_without_end_is_said(name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "deep"
    files = ("job.json", "round_metrics.jsonl", "evaluation.json", "ledger.jsonl", "site.json", "run/run.json")
    folders = (
        "folder/app/config/config_fed_client.json",
        "folder/meta.json",
        "folder/app/config/config_fed_server.json",
    )
    kits = ("kit/local/resources.json", "kit/local/resources.json.default", "kit/startup/fed_client.json")
    for file in (*files, *folders, *kits, "federation/federation.json", "kit/local/authorization.json.default"):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(DEEP)
    code, error = said(OF_JSON[name](place, data), capsys)
    assert code in (1, 2)
    assert "Traceback" not in error
    assert "RecursionError" not in error
    assert len(error) < 2000, "what is damaged is not quoted whole"


NUMBERS = [
    ["phantom", "--out", "x", "--seed", "-1"],
    ["prepare", "--acdc", "x", "--out", "y", "--seed", "1e400"],
    ["prepare", "--acdc", "x", "--out", "y", "--processes", "0"],
    ["prepare", "--acdc", "x", "--out", "y", "--simulated-sites", "1"],
    ["simulate", "--data", "DATA", "--workspace", "w", "--parallel-sites", "0"],
    ["simulate", "--data", "DATA", "--workspace", "w", "--set", "train.lr=1e400"],
    ["simulate", "--data", "DATA", "--workspace", "w", "--set", "train.n_rounds=" + "9" * 5000],
    ["federation", "up", "--workspace", "w", "--data", "DATA", "--port", "99999999"],
    ["federation", "up", "--workspace", "w", "--data", "DATA", "--timeout", "nan"],
    ["federation", "up", "--workspace", "w", "--data", "DATA", "--timeout", "-1"],
    ["montage", "DATA", "--out", "x.png", "--n-per-vendor", "0"],
    ["demo", "--out", "x", "--seed", "-1"],
]


@pytest.mark.parametrize("arguments", NUMBERS, ids=lambda arguments: " ".join(arguments)[:60])
def test_a_number_out_of_range_is_bad_usage(
    arguments: list[str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = said([str(data) if word == "DATA" else word for word in arguments], capsys)
    assert code == 2
    assert "Traceback" not in error
    assert not {path.name for path in tmp_path.iterdir()} & {"x", "y", "w", "x.png"}, "nothing was begun"


def test_a_site_that_the_record_does_not_know_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ledger.jsonl", "received.jsonl"):
        (tmp_path / name).write_text(json.dumps({"site": "ge", "job": "1", "kind": "train"}) + "\n")
    code, error = said(
        ["ledger", "match", tmp_path / "ledger.jsonl", tmp_path / "received.jsonl", "--site", "nope"], capsys
    )
    assert code == 2
    assert "unknown site 'nope': the ledger and the server's record name ge" in error
