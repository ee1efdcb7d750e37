"""A site in several runs: which state it goes on with, and what happens to it between them."""

import errno
import logging
import shutil
import time
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import StateError, UnfitError
from med_duallora.settings.config import SiteConfig
from med_duallora.site import feature_cache
from med_duallora.site.state import SiteStateStore
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import same
from tests.unit.tiny_site import START, cohort_with, files_of, runtime_of


@pytest.fixture
def config(tiny_sites) -> SiteConfig:
    return tiny_sites["siemens"]


def runtime_in(config: SiteConfig, lineage: Lineage):
    runtime = runtime_of(config)
    runtime.model.follow(lineage)
    return runtime


def test_a_site_that_misses_round_0_of_a_rerun_does_not_continue_the_earlier_run(config, caplog):
    earlier = runtime_in(config, Lineage.begin())
    earlier.train_round(START, 0)
    rerun = runtime_in(config, Lineage.begin())
    fresh = rerun.kept_state()
    rerun.validate(START, 1)
    assert same(rerun.kept_state(), fresh)
    rerun.train_round(START, 1)
    assert (
        "no usable local state from before round 2 of this training: the local adapter starts from scratch"
        in caplog.text
    )


def test_two_jobs_of_one_experiment_at_once_do_not_meet(config, tmp_path):
    jobs = [runtime_in(config, Lineage.begin()) for _ in range(2)]
    alone = runtime_in(replace(config, state_dir=tmp_path / "alone"), Lineage.begin())
    for round_index in range(2):
        expected = alone.train_round(START, round_index)
        for job in jobs:
            assert same(job.train_round(START, round_index).tensors, expected.tensors)
            assert same(job.kept_state(), alone.kept_state())


def test_two_processes_of_one_run_do_not_train_at_once(config):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    before = files_of(runtime)
    other = SiteStateStore(runtime.model.directory, runtime.model.store.owner)
    with other.locked(), pytest.raises(StateError, match="another process at this site"):
        runtime.train_round(START, 1)
    assert files_of(runtime) == before
    runtime.train_round(START, 1)


def test_a_resumed_run_goes_on_bit_for_bit(config, tmp_path):
    first = Lineage.begin()
    begun = runtime_in(config, first)
    begun.train_round(START, 0)
    left = files_of(begun)
    resumed = runtime_in(config, first.continued(1))
    whole = runtime_in(replace(config, state_dir=tmp_path / "whole"), Lineage.begin())
    whole.train_round(START, 0)
    assert resumed.validate(START, 1) == whole.validate(START, 1)
    assert same(resumed.train_round(START, 1).tensors, whole.train_round(START, 1).tensors)
    assert same(resumed.kept_state(), whole.kept_state())
    assert files_of(begun) == left, "what the first run left can be gone on from again"


def test_a_cohort_that_changed_since_the_last_round_is_said(config, tmp_path, caplog):
    folder = write_tiny_cohort(tmp_path / "cohort", "siemens", 0)
    runtime_of(replace(config, data_dir=folder)).train_round(START, 0)
    assert not caplog.text
    cohort_with(folder, lambda row: {**row, "split": "train"})
    changed = runtime_of(replace(config, data_dir=folder))
    assert changed.train_round(START, 1).metrics["n_subjects"] == 10
    assert caplog.text.count("the cohort's table changed since round 1: training continues") == 1
    assert str(folder) not in caplog.text
    changed.train_round(START, 2)
    assert caplog.text.count("changed since") == 1, "said once"


def test_another_backbone_is_refused_and_nothing_is_lost(config, tmp_path):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    before = files_of(runtime)
    other = tmp_path / "other.safetensors"
    save_file({name: value * 1.5 for name, value in load_file(config.backbone_checkpoint).items()}, other)
    with pytest.raises(StateError, match="another backbone checkpoint"):
        runtime_of(replace(config, backbone_checkpoint=other)).train_round(START, 1)
    assert files_of(runtime) == before


def test_a_full_disk_in_the_feature_cache_changes_no_bit_of_a_round(config, tmp_path, monkeypatch, caplog):
    expected = runtime_of(config).train_round(START, 0)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(feature_cache, "save_file", full)
    update = runtime_of(replace(config, state_dir=tmp_path / "s", cache_dir=tmp_path / "c")).train_round(START, 0)
    assert same(update.tensors, expected.tensors)
    assert update.metrics["cache_hits"] == 0
    assert caplog.text.count("the feature cache cannot be written (No space left on device)") == 1


def test_a_state_directory_that_cannot_be_made_is_found_at_the_start(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnfitError, match=r"state_dir = '.*', but .*file is not a folder"):
        runtime_of(replace(config, state_dir=tmp_path / "file" / "state"))


def test_a_state_directory_that_vanishes_is_made_again_and_said(config, caplog):
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    shutil.rmtree(config.state_dir)
    with caplog.at_level(logging.WARNING):
        runtime.train_round(START, 1)
    assert "the local adapter starts from scratch" in caplog.text


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_is_wrong_changes_nothing(config, tmp_path, monkeypatch, hours):
    right = runtime_of(config)
    expected = [right.train_round(START, index).tensors for index in range(2)]
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600 * hours)
    wrong = runtime_of(replace(config, state_dir=tmp_path / "s", cache_dir=tmp_path / "c"))
    for index in range(2):
        update = wrong.train_round(START, index)
        assert same(update.tensors, expected[index])
        assert 0 <= update.metrics["seconds"] < 600
