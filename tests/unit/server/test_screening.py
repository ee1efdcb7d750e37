"""A whole round at the server: one bad site never spoils it, and too few sites never move the adapter."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import AggregationError
from med_duallora.server.aggregation import RoundAccumulator
from med_duallora.server.screening import RoundRules, ScreenedRound
from med_duallora.settings.config import JobConfig
from tests.unit.refused import refused
from tests.unit.tiny import random_payload, same

CONTRACT = EgressContract.for_job(JobConfig(backbone="cinema-tiny"))
PREVIOUS = random_payload(CONTRACT, 99)


def near(seed: int, scale: float = 0.01) -> dict[str, np.ndarray]:
    """A payload whose update has a norm proportional to ``scale``."""
    change = random_payload(CONTRACT, seed, scale)
    return {name: value + change[name] for name, value in PREVIOUS.items()}


def collected(rules: RoundRules, payloads: dict[str, dict[str, np.ndarray]]) -> ScreenedRound:
    found = ScreenedRound(CONTRACT, 3, rules)
    for weight, (site, payload) in enumerate(payloads.items(), start=1):
        found.add(site, 3, float(weight), payload)
    return found


def test_it_aggregates_exactly_as_the_accumulator_does():
    payloads = {site: near(seed) for seed, site in enumerate("abcd")}
    plain = RoundAccumulator(CONTRACT, 3)
    for weight, (site, payload) in enumerate(payloads.items(), start=1):
        plain.add(site, 3, float(weight), payload)
    expected, found = plain.result(PREVIOUS), collected(RoundRules(), payloads).result(PREVIOUS)
    assert same(found.aggregation.tensors, expected.tensors)
    assert found.aggregation.residual == expected.residual and found.aggregation.total_weight == expected.total_weight
    assert found.refused == {} and found.remark == ""


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_the_order_of_the_answers_changes_no_bit_whatever_the_rule(rule: str):
    payloads = {site: near(seed, 1.0) for seed, site in enumerate("abcd")}
    results = []
    for order in itertools.permutations(payloads):
        collection = ScreenedRound(CONTRACT, 3, None, AGGREGATIONS[rule])
        for site in order:
            collection.add(site, 3, 1.0 + ord(site), payloads[site])
        results.append(collection.result(PREVIOUS).aggregation)
    assert all(same(result.tensors, results[0].tensors) for result in results)
    assert len({result.residual for result in results}) == 1


def test_asking_twice_gives_the_same():
    collection = collected(RoundRules(), {site: near(seed) for seed, site in enumerate("abc")})
    assert same(collection.result(PREVIOUS).aggregation.tensors, collection.result(PREVIOUS).aggregation.tensors)


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e30])
def test_one_huge_update_is_left_out_and_the_others_count(scale: float):
    good = {site: near(seed) for seed, site in enumerate("abc")}
    found = collected(RoundRules(), {**good, "bad": near(9, scale)}).result(PREVIOUS)
    assert list(found.refused) == ["bad"] and "times the median" in found.refused["bad"]
    assert found.aggregation.sites == ("a", "b", "c")
    assert same(found.aggregation.tensors, collected(RoundRules(), good).result(PREVIOUS).aggregation.tensors)


@pytest.mark.parametrize(
    ("rules", "scales", "refused", "reason"),
    [
        (RoundRules(), [1, 1, 1, 9], [], "below the limit of 10"),
        (RoundRules(), [1, 1, 1, 11], ["3"], "above the limit of 10"),
        (RoundRules(norm_limit=0), [1, 1, 1, 1e6], [], "no limit is set"),
        (RoundRules(norm_limit=2), [1, 1, 1, 3], ["3"], "another limit"),
        (RoundRules(), [1, 1e6], [], "two sites: nobody can tell which one is wrong"),
        (RoundRules(), [1], [], "one site"),
        (RoundRules(), [0, 0, 0, 1], [], "the median site did not move: there is no scale to compare with"),
        (RoundRules(), [1, 1, 1, 50, 70], ["3", "4"], "two of five"),
        (RoundRules(), [1, 1, 1, 0], [], "a small update harms nobody"),
    ],
)
def test_the_norm_rule(rules: RoundRules, scales: list[float], refused: list[str], reason: str):
    payloads = {str(index): near(7, 0.01 * scale) for index, scale in enumerate(scales)}
    assert sorted(collected(rules, payloads).result(PREVIOUS).refused) == refused, reason


@pytest.mark.parametrize(("n_sites", "moves"), [(0, False), (1, False), (2, True)])
def test_too_few_contributions_leave_the_adapter_and_say_so(n_sites: int, moves: bool):
    payloads = {site: near(seed) for seed, site in enumerate("ab"[:n_sites])}
    found = collected(RoundRules(min_sites=2), payloads).result(PREVIOUS)
    assert same(found.aggregation.tensors, PREVIOUS) != moves
    assert bool(found.remark) != moves
    if not moves:
        assert found.remark == f"{n_sites} valid contributions, 2 needed: the global adapter stays as it was"
        assert found.aggregation.sites == ()


@pytest.mark.parametrize(("rule", "moves"), [("factors", True), ("svd", False)])
def test_a_result_that_is_not_finite_leaves_the_adapter_and_says_so(rule: str, moves: bool):
    """The largest numbers that a contract lets pass have a finite mean; their products have none in float32."""
    largest = {name: np.full_like(value, np.finfo(np.float32).max) for name, value in PREVIOUS.items()}
    collection = ScreenedRound(CONTRACT, 3, None, AGGREGATIONS[rule])
    collection.add("a", 3, 1.0, largest)
    found = collection.result(PREVIOUS)
    assert all(np.isfinite(value).all() for value in found.aggregation.tensors.values())
    assert same(found.aggregation.tensors, PREVIOUS) != moves
    assert found.remark.startswith("the contributions are too large") != moves
    assert bool(found.aggregation.sites) == moves


def test_a_refused_outlier_does_not_count_towards_the_minimum():
    payloads = {"a": near(1), "b": near(2), "bad": near(3, 10.0)}
    found = collected(RoundRules(min_sites=3), payloads).result(PREVIOUS)
    assert found.aggregation.sites == () and "2 valid contributions, 3 needed" in found.remark


FORGED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown site", {"site": "mallory"}, "mallory is not a site of this job"),
    ("a second contribution", {"site": "b"}, "already contributed"),
    ("an older round", {"round_index": 2}, "answers round 2, but round 3 is open"),
    ("a later round", {"round_index": 4}, "answers round 4"),
    ("weight zero", {"weight": 0.0}, "weight 0.0"),
    ("negative weight", {"weight": -1.0}, "weight -1.0"),
    ("weight that is not a number", {"weight": float("nan")}, "weight nan"),
    ("infinite weight", {"weight": float("inf")}, "weight inf"),
    ("enormous weight", {"weight": 1e12}, "at most 1e+09"),
    ("weight as text", {"weight": "7"}, "weight '7'"),
    ("no tensors", {"tensors": {}}, "is missing"),
    ("a tensor more", {"tensors": {**PREVIOUS, "x": np.zeros(1, np.float32)}}, "outside the contract"),
    ("not a number", {"tensors": {name: value * np.nan for name, value in PREVIOUS.items()}}, "not finite"),
]


@pytest.mark.parametrize(("case", "forged", "message"), FORGED, ids=[row[0] for row in FORGED])
def test_a_bad_contribution_is_refused_and_changes_nothing(case: str, forged: dict[str, Any], message: str):
    rules = RoundRules(sites=frozenset({"a", "b", "c"}))
    collection = collected(rules, {"a": near(1), "b": near(2)})
    expected = collection.result(PREVIOUS).aggregation.tensors
    contribution = {"site": "c", "round_index": 3, "weight": 1.0, "tensors": near(5), **forged}
    with pytest.raises(AggregationError) as caught:
        collection.add(**contribution)
    assert message in str(caught.value)
    assert collection.n_sites == 2 and same(collection.result(PREVIOUS).aggregation.tensors, expected)


@pytest.mark.parametrize("rule", AGGREGATIONS)
def test_memory_does_not_grow_with_the_number_of_sites(rule: str):
    def peak(n_sites: int) -> int:
        tracemalloc.start()
        collection = ScreenedRound(CONTRACT, 3, None, AGGREGATIONS[rule])
        for index in range(n_sites):
            collection.add(str(index), 3, 1.0, PREVIOUS)
        collection.result(PREVIOUS)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60) < peak(3) + 2 * CONTRACT.tensor_bytes


def test_a_full_disk_refuses_the_contribution_not_the_round(monkeypatch: pytest.MonkeyPatch):
    class Full:
        def seek(self, _where: int) -> None:
            raise OSError(28, "No space left on device")

    collection = collected(RoundRules(), {"a": near(1)})
    kept = collection._file
    monkeypatch.setattr(collection, "_file", Full())
    with pytest.raises(AggregationError, match="no room to keep the contribution of b: No space left"):
        collection.add("b", 3, 1.0, near(2))
    monkeypatch.setattr(collection, "_file", kept)
    assert collection.result(PREVIOUS).aggregation.sites == ("a",)


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"norm_limit": 1.0}, "0 (off), or between 2 and 1e+06"),
        ({"norm_limit": -1}, "0 (off), or between 2 and 1e+06"),
        ({"norm_limit": float("inf")}, "a finite number"),
        ({"min_sites": 0}, "between 1 and 10000"),
        ({"min_sites": "2"}, "a whole number"),
        ({"sites": frozenset({""})}, "a list of names, none of them empty"),
        ({"sites": "ge"}, "a list of texts"),
    ],
)
def test_rules_out_of_range_are_refused(values: dict[str, Any], limit: str):
    ((key, value),) = values.items()
    with refused(key, value, limit):
        RoundRules(**values)
