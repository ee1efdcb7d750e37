from dataclasses import replace

import pytest

from med_duallora.errors import ArtifactError
from med_duallora.inference.gate import Gate, gate_of, judged, judged_scores
from med_duallora.measures import SCORES
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site import kept_calibration
from med_duallora.site.calibration import Calibration
from med_duallora.site.kept_calibration import CALIBRATION_FILE, KeptCalibration, KeptCounts, keep
from med_duallora.support.proportions import Counts

STATE = "ab" * 32
KEPT = KeptCalibration(
    "siemens", "test", False, STATE, Calibration(1.5, 0.4, 6, 7), ReleaseFloors(), KeptCounts(9, 10, 12, 20)
)


@pytest.fixture(autouse=True)
def state(monkeypatch):
    """The run's folder holds this state."""
    monkeypatch.setattr(kept_calibration, "state_checksum", lambda _: STATE)


@pytest.mark.parametrize(
    ("floors", "passed", "says"),
    [
        (ReleaseFloors(), True, "No release floor is set"),
        (ReleaseFloors(min_specificity=0.6), True, "passed: specificity 0.60 (95 % 0.39 to 0.78), floor 0.6."),
        (ReleaseFloors(min_specificity=0.61), False, "failed: specificity 0.60 (95 % 0.39 to 0.78), floor 0.61"),
        (ReleaseFloors(min_sensitivity=0.9), True, "sensitivity 0.90"),
        (ReleaseFloors(min_balanced_accuracy=0.76), False, "balanced accuracy 0.75 (95 % "),
        (ReleaseFloors(0.95, 0.6), False, "failed: sensitivity 0.90"),
        (ReleaseFloors(min_balanced_accuracy=0.75), True, "balanced accuracy 0.75"),
    ],
)
def test_the_point_is_held_against_the_floor_with_its_interval_beside_it(floors, passed, says):
    found = judged(Counts(9, 10, 12, 20), floors)
    assert found.passed is passed
    assert says in found.sentence


def test_a_floor_that_is_just_reached_is_reached():
    assert (0.7 + 0.1) / 2 < 0.4
    assert judged(Counts(7, 10, 1, 10), ReleaseFloors(min_balanced_accuracy=0.4)).passed


def test_what_failed_is_named_and_nothing_else():
    found = judged(Counts(9, 10, 12, 20), ReleaseFloors(0.95, 0.6))
    assert "specificity" not in found.sentence
    assert [item.score for item in found.reached] == ["sensitivity", "specificity"]


@pytest.mark.parametrize("score", ["sensitivity", "balanced_accuracy"])
def test_a_score_that_no_subject_tells_does_not_pass(score):
    found = judged(Counts(0, 0, 3, 4), ReleaseFloors(**{f"min_{score}": 0.1}))
    assert not found.passed
    assert "is not known" in found.sentence


def test_a_score_without_counts_has_no_interval():
    found = judged_scores({"sensitivity": 0.8}, {}, ReleaseFloors(min_sensitivity=0.7))
    assert found.sentence == "Release gate passed: sensitivity 0.80, floor 0.7."


# ---- of a run's folder


def test_a_model_without_floors_is_released(tmp_path):
    keep(tmp_path, KEPT)
    assert gate_of(tmp_path) == Gate(True, "No release floor is set: nothing was asked of this model.")


def test_a_failed_model_is_used_only_ungated(tmp_path):
    keep(tmp_path, replace(KEPT, release=ReleaseFloors(min_specificity=0.8)))
    found = gate_of(tmp_path)
    assert not found.passed
    assert found.sentence.startswith("Release gate failed: specificity 0.60")
    assert found.sentence.endswith("it is used only with --ungated.")


def test_a_model_that_was_never_evaluated_has_not_passed(tmp_path):
    assert not gate_of(tmp_path).passed
    assert "never evaluated" in gate_of(tmp_path).sentence


def test_a_model_that_was_trained_on_since_has_not_passed(tmp_path, monkeypatch):
    keep(tmp_path, KEPT)
    monkeypatch.setattr(kept_calibration, "state_checksum", lambda _: "cd" * 32)
    assert not gate_of(tmp_path).passed
    assert "another state" in gate_of(tmp_path).sentence


def test_a_damaged_file_opens_no_gate(tmp_path):
    (tmp_path / CALIBRATION_FILE).write_text("{}")
    with pytest.raises(ArtifactError, match="is damaged"):
        gate_of(tmp_path)


def test_every_score_with_a_floor_has_a_heading():
    assert set(ReleaseFloors(0.1, 0.1, 0.1).asked) <= set(SCORES)
