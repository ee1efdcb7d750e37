"""End-diastole and end-systole by the blood pool: on a phantom, and on what nothing moves in."""

import numpy as np
from benchmarks.blood_pool import off_by, phantom_cine

from med_duallora.cohorts.dicom.phases import find_phases


def test_phases_of_a_phantom_are_found_within_one_frame() -> None:
    cine, spacing, ed, es = phantom_cine(2, "ge", "DCM", first=17)
    phases = find_phases(cine, spacing)
    assert off_by(phases.ed, ed, cine.shape[3]) <= 1
    assert off_by(phases.es, es, cine.shape[3]) <= 1
    assert phases.blood.shape == (cine.shape[3],)


def test_where_nothing_moves_both_are_one_frame() -> None:
    still = np.repeat(np.random.default_rng(0).integers(0, 900, (40, 40, 4, 1)), 10, axis=3)
    phases = find_phases(still, (1.5, 1.5, 8.0))
    assert phases.ed == phases.es
    flat = find_phases(np.zeros((40, 40, 4, 10)), (1.5, 1.5, 8.0))
    assert flat.ed == flat.es
