import json
import stat
from dataclasses import replace

import numpy as np
import pytest

from med_duallora.errors import ArtifactError, StateError
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import Calibration, calibrate
from med_duallora.site.kept_calibration import CALIBRATION_FILE, KeptCalibration, KeptCounts, keep, read_kept
from med_duallora.site.state import STATE_FILE
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import random_payload
from tests.unit.tiny_site import START, runtime_of

KEPT = KeptCalibration(
    "siemens",
    "test",
    False,
    "ab" * 32,
    Calibration(1.5, 0.4, 6, 7, ("a remark",)),
    ReleaseFloors(min_specificity=0.6),
    KeptCounts(3, 4, 5, 6),
)


@pytest.fixture
def config(tiny_sites, tmp_path) -> SiteConfig:
    """A site with enough validation subjects to fit something: six of each class."""
    folder = write_tiny_cohort(tmp_path / "cohort", "siemens", 0, n_subjects=22, n_by_split=(6, 12, 4))
    return replace(tiny_sites["siemens"], data_dir=folder, release=ReleaseFloors(min_specificity=0.5))


@pytest.fixture
def evaluated(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    runtime.evaluate(random_payload(runtime.contract, scale=0.5), kind="best")  # of which nothing else is chosen
    return runtime


def test_an_evaluation_keeps_what_the_validation_subjects_say(evaluated, config):
    directory = evaluated.model.directory
    kept = read_kept(directory)
    assert kept is not None
    assert stat.S_IMODE((directory / CALIBRATION_FILE).stat().st_mode) == 0o600
    assert json.loads((directory / CALIBRATION_FILE).read_text())["not_for_diagnosis"] is True
    assert (kept.site, kept.experiment, kept.phantoms, kept.release) == ("siemens", "test", False, config.release)
    assert (kept.calibration.n_positive, kept.calibration.n_negative) == (6, 6)
    # by hand, from the state that was saved
    later = runtime_of(config)
    later.model.recall()
    subjects = later.cohort.split("val")
    chances = later.model.predict(subjects)
    assert kept.calibration == calibrate([subject.label for subject in subjects], chances, config.release)
    rows = json.loads((directory / "predictions.json").read_text())["predictions"]
    labels = [row["label"] for row in rows]
    assert kept.test.counts == kept.calibration.counts(labels, [row["both"] for row in rows])


def test_nothing_of_it_is_offered(evaluated):
    words = ("temperature", "threshold", "calibration", "brier", "release", "gate")
    assert "both.specificity" in evaluated.reported
    assert not [name for name in evaluated.reported if any(word in name for word in words)]


def test_scores_that_leave_keep_the_threshold_of_one_half(evaluated):
    rows = json.loads((evaluated.model.directory / "predictions.json").read_text())["predictions"]
    normal = [row["both"] for row in rows if not row["label"]]
    assert evaluated.reported["both.specificity"] == np.mean([chance < 0.5 for chance in normal])


def test_it_belongs_to_the_state_that_was_evaluated(evaluated):
    directory = evaluated.model.directory
    kept = read_kept(directory)
    assert kept.is_of(directory / STATE_FILE)
    evaluated.train_round(START, 1)
    assert not read_kept(directory).is_of(directory / STATE_FILE), "another round, another model"
    evaluated.evaluate(START)
    assert read_kept(directory).is_of(directory / STATE_FILE)
    (directory / STATE_FILE).write_bytes(b"damaged")
    assert not read_kept(directory).is_of(directory / STATE_FILE)


def test_a_site_that_never_trained_keeps_one_that_belongs_to_no_state(config):
    runtime = runtime_of(config)
    runtime.evaluate(START)
    assert read_kept(runtime.model.directory).state == ""
    assert not read_kept(runtime.model.directory).is_of(runtime.model.directory / STATE_FILE)


def test_a_cohort_without_validation_or_test_subjects_is_evaluated_as_well(config, tmp_path):
    folder = write_tiny_cohort(tmp_path / "small", "siemens", 0, n_by_split=(10, 0, 0))
    runtime = runtime_of(replace(config, data_dir=folder))
    runtime.train_round(START, 0)
    runtime.evaluate(START)
    kept = read_kept(runtime.model.directory)
    assert (kept.calibration.temperature, kept.calibration.threshold) == (1.0, 0.5)
    assert kept.calibration.remarks
    assert kept.test.counts.balanced_accuracy is None


def test_without_an_evaluation_there_is_none(tmp_path):
    assert read_kept(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda values: values | {"calibration": {"temperature": 0}}, "temperature"),
        (lambda values: values | {"calibration": "no"}, "group of settings"),
        (lambda values: values | {"format": "9"}, "format"),
        (lambda values: values | {"more": 1}, "more"),
        (lambda values: {name: value for name, value in values.items() if name != "state"}, "state"),
        (lambda values: values | {"test": {"hits": 3, "n_positive": 2}}, "at most n_positive"),
        (lambda values: values | {"release": {"min_specificity": 2}}, "min_specificity"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, says):
    keep(tmp_path, KEPT)
    path = tmp_path / CALIBRATION_FILE
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=f"calibration.json is damaged.*{says}"):
        read_kept(tmp_path)


def test_a_link_to_another_sites_is_not_followed(tmp_path):
    keep(tmp_path / "other", KEPT)
    (tmp_path / CALIBRATION_FILE).symlink_to(tmp_path / "other" / CALIBRATION_FILE)
    with pytest.raises(ArtifactError, match="symbolic link"):
        read_kept(tmp_path)


def test_half_a_file_is_refused(tmp_path):
    (tmp_path / CALIBRATION_FILE).write_text('{"format": "1", ')
    with pytest.raises(ArtifactError, match="is damaged"):
        read_kept(tmp_path)


def test_what_is_written_is_read(tmp_path):
    keep(tmp_path, KEPT)
    assert read_kept(tmp_path) == KEPT
    assert KeptCalibration.from_dict(json.loads(json.dumps(KEPT.to_dict()))) == KEPT


def test_a_full_disk_is_said(tmp_path, full_disk):
    with pytest.raises(StateError, match="calibration cannot be kept in state_dir"):
        keep(tmp_path, replace(KEPT, calibration=Calibration(remarks=("long " * 1000,))))
    assert not list(tmp_path.iterdir())
