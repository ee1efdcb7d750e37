"""The command end to end, on two tiny sites."""

import csv

import pytest

from med_duallora.cli import main
from med_duallora.study.plan import WORK


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
    assert not list((out / WORK).iterdir())
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
        (("--recipe-set", "a:", "--recipe-set", "b: train.nothing=1", "--methods", "random-weights"), "train.nothing"),
        (("--set", "train.seed=9"), "train.seed cannot be set: a study sets it for every run; see --seeds"),
        (("--recipe-set", "a: method=fedavg-lora"), "method cannot be set: a study sets it for every run"),
    ],
)
def test_bad_input_is_said_in_one_sentence_and_leaves_no_folder(study, tmp_path, capsys, more, said):
    assert study("--methods", "own-head", *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "study").exists()


def test_two_federations_of_one_name_are_refused(study, data, capsys):
    assert study("--data", str(data)) == 2
    assert "two folders are called data" in capsys.readouterr().err


def test_a_command_that_is_refused_leaves_what_is_there(study, tmp_path, capsys):
    theirs = tmp_path / "study" / "work" / "thesis.txt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    assert study("--methods", "own-hed") == 2
    assert study("--methods", "own-head") == 0
    assert theirs.read_text() == "years of work"


def test_results_do_not_lie_among_the_sites(data, tmp_path, capsys):
    for out in (data, data / "study"):
        assert main(["study", "--data", str(data), "--out", str(out), "--seeds", "1"]) == 2
        assert "whose folders are sites; choose another place" in capsys.readouterr().err
    assert sorted(path.name for path in data.iterdir()) == ["canon", "ge"]


def test_a_site_with_too_few_subjects_is_refused_before_the_first_run(study, tmp_path, capsys):
    assert study("--methods", "own-head", "--n-train", "10") == 2
    assert "lower --n-train" in capsys.readouterr().err
    assert not (tmp_path / "study" / "runs").exists()


def test_what_needs_two_sites_is_left_out_or_refused_where_there_is_one(study, data, capsys):
    (data / "ge").unlink()
    assert study("--methods", "new-site") == 2
    assert "new-site needs two sites, but data has one; leave it out" in capsys.readouterr().err
