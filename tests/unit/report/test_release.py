from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.report import read_run
from med_duallora.report.content import build
from med_duallora.report.finished import Evaluation
from med_duallora.report.release import gate_of_run
from med_duallora.settings.release import ReleaseFloors
from tests.unit.report.conftest import evaluation as evaluation_record


@pytest.fixture
def evaluation() -> Evaluation:
    """Siemens: sensitivity 4 of 4, specificity 2 of 2; Philips: 2 of 2 and 2 of 4."""
    return Evaluation("best", None, evaluation_record()["sites"], {})


def test_the_worst_site_decides(evaluation: Evaluation) -> None:
    gate = gate_of_run(evaluation, ReleaseFloors(min_specificity=0.6))
    assert gate is not None
    assert not gate.passed
    assert {site: found.passed for site, found in gate.sites.items()} == {"siemens": True, "philips": False}
    assert gate.worst["specificity"][0] == "philips"
    assert gate.sentence == (
        "Release gate failed, 1 of 2 sites pass. Worst site: philips: specificity 0.50 (95 % 0.15 to 0.85), floor 0.6."
    )


def test_all_sites_pass_a_low_floor(evaluation: Evaluation) -> None:
    gate = gate_of_run(evaluation, ReleaseFloors(min_sensitivity=1.0, min_balanced_accuracy=0.7))
    assert gate is not None
    assert gate.passed
    assert gate.sentence.startswith("Release gate passed, 2 of 2 sites pass.")


def test_without_a_floor_there_is_no_gate(evaluation: Evaluation) -> None:
    assert gate_of_run(evaluation, ReleaseFloors()) is None


def test_a_site_without_an_answer_has_not_passed(evaluation: Evaluation) -> None:
    gate = gate_of_run(replace(evaluation, failed={"ge": "no cohort"}), ReleaseFloors(min_sensitivity=0.1))
    assert gate is not None
    assert not gate.passed
    assert gate.worst["sensitivity"][0] == "ge"
    assert "ge: sensitivity is not known" in gate.sentence


def test_a_site_that_only_evaluates_is_held_with_the_global_adapter() -> None:
    scores = {"a": {"both.sensitivity": 0.7, "global.sensitivity": 0.1}, "west": {"global.sensitivity": 0.65}}
    gate = gate_of_run(Evaluation("last", 0, scores, {}), ReleaseFloors(min_sensitivity=0.6))
    assert gate is not None
    assert gate.passed
    assert gate.worst["sensitivity"][0] == "west"


def test_scores_without_counts_are_held_against_the_floors_all_the_same() -> None:
    scores = {"a": {"both.sensitivity": 0.7}, "b": {"n_positive": 3.0, "n_negative": 3.0}}
    gate = gate_of_run(Evaluation("last", 0, scores, {}), ReleaseFloors(min_sensitivity=0.6))
    assert gate is not None
    assert gate.sites["a"].passed
    assert not gate.sites["b"].passed, "it sent no score: nobody knows"


def test_the_report_has_a_section_of_it_only_where_it_was_asked_for(server: Path) -> None:
    run = read_run(server)
    assert "Release gate" not in [section.title for section in build(run).sections]
    (section,) = (s for s in build(run, ReleaseFloors(min_specificity=0.6)).sections if s.title == "Release gate")
    table = section.blocks[1]
    assert [row[0] for row in table.rows] == ["siemens", "philips", "worst site"]
    assert table.rows[-1] == ["worst site", "0.50 (0.15 to 0.85), philips", "failed"]
