"""What is done stays done."""

import pytest

from med_duallora.errors import ConfigError, MedDualLoRAError
from med_duallora.study import pool
from med_duallora.study.plan import WORK, alone_in
from med_duallora.support.files import write_json


@pytest.fixture
def planned(spec_of, tmp_path):
    return [spec_of("own-head", seed=seed, out=tmp_path) for seed in range(3)]


def test_what_ends_a_study_leaves_what_is_done_and_the_same_call_does_the_rest(planned, monkeypatch, capsys):
    begun = []

    def interrupted(spec):
        begun.append(spec.seed)
        if begun == [0, 1]:
            raise KeyboardInterrupt
        write_json(spec.path, {"seed": spec.seed})

    monkeypatch.setattr(pool, "run_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.run_all(planned, 1)
    assert [spec.path.exists() for spec in planned] == [True, False, False]
    assert pool.run_all(planned, 1) == 2
    assert begun == [0, 1, 1, 2], "the first is not done again"
    assert pool.run_all(planned, 1) == 0
    assert "runs: 2 done" in capsys.readouterr().err


def test_processes_give_what_one_process_gives(spec_of, cohort, tmp_path):
    """Each in a folder of its own: nothing is shared."""
    specs = [spec_of("own-head", seed=seed, out=tmp_path / "apart") for seed in range(2)]
    assert pool.run_all(specs, 2) == 2
    alone = [spec_of("own-head", seed=seed, out=tmp_path / "alone") for seed in range(2)]
    pool.run_all(alone, 1)
    for one, other in zip(specs, alone, strict=True):
        ours, theirs = (read(spec)["sites"] for spec in (one, other))
        assert ours == theirs


def read(spec):
    from med_duallora.support.files import read_object

    return read_object(spec.path)


def test_a_run_that_fails_stops_the_study(planned, monkeypatch):
    def failing(spec):
        raise MedDualLoRAError("no such luck")

    monkeypatch.setattr(pool, "run_one", failing)
    with pytest.raises(MedDualLoRAError, match="no such luck"):
        pool.run_all(planned, 1)


def test_two_studies_in_one_folder_are_refused_and_what_was_killed_is_cleared(tmp_path):
    (tmp_path / WORK / "left").mkdir(parents=True)
    with alone_in(tmp_path):
        assert not (tmp_path / WORK).exists()
        with pytest.raises(ConfigError, match="another study is at work"), alone_in(tmp_path):
            pass
