"""What speaks against trusting a prediction: each reason alone, at its limits, and none for a usual scan."""

from dataclasses import replace

import numpy as np
import pytest

from med_duallora.cohorts.heart_place import CONFIDENT
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.inference.scan import Scan
from med_duallora.inference.trust import Distance, against_trust, distance_of
from med_duallora.site.reference import fit_reference

N = 40


@pytest.fixture(scope="module")
def reference(tiny_cohorts) -> dict[str, np.ndarray]:
    subject = PreparedCohort.read(tiny_cohorts["ge"]).subjects[0]
    sizes = [(1.2 + 0.01 * i, 1.3, 8.0) for i in range(N)]
    subjects = [replace(subject, spacing=size, n_slices=8 + i % 3) for i, size in enumerate(sizes)]
    return fit_reference(np.random.default_rng(0).standard_normal((N, 10)), subjects)


def scan(**changes: object) -> Scan:
    usual = Scan("s", np.zeros((2, 8, 8, 9), np.uint8), (1.3, 1.3, 8.0), "motion", 0.8)
    return replace(usual, **changes)


NEAR = Distance(3.0, 0.4, 5.0, N)


def test_nothing_speaks_against_a_usual_scan(reference) -> None:
    assert against_trust(scan(), reference, NEAR) == ()
    assert against_trust(scan(spacing=None, crop_confidence=None), reference, NEAR) == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spacing": (1.1, 1.3, 8.0)}, "voxel size along x outside the training range: 1.1 mm, not 1.2 to 1.59 mm"),
        ({"spacing": (1.3, 1.3, 10.0)}, "voxel size along z outside the training range: 10 mm, not 8 to 8 mm"),
        ({"volume": np.zeros((2, 8, 8, 7))}, "number of slices at 10 mm outside the training range: 7, not 8 to 10"),
        ({"volume": np.zeros((2, 8, 8, 11))}, "number of slices at 10 mm outside the training range: 11, not 8 to 10"),
        ({"crop_confidence": 0.1}, "the heart was not found with confidence, the crop may miss it: confidence 0.10"),
    ],
)
def test_each_reason_has_its_sentence(changes: dict[str, object], sentence: str, reference) -> None:
    assert against_trust(scan(**changes), reference, NEAR) == (sentence,)


def test_limits_themselves_are_usual(reference) -> None:
    at_limits = scan(spacing=(1.2, 1.3005, 8.0), volume=np.zeros((2, 8, 8, 10)), crop_confidence=CONFIDENT)
    assert against_trust(at_limits, reference, replace(NEAR, value=NEAR.usual)) == ()


def test_a_strange_scan_is_farther_than_the_training_subjects(reference) -> None:
    usual = distance_of(reference, np.zeros(10))
    strange = distance_of(reference, np.full(10, 9.0))
    assert (usual.nearer, strange.nearer) == (0, 1)
    (sentence,) = against_trust(scan(), reference, strange)
    assert sentence.startswith("the scan looks unlike the training subjects: farther from them than 100% of the 40 are")


def test_about_one_usual_scan_in_twenty_is_called_strange(reference) -> None:
    drawn = np.random.default_rng(1).standard_normal((400, 10))
    found = [distance_of(reference, row) for row in drawn]
    assert 0.01 < np.mean([item.value > item.usual for item in found]) < 0.15


def test_a_state_without_statistics_says_so(reference) -> None:
    assert distance_of({}, np.zeros(10)) is None
    (sentence,) = against_trust(scan(), {}, None)
    assert "the model holds no statistics" in sentence
