"""The rules of aggregation as computations; what they share with the contract is in tests/unit/server."""

import tracemalloc

import numpy as np
import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS, BestOfProducts, CompensatedSum, SideBySide, best_factors

SHAPES = {"b": (9, 3), "a": (3, 7), "bias": (2,)}
PAIRS = (("b", "a"),)


def sites(n: int, seed: int = 0) -> list[tuple[str, float, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    return [
        (
            f"site{i}",
            float(rng.integers(1, 99)),
            {k: rng.standard_normal(s).astype(np.float32) for k, s in SHAPES.items()},
        )
        for i in range(n)
    ]


def collected(given) -> dict[str, np.ndarray]:
    rule = BestOfProducts(SHAPES, PAIRS)
    for _, weight, tensors in given:
        rule.take(weight, tensors)
    return rule.result()


def mean_product(given) -> np.ndarray:
    total = sum(weight for _, weight, _ in given)
    return sum(weight / total * t["b"].astype(np.float64) @ t["a"].astype(np.float64) for _, weight, t in given)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_svd_is_the_best_of_its_rank(n):
    given = sites(n)
    found, mean = collected(given), mean_product(given)
    left, values, right = np.linalg.svd(mean)
    best = (left[:, :3] * values[:3]) @ right[:3]
    np.testing.assert_allclose(found["b"] @ found["a"], best, rtol=0, atol=1e-6)
    lost = np.sqrt(np.square(values[3:]).sum())
    assert np.linalg.norm(mean - found["b"] @ found["a"]) == pytest.approx(lost, abs=1e-9)
    np.testing.assert_allclose(found["a"] @ found["a"].T, np.eye(3), rtol=0, atol=1e-12)


def test_svd_of_one_site_loses_nothing():
    given = sites(1)
    found = collected(given)
    np.testing.assert_allclose(found["b"] @ found["a"], mean_product(given), rtol=0, atol=1e-12)


def test_svd_averages_what_is_in_no_pair():
    given = sites(3)
    total = sum(weight for _, weight, _ in given)
    expected = sum(weight / total * tensors["bias"].astype(np.float64) for _, weight, tensors in given)
    np.testing.assert_allclose(collected(given)["bias"], expected, rtol=0, atol=1e-12)


def test_a_product_of_zero_leaves_directions_to_learn_along():
    b, a = best_factors(np.zeros((9, 6)), np.random.default_rng(0).standard_normal((6, 7)), 3)
    assert not b.any()
    np.testing.assert_allclose(a @ a.T, np.eye(3), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("out", "into"), [(2, 7), (7, 2), (1, 1)])
def test_a_rank_above_the_layers_dimensions(out, into):
    rng = np.random.default_rng(0)
    b, a = rng.standard_normal((out, 8)), rng.standard_normal((8, into))
    new_b, new_a = best_factors(b, a, 4)
    assert (new_b.shape, new_a.shape) == ((out, 4), (4, into))
    np.testing.assert_allclose(new_b @ new_a, b @ a, rtol=0, atol=1e-12)


def test_the_rule_says_that_its_factors_are_new():
    assert AGGREGATIONS["svd"].new_factors and AGGREGATIONS["svd"].needs_pairs


def test_a_term_of_the_sum_costs_the_same_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, copied = np.random.default_rng(0), []
    monkeypatch.setattr(np, "hstack", lambda parts, real=np.hstack: copied.append(len(parts)) or real(parts))
    running, whole = SideBySide(9, 7), np.zeros((9, 7))
    for _ in range(50):
        b, a = rng.standard_normal((9, 2)), rng.standard_normal((2, 7))
        running.add(b, a)
        whole += b @ a
    assert len(copied) <= 1, "what is kept is put together once, when it is larger than the sum"
    b, a = running.factors()
    assert b.shape[1] <= 7
    np.testing.assert_allclose(b @ a, whole, rtol=0, atol=1e-12)


def test_averaging_in_turns_is_exact_and_keeps_the_resting_factor_to_the_bit():
    """Where every site has the same A, the mean of the products is the product of the means."""
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4, 24)).astype(np.float32)
    shapes = {"b": (24, 4), "a": a.shape}
    weights, bs = (7.0, 3.0, 11.0), rng.standard_normal((3, 24, 4)).astype(np.float32)
    collected = AGGREGATIONS["alternate"].begin(shapes, [("b", "a")])
    for weight, b in zip(weights, bs, strict=True):
        collected.take(weight, {"b": b, "a": a})
    found = collected.result()
    assert found["a"].astype(np.float32).tobytes() == a.tobytes()
    products = np.average([b.astype(float) @ a.astype(float) for b in bs], axis=0, weights=weights)
    np.testing.assert_allclose(found["b"] @ found["a"], products, rtol=0, atol=1e-12)


def test_adding_to_a_sum_needs_little_room_beside_it() -> None:
    """Arrays as large as a layer, made and thrown away at every contribution, leave a server's memory in pieces."""
    total, term = CompensatedSum((1024, 1024)), np.ones((1024, 1024))
    tracemalloc.start()
    try:
        total.add(term)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.25 * term.nbytes
    assert np.array_equal(total.value(), term)


def padded(b: np.ndarray, a: np.ndarray, rank: int) -> dict[str, np.ndarray]:
    """An adapter of a lower rank in the shapes of a higher one."""
    missing = rank - len(a)
    return {"b": np.pad(b, ((0, 0), (0, missing))), "a": np.pad(a, ((0, missing), (0, 0)))}


@pytest.mark.parametrize("rank", [6, 8])
def test_products_of_mixed_ranks_are_averaged_exactly_and_their_factors_are_not(rank):
    """Products of mixed ranks with a scale of each rank are a known defect: here alpha / r is the job's everywhere."""
    rng = np.random.default_rng(0)
    pairs = [(rng.standard_normal((24, r)), rng.standard_normal((r, 20))) for r in (2, 4)]
    weights = (3.0, 1.0)
    expected = np.average([b @ a for b, a in pairs], axis=0, weights=weights)
    lost = {}
    for name in ("svd", "factors"):
        rule = AGGREGATIONS[name].begin({"b": (24, rank), "a": (rank, 20)}, PAIRS)
        for weight, pair in zip(weights, pairs, strict=True):
            rule.take(weight, {n: value.astype(np.float32) for n, value in padded(*pair, rank).items()})
        found = rule.result()
        lost[name] = np.linalg.norm(found["b"] @ found["a"] - expected) / np.linalg.norm(expected)
    assert lost["svd"] < 1e-6
    assert lost["factors"] > 0.1, "this is why a site that trains fewer components takes no part in it"


def test_rules_of_products_are_those_that_put_the_strongest_component_first():
    assert {name for name, rule in AGGREGATIONS.items() if rule.of_products} == {"svd", "geometric-median"}
    for name in ("svd", "geometric-median"):
        rule = AGGREGATIONS[name].begin(SHAPES, PAIRS)
        for _, weight, tensors in sites(3):
            rule.take(weight, tensors)
        strengths = np.linalg.norm(rule.result()["b"], axis=0)
        assert (np.diff(strengths) < 0).all() and strengths[-1] > 0
