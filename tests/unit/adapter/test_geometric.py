"""The geometric median from inner products, against the same on whole vectors."""

import numpy as np
import pytest

from med_duallora.adapter.geometric import geometric_median, gram, weiszfeld

PAIRS = (("b", "a"), ("d", "c"))
SHAPES = {"b": (9, 3), "a": (3, 7), "d": (4, 2), "c": (2, 5), "bias": (6,)}


def sites(n: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()} for _ in range(n)]


def vector(tensors: dict[str, np.ndarray]) -> np.ndarray:
    products = [(tensors[b].astype(float) @ tensors[a].astype(float)).ravel() for b, a in PAIRS]
    return np.concatenate([*products, tensors["bias"].astype(float)])


def total_distance(point: np.ndarray, points: np.ndarray, weights: list[float]) -> float:
    return float((np.array(weights) * np.linalg.norm(points - point, axis=1)).sum())


def test_inner_products_are_those_of_the_whole_vectors() -> None:
    given = sites(5)
    whole = np.stack([vector(tensors) for tensors in given])
    np.testing.assert_allclose(gram(given, PAIRS), whole @ whole.T, rtol=1e-10, atol=1e-10)


class Reads(list):
    """Contributions, and how often one was read."""

    n = 0

    def __getitem__(self, index):
        self.n += 1
        return super().__getitem__(index)


def test_contributions_are_read_in_blocks_and_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one, together = Reads(sites(12)), Reads(sites(12))
    monkeypatch.setattr("med_duallora.adapter.geometric.BLOCK_BYTES", 0)
    expected = gram(one_by_one, PAIRS)
    monkeypatch.setattr(
        "med_duallora.adapter.geometric.BLOCK_BYTES", 4 * sum(v.nbytes * 2 for v in sites(1)[0].values())
    )
    assert np.array_equal(gram(together, PAIRS), expected)
    assert (one_by_one.n, together.n) == (12 * 13 // 2, 12 + 4 + 8), "pairs; and blocks of four"


@pytest.mark.parametrize("n", [3, 4, 9])
def test_no_other_point_is_closer_to_all(n: int) -> None:
    given, weights = sites(n, seed=n), [1.0 + i % 3 for i in range(n)]
    points = np.stack([vector(tensors) for tensors in given])
    found = geometric_median(given, weights, PAIRS)
    assert sum(found) == pytest.approx(sum(weights))
    median = np.array(found) / sum(found) @ points
    least = total_distance(median, points, weights)
    rng = np.random.default_rng(0)
    for length in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            assert total_distance(median + length * rng.standard_normal(median.shape), points, weights) > least
    assert total_distance(points.mean(axis=0), points, weights) >= least


def test_of_numbers_it_is_the_median() -> None:
    points = np.array([[0.0], [1.0], [2.0], [7.0], [1e6]])
    shares = np.array(weiszfeld(points @ points.T, [1.0] * 5)) / 5
    assert float(shares @ points[:, 0]) == pytest.approx(2.0, abs=1.5)  # to within the smoothing: 1e-6 of 1e6


@pytest.mark.parametrize("far", [10.0, 1e3, 1e6])
def test_one_site_pulls_no_further_the_farther_it_is(far: float) -> None:
    rng = np.random.default_rng(1)
    good = rng.standard_normal((4, 30))
    points = np.vstack([good, far * rng.standard_normal(30)])
    shares = np.array(weiszfeld(points @ points.T, [1.0] * 5)) / 5
    assert np.linalg.norm(shares @ points - good.mean(axis=0)) < 2 * np.linalg.norm(good, axis=1).max()


@pytest.mark.parametrize("points", [np.ones((3, 4)), np.zeros((2, 4)), np.ones((1, 4))])
def test_where_all_agree_the_weights_stay(points: np.ndarray) -> None:
    weights = [float(i + 1) for i in range(len(points))]
    assert weiszfeld(points @ points.T, weights) == pytest.approx(weights)
