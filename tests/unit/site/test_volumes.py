"""Volumes in memory: read once, bounded, never another one's under a known hash."""

import dataclasses
import os

import numpy as np
import pytest

import med_duallora.site.volumes as volumes_module
from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.errors import CohortError
from med_duallora.site.volumes import Volumes
from tests.conftest import write_tiny_cohort


@pytest.fixture
def subjects(tmp_path):
    return PreparedCohort.read(write_tiny_cohort(tmp_path / "cohort", "ge", 0)).split("train")


@pytest.fixture
def reads(monkeypatch):
    found = []
    monkeypatch.setattr(
        volumes_module, "load_volume", lambda subject: found.append(subject.subject) or load_volume(subject)
    )
    return found


def test_a_volume_is_read_once_and_nobody_can_change_it(subjects, reads):
    volumes = Volumes()
    first = volumes.of(subjects[0])
    assert np.array_equal(first, load_volume(subjects[0]))
    assert volumes.of(subjects[0]) is first
    assert volumes.sha256(subjects[0]) != volumes.sha256(subjects[1])
    assert reads == [subjects[0].subject, subjects[1].subject]
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 0


def test_the_hash_of_a_file_that_has_not_changed_is_known_to_the_whole_process(subjects, reads):
    """A study asks for the same files in every run, and need not read and unpack them in each."""
    first, second = subjects[:2]
    known = Volumes().sha256(first)
    assert Volumes().sha256(first) == known
    assert len(reads) == 1
    first.es_path.write_bytes(second.es_path.read_bytes())
    assert Volumes().sha256(first) != known
    assert len(reads) == 2


def test_memory_is_bounded_and_those_unused_for_longest_go_first(subjects, reads):
    size = load_volume(subjects[0]).nbytes
    volumes = Volumes(2 * size)
    for index in (0, 1, 0, 2, 0, 1):
        volumes.of(subjects[index])
    names = [subjects[index].subject for index in (0, 1, 2, 1)]
    assert reads == names, "the third took the second one's place, not the first one's"
    assert volumes.sha256(subjects[2]), "hashes are kept"
    assert reads == names


def test_what_does_not_fit_is_read_each_time(subjects, reads):
    volumes = Volumes(1)
    for _ in range(2):
        assert volumes.of(subjects[0]).shape[0] == 2
    assert len(reads) == 2


def test_a_volume_that_changes_is_noticed_although_it_is_in_memory(subjects):
    volumes, (first, second) = Volumes(), subjects[:2]
    volumes.of(first)
    os.utime(first.ed_path, ns=(1, 1))
    assert np.array_equal(volumes.of(first), load_volume(first)), "touched, but the same"
    first.es_path.write_bytes(second.es_path.read_bytes())
    with pytest.raises(CohortError, match="changed while the job runs; start the job again"):
        volumes.of(first)


def test_a_volume_that_is_gone_is_named(subjects):
    volumes = Volumes()
    volumes.of(subjects[0])
    subjects[0].es_path.unlink()
    with pytest.raises(CohortError, match=subjects[0].es_path.name):
        volumes.of(subjects[0])


def test_a_known_hash_does_not_hide_a_table_that_is_wrong(subjects):
    Volumes().sha256(subjects[0])
    with pytest.raises(CohortError, match="slices"):
        Volumes().sha256(dataclasses.replace(subjects[0], n_slices=subjects[0].n_slices + 1))
