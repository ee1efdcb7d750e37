import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from med_duallora.adapter.aggregations import CompensatedSum
from med_duallora.boundary.contract import MAX_WEIGHT, EgressContract
from med_duallora.errors import AggregationError
from med_duallora.server.aggregation import RoundAccumulator
from med_duallora.settings.config import JobConfig
from tests.unit.tiny import random_payload, same

JOB = JobConfig(backbone="cinema-tiny").with_overrides(["lora.rank_global=3"])
CONTRACT = EgressContract.for_job(JOB)
WITH_HEAD = EgressContract.for_job(JOB.with_overrides(["lora.head_policy=global"]))
NAME = next(iter(CONTRACT.tensors))
PREVIOUS = random_payload(CONTRACT, 99)


def contributions(n: int, seed: int = 0, contract: EgressContract = CONTRACT):
    rng = np.random.default_rng(seed)
    return [
        (f"site{i}", float(rng.integers(1, 200)), random_payload(contract, 1000 * seed + i, scale=10.0**-i))
        for i in range(n)
    ]


def aggregated(given_by_sites, contract: EgressContract = CONTRACT):
    accumulator = RoundAccumulator(contract, 4)
    for site, weight, tensors in given_by_sites:
        accumulator.add(site, 4, weight, tensors)
    return accumulator.result(PREVIOUS)


@pytest.mark.parametrize("contract", [CONTRACT, WITH_HEAD], ids=["adapter", "adapter and head"])
@pytest.mark.parametrize("n_sites", [1, 2, 4, 7])
def test_weighted_mean_is_numpys(n_sites, contract):
    sites = contributions(n_sites, contract=contract)
    result = aggregated(sites, contract)
    weights = [weight for _, weight, _ in sites]
    assert set(result.tensors) == set(contract.tensors)
    for name, spec in contract.tensors.items():
        expected = np.average([t[name].astype(np.float64) for *_, t in sites], axis=0, weights=weights)
        assert np.allclose(result.tensors[name], expected, rtol=2e-7, atol=0), name
        assert result.tensors[name].dtype == np.dtype(spec.dtype)
    assert result.total_weight == sum(weights)
    assert result.sites == tuple(f"site{i}" for i in range(n_sites))


def test_a_heavy_site_counts_by_its_weight():
    zeros = {name: np.zeros(spec.shape, np.float32) for name, spec in CONTRACT.tensors.items()}
    ones = {name: value + 1 for name, value in zeros.items()}
    result = aggregated([("small", 1.0, zeros), ("large", 3.0, ones)])
    assert all((value == 0.75).all() for value in result.tensors.values())


def test_one_site_gets_back_what_it_sent_and_loses_nothing():
    ((site, weight, tensors),) = contributions(1)
    result = aggregated([(site, weight, tensors)])
    assert same(result.tensors, tensors)
    assert result.residual == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_answers_does_not_change_a_bit(seed):
    sites = contributions(5, seed)
    expected = aggregated(sites)
    for order in itertools.permutations(sites):
        result = aggregated(order)
        assert same(result.tensors, expected.tensors)
        assert result.sites == expected.sites
        assert result.total_weight == expected.total_weight
        assert result.residual == expected.residual


def test_the_order_would_change_bits_in_plain_sums():
    """Teeth for the test above: the same contributions in plain float32 sums do depend on the order."""
    sites = contributions(5)
    sums = [sum(np.float32(w) * t[NAME] for _, w, t in order) for order in itertools.permutations(sites)]
    assert any(not np.array_equal(sums[0], other) for other in sums)


# multiples of 1 up to 2^90: their partial errors fit one double, so that even cancelling sums must come out exactly
WIDE = st.builds(lambda mantissa, exponent: mantissa * 2.0**exponent, st.integers(-(2**20), 2**20), st.integers(0, 70))


@settings(deadline=None)
@given(st.lists(WIDE, min_size=1, max_size=12), st.randoms())
def test_compensated_sum_is_the_exact_sum_in_any_order(terms, rng):
    shuffled = list(terms)
    rng.shuffle(shuffled)
    running = CompensatedSum((1,))
    for term in shuffled:
        running.add(np.array([term]))
    assert running.value()[0] == math.fsum(terms)


def test_compensated_sum_keeps_what_a_plain_sum_loses():
    running = CompensatedSum((1,))
    for term in (1e20, 1.0, -1e20):
        running.add(np.array([term]))
    assert running.value()[0] == 1.0
    assert 1e20 + 1.0 - 1e20 == 0.0


def direct_residual(sites) -> float:
    """|sum p B A - mean(B) mean(A)| / |sum p B A| over all layers, straight from the formula."""
    weights = np.array([weight for _, weight, _ in sites])
    shares = weights / weights.sum()
    lost = whole = 0.0
    for b, a in CONTRACT.pairs:
        bs = [tensors[b].astype(np.float64) for *_, tensors in sites]
        as_ = [tensors[a].astype(np.float64) for *_, tensors in sites]
        product = sum(p * (x @ y) for p, x, y in zip(shares, bs, as_, strict=True))
        means = [sum(p * x for p, x in zip(shares, factors, strict=True)) for factors in (bs, as_)]
        # the same difference, written as the covariance that averaging the factors drops
        covariance = sum(p * ((x - means[0]) @ (y - means[1])) for p, x, y in zip(shares, bs, as_, strict=True))
        assert np.allclose(product - means[0] @ means[1], covariance)
        lost += np.linalg.norm(covariance) ** 2
        whole += np.linalg.norm(product) ** 2
    return math.sqrt(lost / whole)


@pytest.mark.parametrize("n_sites", [2, 3, 6])
def test_residual_is_the_formulas(n_sites):
    sites = [(site, weight, random_payload(CONTRACT, i)) for i, (site, weight, _) in enumerate(contributions(n_sites))]
    assert aggregated(sites).residual == pytest.approx(direct_residual(sites), rel=1e-9)


