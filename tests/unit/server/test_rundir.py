import json
from pathlib import Path

import med_duallora
from med_duallora.server import rundir


def test_a_file_of_a_run_is_named_in_one_place() -> None:
    """Whoever writes or reads it takes the name from there, so that both always mean the same file."""
    names = [rundir.JOB_FILE, rundir.ROUNDS_FILE, rundir.EVALUATION_FILE, *rundir.ADAPTERS.values()]
    package = Path(med_duallora.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = {path.relative_to(package).as_posix() for path, text in texts.items() for n in names if f'"{n}"' in text}
    assert found == {"server/rundir.py"}


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


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    rundir.add_round(tmp_path, {"round": 0})
    with (tmp_path / rundir.ROUNDS_FILE).open("a") as stream:
        stream.write('{"rou')
    assert rundir.read_rounds(tmp_path) == [{"round": 0}]


def test_the_origin_of_the_data_is_noted_beside_the_scores(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"model": "last"}')
    for phantoms in ("none", "all"):
        rundir.note_origin(tmp_path / "evaluation.json", {"phantoms": phantoms})
        found = json.loads((tmp_path / "evaluation.json").read_text())
        assert found == {"model": "last", "origin": {"phantoms": phantoms}}
