"""The command end to end, on two tiny sites."""

import csv

import pytest

from med_duallora.cli import main


@pytest.fixture
def data(tiny_cohorts, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for site in ("ge", "canon"):
        (folder / site).symlink_to(tiny_cohorts[site])
    return folder


@pytest.fixture
def study(data, tiny_checkpoint, tmp_path):
    def run(*more: str) -> int:
        return main(
            [
                *("study", "--data", str(data), "--out", str(tmp_path / "study"), "--n-train", "6", "--draws", "100"),
                *("--backbone-checkpoint", str(tiny_checkpoint), "--processes", "1", "--seeds", "1"),
                *("--set", "backbone=cinema-tiny", "--set", "train.n_views=0", *more),
            ]
        )

    return run


def test_a_study_runs_and_the_same_command_does_nothing_more(study, tmp_path, capsys):
    out = tmp_path / "study"
    assert study("--methods", "own-head,shared-head", "--recipe-set", "a:", "--recipe-set", "b: train.lr=0.01") == 0
    assert "4 runs, 4 of them new" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.json")}
    assert len(files) == 4
    rows = list(csv.DictReader((out / "results.csv").open(newline="")))
    assert {(row["arm"], row["recipe"]) for row in rows} == {(a, r) for a in ("own-head", "shared-head") for r in "ab"}
    assert "not for diagnosis" in (out / "study.html").read_text()
    assert "not for diagnosis" in (out / "study.md").read_text()
    assert not list((out / "work").iterdir())
    assert study("--methods", "own-head,shared-head", "--recipe-set", "a:", "--recipe-set", "b: train.lr=0.01") == 0
    assert "4 runs, 0 of them new" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.json")} == files
    assert study("--methods", "own-head", "--set", "train.lr=0.02") == 0
    assert "1 runs, 1 of them new" in capsys.readouterr().out, "other settings are another run"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--methods", "fedavg"), "there is no 'fedavg'"),
        (("--recipe-set", "no name"), "is not 'name: KEY=VALUE ...'"),
        (("--recipe-set", "a:", "--recipe-set", "a:"), "two are called a"),
        (("--set", "train.nothing=1"), "train.nothing"),
        (("--n-train", "10"), "lower --n-train"),
    ],
)
def test_bad_input_is_said_in_one_sentence(study, capsys, more, said):
    assert study("--methods", "own-head", *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_two_federations_of_one_name_are_refused(study, data, capsys):
    assert study("--data", str(data)) == 2
    assert "two folders are called data" in capsys.readouterr().err
