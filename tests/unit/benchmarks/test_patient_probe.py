import json
import sys

import numpy as np
import pytest
from benchmarks import patient_probe

from med_duallora.cohorts.prepared import PreparedCohort
from tests.unit.truths import with_label_maps


@pytest.fixture
def mapped(tiny_cohorts, tmp_path):
    return with_label_maps(tiny_cohorts["siemens"], tmp_path / "mapped")


def test_measures_are_volumes_and_their_changes(mapped, tiny_cohorts):
    subjects = PreparedCohort.read(mapped).subjects
    found = patient_probe.measures_of(subjects)
    assert found is not None
    assert found.shape == (len(subjects), 9)
    assert np.allclose(found[:, 6:], found[:, 3:6] - found[:, :3])
    assert (found[:, 2] > 0).all()  # the left ventricle
    assert patient_probe.measures_of(PreparedCohort.read(tiny_cohorts["siemens"]).subjects) is None


@pytest.fixture
def probe(tiny_checkpoint, tmp_path, monkeypatch):
    """Return a function that runs the probe on a cohort and returns what it wrote."""

    def run(data):
        out = tmp_path / "probe.json"
        words = ["--data", data, "--backbone", "cinema-tiny", "--backbone-checkpoint", tiny_checkpoint]
        words += ["--random-seeds", 1, "--repeats", 1, "--out", out]
        monkeypatch.setattr(sys, "argv", ["patient_probe.py", *map(str, words)])
        monkeypatch.setattr(patient_probe, "N_BOOTSTRAPS", 20)
        patient_probe.main()
        return json.loads(out.read_text())

    return run


def test_the_probe_has_a_row_for_measures_where_there_are_label_maps(probe, mapped, tiny_cohorts, capsys):
    found = probe(mapped)
    assert {"the same by marks", "judged - measures of label maps"} <= set(found)
    assert "| measures of label maps |" in capsys.readouterr().out
    assert "the same by marks" not in probe(tiny_cohorts["siemens"])
