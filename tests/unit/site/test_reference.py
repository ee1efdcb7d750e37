"""Statistics of a site's training subjects: distances that are known, leaving one out, ranges, what a state keeps."""

import json
from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.site.model import SiteModel
from med_duallora.site.reference import distances, fit_reference
from med_duallora.site.state import MODEL_FILE, read_state
from tests.unit.tiny import same
from tests.unit.tiny_site import JOB, START, runtime_of


@pytest.fixture(scope="module")
def subject(tiny_cohorts) -> PreparedSubject:
    return PreparedCohort.read(tiny_cohorts["siemens"]).subjects[0]


def drawn(n: int, n_features: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_features)) @ rng.standard_normal((n_features, n_features)) + 5


def test_with_many_subjects_it_is_the_distance_of_mahalanobis(subject: PreparedSubject) -> None:
    values = drawn(20_000, 3)
    reference = fit_reference(values, [subject] * len(values))
    scan = drawn(5, 3, seed=1)
    offset = scan - values.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offset, np.linalg.inv(np.cov(values.T)), offset))
    np.testing.assert_allclose(distances(reference, scan), expected, rtol=0.02)


@pytest.mark.parametrize(("n", "n_features"), [(8, 20), (30, 6)])
def test_a_subject_is_measured_from_the_others(n: int, n_features: int, subject: PreparedSubject) -> None:
    values = drawn(n, n_features)
    reference = fit_reference(values, [subject] * n)
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    shrinkage = float(reference["rest"][0])  # the mean variance of standardised features is 1
    found = []
    for row in range(n):
        others = np.delete(z, row, axis=0)
        covariance = (1 - shrinkage) * np.cov(others.T, bias=True) + shrinkage * np.eye(n_features)
        offset = z[row] - others.mean(axis=0)
        found.append(np.sqrt(offset @ np.linalg.inv(covariance) @ offset))
    np.testing.assert_allclose(reference["distances"], sorted(found), rtol=1e-6)


def test_what_is_constant_among_the_subjects_says_nothing(subject: PreparedSubject) -> None:
    values = np.concatenate([drawn(10, 4), np.full((10, 1), 3.0)], axis=1)
    reference = fit_reference(values, [subject] * 10)
    moved = values[:1] + np.array([0, 0, 0, 0, 1e6])
    np.testing.assert_array_equal(distances(reference, moved), distances(reference, values[:1]))


def test_too_few_subjects_have_ranges_but_no_distances(subject: PreparedSubject) -> None:
    others = [replace(subject, spacing=(1.5, 1.4, 8.0), n_slices=9), replace(subject, spacing=None, n_slices=11)]
    reference = fit_reference(drawn(2, 4), others)
    assert reference["distances"].size == 0
    np.testing.assert_array_equal(reference["spacing"], [(1.5, 1.4, 8.0)] * 2)
    np.testing.assert_array_equal(reference["n_slices"], [9, 11])
    assert np.isfinite(distances(reference, drawn(2, 4))).all()


def test_a_state_keeps_them_and_says_what_it_belongs_to(tiny_sites) -> None:
    config = tiny_sites["siemens"]
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    _, state = read_state(runtime.model.directory / "state.safetensors")
    summaries = drawn(1, len(state.reference["mean"]))
    assert len(state.reference["distances"]) == len(runtime.train_subjects)
    later = SiteModel("siemens", JOB, config)
    later.recall()
    assert same(later.reference, runtime.model.reference)
    assert distances(later.reference, summaries) > 0
    facts = json.loads((runtime.model.directory / MODEL_FILE).read_text())
    assert facts["site"] == "siemens"
    assert facts["job"] == JOB.to_dict()
    assert facts["lineage"] == runtime.model.lineage.to_list()
    assert (runtime.model.directory / MODEL_FILE).stat().st_mode & 0o777 == 0o600
