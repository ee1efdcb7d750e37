from typing import Any

import pytest
from rich.console import Console

from med_duallora.flare.local.rehearsal.progress import line, read_progress, shown, table
from med_duallora.support import progress

JOB = {"job_id": "7-7", "name": "test-job", "status": "RUNNING"}


def answer(round_index: int | None = 1, workflow: str | None = "rounds", **sites: dict[str, Any]) -> dict[str, Any]:
    """What show_stats gives for a running job."""
    server = {
        "TrainingRounds": {"phase": "train", "current_round": round_index, "num_rounds": 3},
        "ServerRunner": {"job_id": "7-7", "workflow": workflow},
        "med_duallora": {"round": round_index, "n_contributions": 1, "n_refused_in_all": 0, "best_round": 0, "x": 1},
    }
    return {"server": server, **{site: {"med_duallora": values} if values else {} for site, values in sites.items()}}


@pytest.mark.parametrize(
    ("status", "statistics", "stage"),
    [
        pytest.param("SUBMITTED", {}, "waiting to be scheduled", id="not yet looked at"),
        pytest.param("DISPATCHED", None, "starting at the sites", id="deployed"),
        pytest.param("RUNNING", None, "starting at the sites", id="processes are starting"),
        pytest.param("RUNNING", answer(None), "starting at the sites", id="no round yet"),
        pytest.param("RUNNING", {}, "running", id="nobody answers"),
        pytest.param("RUNNING", {"server": {}, "ge": {}}, "running", id="server has nothing to say yet"),
        pytest.param("RUNNING", {"server": "No reply"}, "running", id="FLARE answers with a text"),
        pytest.param("RUNNING", answer(0), "round 1 of 3", id="people count from one"),
        pytest.param("RUNNING", answer(2), "round 3 of 3", id="last round"),
        pytest.param("RUNNING", answer(3), "evaluating at the sites", id="all rounds done"),
        pytest.param("RUNNING", answer(2, "evaluation"), "evaluating at the sites", id="next workflow"),
        pytest.param("FINISHED:COMPLETED", answer(3), "finished", id="finished well"),
        pytest.param("FINISHED:ABORTED", {}, "finished", id="finished otherwise"),
        pytest.param("FAILED_TO_RUN", {}, "finished", id="never ran"),
    ],
)
def test_the_stage_of_a_job(status: str, statistics: dict[str, Any] | None, stage: str) -> None:
    assert read_progress({**JOB, "status": status}, statistics).stage == stage


@pytest.mark.parametrize(
    ("round_index", "stage"), [(4, "round 5 of 9"), (6, "round 7 of 9"), (7, "evaluating at the sites")]
)
def test_a_resumed_job_counts_the_rounds_of_the_whole_training(round_index: int, stage: str) -> None:
    said = answer(round_index)
    said["server"]["med_duallora"] |= {"n_rounds": 9, "start_round": 4}
    moment = read_progress(JOB, said)
    assert moment.stage == stage, "it runs three rounds, and ends before the plan does"
    assert "start_round" not in moment.server


def test_why_a_job_waits_is_shown() -> None:
    history = ["2026-01-01 10:00:00: connected sites (2) < min_sites (3)"]
    waiting = read_progress({**JOB, "status": "SUBMITTED", "schedule_history": history}, {})
    assert waiting.stage == "waiting to be scheduled: connected sites (2) < min_sites (3)"


def test_a_line_names_every_site() -> None:
    moment = read_progress(JOB, answer(1, ge={"phase": "training", "train_loss": 0.51234}, canon={}))
    assert line(moment) == "RUNNING: round 2 of 3 (canon starting; ge training loss 0.5123)"


def test_a_table_shows_what_the_sites_say_and_nothing_else() -> None:
    moment = read_progress(
        JOB,
        answer(1, ge={"phase": "training", "round": 1.0, "n_subjects": 6.0, "device": "cpu", "secret": 1}, canon={}),
    )
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table(moment, 12.4))
    text = captured.get()
    assert "round 2 of 3  12 s" in text
    assert "subjects" in text
    assert "secret" not in text
    assert "│ 2 " in text, "rounds count from one"
    assert "bal. accuracy" not in text, "no site gave one"
    assert "server: round 2, contributions 1, refused so far 0, best adapter after round 1\n" in text


def test_without_a_terminal_a_line_is_printed_per_change(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with shown() as show:
        for round_index in (0, 0, 1):
            show(read_progress(JOB, answer(round_index)))
        assert capsys.readouterr().out == "RUNNING: round 1 of 3\nRUNNING: round 2 of 3\n"
        monkeypatch.setattr(progress, "QUIET_S", -1.0)
        show(read_progress(JOB, answer(1)))
        assert capsys.readouterr().out == "RUNNING: round 2 of 3\n", "after a long silence"


def test_on_a_terminal_a_table_is_kept_up_to_date(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with shown() as show:
        show(read_progress(JOB, answer(0, ge={"phase": "training"})))
    assert "round 1 of 3" in capsys.readouterr().out
