"""How a federation's size decides whether one training shows that a shared head pays."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.demo_size import dealt, features_of, gain_of

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import ConfigError

N_FEATURES, N_VIEWS = 24, 2


def vendors(signal: float, n: int = 240) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return two vendors whose scanners differ and whose labels depend on one direction in the same way."""
    rng = np.random.default_rng(5)
    found = []
    for vendor in range(2):
        labels = (np.arange(n) % 4 > 0).astype(int)
        seen = rng.standard_normal((n, N_VIEWS, N_FEATURES)) + 3 * vendor
        seen[:, :, 0] += signal * labels[:, None]
        found.append((seen, labels))
    return found


def test_subjects_are_dealt_out_once_and_alike_in_class() -> None:
    whole = vendors(1.0)
    sites = list(dealt(whole, 2, 20, 40, np.random.default_rng(0)))
    assert len(sites) == 4
    taken = [tuple(row) for seen, _, test, _ in sites for row in (*seen[:, 0], *test)]
    assert len(set(taken)) == len(taken) == 4 * 60
    for _, labels, _, truth in sites:
        assert (len(labels), labels.sum()) == (20, 15)
        assert (len(truth), truth.sum()) == (40, 30)


def test_small_sites_gain_by_a_shared_head_and_random_labels_show_none() -> None:
    gains = {
        signal: np.array(
            [gain_of(list(dealt(vendors(signal), 3, 12, 40, np.random.default_rng(draw)))) for draw in range(8)]
        )
        for signal in (1.5, 0.0)
    }
    found, error = gains[1.5].T
    assert np.mean(found > 1.96 * error) > 0.5, "twelve subjects are too few for a head of their own"
    assert abs(gains[0.0][:, 0].mean()) < 0.05


def test_too_few_subjects_are_said() -> None:
    for n, says in ((60, "a vendor has 240"), (4, "leave a site fewer than 2 of a class")):
        with pytest.raises(ConfigError, match=says):
            list(dealt(vendors(1.0), 3, n, 60, np.random.default_rng(0)))


def test_a_vendors_features_and_labels_are_of_all_its_subjects(tiny_cohorts: dict[str, Path]) -> None:
    folder = tiny_cohorts["ge"]
    subjects = PreparedCohort.read(folder).subjects
    ((seen, labels),) = features_of(folder)
    assert seen.shape == (len(subjects), 5, 384)
    assert labels.tolist() == [subject.label for subject in subjects]
    assert len({tuple(row) for row in seen[0]}) > 1, "views differ"
