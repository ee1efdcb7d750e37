from pathlib import Path

from med_duallora.report import collect
from med_duallora.server import rundir


def test_server_and_report_agree_on_the_names() -> None:
    assert (rundir.JOB_FILE, rundir.ROUNDS_FILE, rundir.EVALUATION_FILE) == (
        collect.JOB,
        collect.ROUNDS,
        collect.EVALUATION,
    )


def test_a_round_s_record_is_the_newest_of_that_round(tmp_path: Path) -> None:
    assert rundir.round_record(tmp_path, 0) == {}
    (tmp_path / rundir.ROUNDS_FILE).write_text('{"round": 0, "a": 1}\n{"round": 0, "a": 2}\n{"round": 1, "a": 3}\n')
    assert rundir.round_record(tmp_path, 0)["a"] == 2
    assert rundir.round_record(tmp_path, 7) == {}


def test_contributions_are_counted_up_to_a_round(tmp_path: Path) -> None:
    assert rundir.contributions(tmp_path, 3, {}) == {}
    lines = ['{"round": 0, "sites": {"ge": {}, "canon": {}}}', '{"round": 1, "sites": {"ge": {}}}']
    (tmp_path / rundir.ROUNDS_FILE).write_text("\n".join([*lines, '{"round": 2, "sites": {"siemens": {}}}']))
    assert rundir.contributions(tmp_path, 1, {}) == {"canon": 1, "ge": 2}
    assert rundir.contributions(tmp_path, 1, {"philips": 3, "ge": 4}) == {"canon": 1, "ge": 6, "philips": 3}