@pytest.mark.parametrize(
    ("common", "signs", "residual", "reason"),
    [
        ("_a", (1, 1), 0.0, "a common A: averaging B is exact"),
        ("_b", (1, 1), 0.0, "a common B: averaging A is exact"),
        ("_", (1, -1), 1.0, "opposite factors have equal products: everything is lost"),
        ("_", (0, 0), 0.0, "nothing trained yet: nothing to lose"),
    ],
)
def test_residual_of_special_cases(common, signs, residual, reason):
    sites = []
    for i, sign in enumerate(signs):
        own = random_payload(CONTRACT, i)
        values = {name: np.float32(sign) * (PREVIOUS if common in name else own)[name] for name in own}
        sites.append((f"site{i}", 2.0, values))
    assert aggregated(sites).residual == pytest.approx(residual, abs=1e-7), reason


BAD = random_payload(CONTRACT, 5)


@pytest.mark.parametrize(
    ("contribution", "message", "reason"),
    [
        (("a", 4, 1.0, BAD), "a has already contributed to round 4", "a duplicate would count twice"),
        (("b", 3, 1.0, BAD), "b answers round 3, but round 4 is open", "a late answer"),
        (("b", 5, 1.0, BAD), "b answers round 5, but round 4 is open", "an early answer"),
        (("b", 4, 0.0, BAD), "weight 0.0", "no weight"),
        (("b", 4, -1.0, BAD), "weight -1.0", "a negative weight subtracts other sites"),
        (("b", 4, math.nan, BAD), "weight nan", "one NaN spoils every site's work"),
        (("b", 4, math.inf, BAD), "weight inf", "infinity drowns every other site"),
        (("b", 4, 2 * MAX_WEIGHT, BAD), "weight 2000000000.0.*at most 1e\\+09", "a sum could overflow"),
        (("b", 4, True, BAD), "weight True", "a flag is not a weight"),
        (("b", 4, "3", BAD), "weight '3'", "text"),
        (("b", 4, None, BAD), "weight None", "nothing"),
        (("b", 4, 1.0, {}), "b: tensor .* is missing", "an empty contribution"),
        (("b", 4, 1.0, {**BAD, "extra": BAD[NAME]}), "b: a tensor outside the contract", "an extra tensor"),
        (("b", 4, 1.0, {**BAD, NAME: BAD[NAME] * np.nan}), "b: tensor .* not finite", "NaN"),
        (("b", 4, 1.0, {**BAD, NAME: BAD[NAME].T}), "b: tensor .* has shape", "transposed"),
        (("b", 4, 1.0, {**BAD, NAME: BAD[NAME].astype(float)}), "b: tensor .* has dtype", "float64"),
    ],
)
def test_refused_contributions_leave_everything_as_it_was(contribution, message, reason):
    accumulator, untouched = RoundAccumulator(CONTRACT, 4), RoundAccumulator(CONTRACT, 4)
    for each in (accumulator, untouched):
        each.add("a", 4, 2.0, random_payload(CONTRACT, 1))
    with pytest.raises(AggregationError, match=message):
        accumulator.add(*contribution)
    assert accumulator.n_sites == 1, reason
    for each in (accumulator, untouched):
        each.add("c", 4, 1.0, random_payload(CONTRACT, 2))
    found, expected = accumulator.result(PREVIOUS), untouched.result(PREVIOUS)
    assert same(found.tensors, expected.tensors), reason
    assert (found.sites, found.total_weight, found.residual) == (("a", "c"), 3.0, expected.residual)


def test_a_refused_site_may_answer_again():
    accumulator = RoundAccumulator(CONTRACT, 4)
    with pytest.raises(AggregationError):
        accumulator.add("a", 4, 1.0, {})
    accumulator.add("a", 4, 1.0, BAD)
    assert accumulator.result(PREVIOUS).sites == ("a",)


def test_without_contributions_the_previous_state_goes_on():
    result = RoundAccumulator(CONTRACT, 4).result(PREVIOUS)
    assert same(result.tensors, PREVIOUS)
    assert (result.sites, result.total_weight, result.residual) == ((), 0.0, None)


@pytest.mark.parametrize("weight", [MAX_WEIGHT, 1e-300])
def test_extreme_numbers_stay_finite(weight):
    largest = {n: np.full(s.shape, np.finfo(np.float32).max, np.float32) for n, s in CONTRACT.tensors.items()}
    result = aggregated([(f"site{i}", weight, largest) for i in range(3)])
    assert all(np.isfinite(value).all() for value in result.tensors.values())
    assert math.isfinite(result.residual)


def stored_bytes(accumulator: RoundAccumulator) -> int:
    """Bytes of every array that can be reached from the accumulator."""
    seen: set[int] = set()
    waiting: list[object] = [accumulator]
    total = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or item is CONTRACT:
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            total += item.nbytes
            waiting.append(item.base)
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list | tuple | set):
            waiting += item
        elif hasattr(item, "__dict__"):
            waiting += vars(item).values()
    return total


def test_memory_does_not_grow_with_the_number_of_sites():
    accumulator = RoundAccumulator(CONTRACT, 0)
    empty = stored_bytes(accumulator)
    accumulator.add("site0", 0, 1.0, random_payload(CONTRACT, 0))
    first = stored_bytes(accumulator)
    assert first > empty + CONTRACT.tensor_bytes, "the sums are found; what only checks has none of the products"
    for i in range(1, 50):
        accumulator.add(f"site{i}", 0, 1.0 + i, random_payload(CONTRACT, i))
    assert stored_bytes(accumulator) == first
    assert accumulator.n_sites == 50
