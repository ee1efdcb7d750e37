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
from med_duallora.server.influence import Claim
from med_duallora.server.screening import RoundRules, ScreenedRound
from med_duallora.server.spool import Spool
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
    expected = plain.result(PREVIOUS)
    found = collected(RoundRules(clip=0, weight_limit=0), payloads).result(PREVIOUS)
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


@pytest.mark.parametrize(
    ("scale", "reason"), [(1.0, "times the median"), (1e6, "changes a tensor by"), (1e30, "changes a tensor by")]
)
def test_one_huge_update_is_left_out_and_the_others_count_as_if_it_had_not_come(scale: float, reason: str):
    good = {site: near(seed) for seed, site in enumerate("abc")}
    found = collected(RoundRules(), {**good, "bad": near(9, scale)}).result(PREVIOUS)
    assert list(found.refused) == ["bad"] and reason in found.refused["bad"]
    assert "bad" not in found.clipped and "bad" not in found.capped
    assert found.aggregation.sites == ("a", "b", "c")
    assert same(found.aggregation.tensors, collected(RoundRules(), good).result(PREVIOUS).aggregation.tensors)


@pytest.mark.parametrize(
    ("rules", "scales", "refused", "reason"),
    [
        (RoundRules(), [1, 1, 1, 9], [], "below the limit of 10"),
        (RoundRules(), [1, 1, 1, 11], ["3"], "above the limit of 10"),
        (RoundRules(norm_limit=0), [1, 1, 1, 100], [], "no limit is set"),
        (RoundRules(norm_limit=2), [1, 1, 1, 3], ["3"], "another limit"),
        (RoundRules(), [1, 100], [], "two sites: nobody can tell which one is wrong"),
        (RoundRules(), [1, 1e6], ["1"], "but no training gives this"),
        (RoundRules(), [1e6], ["0"], "nor that of a single site"),
        (RoundRules(norm_limit=0, clip=0), [1, 1, 1, 1e6], ["3"], "whatever else is switched off"),
        (RoundRules(max_change=0.005), [1, 0.1], ["0"], "another limit of the change"),
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
    """The largest numbers that float32 holds have a finite mean; their products have none in float32."""
    largest = {name: np.full_like(value, np.finfo(np.float32).max) for name, value in PREVIOUS.items()}
    collection = ScreenedRound(CONTRACT, 3, None, AGGREGATIONS[rule])
    collection.add("a", 3, 1.0, largest)
    found = collection.result(largest)
    assert all(np.isfinite(value).all() for value in found.aggregation.tensors.values())
    assert found.remark.startswith("the contributions are too large") != moves
    assert bool(found.aggregation.sites) == moves


def test_a_refused_outlier_does_not_count_towards_the_minimum():
    payloads = {"a": near(1), "b": near(2), "bad": near(3, 10.0)}
    found = collected(RoundRules(min_sites=3), payloads).result(PREVIOUS)
    assert found.aggregation.sites == () and "2 valid contributions, 3 needed" in found.remark


def test_what_counts_for_less_is_told_and_scaled_as_one_vector():
    payloads = {"a": near(1), "b": near(2), "c": near(3), "far": near(4, 0.05)}
    rules = RoundRules(weight_limit=0)
    found = collected(rules, payloads).result(PREVIOUS)
    lengths = {site: Claim.of(1.0, payload, PREVIOUS).norm for site, payload in payloads.items()}
    middle = np.median(list(lengths.values()))
    assert found.clipped == pytest.approx({s: middle / n for s, n in lengths.items() if n > middle}, rel=1e-12)
    shares = {"a": 0.1, "b": 0.2, "c": 0.3, "far": 0.4}
    for name, before in PREVIOUS.items():
        changes = (shares[s] * found.clipped.get(s, 1.0) * (payloads[s][name] - before.astype(float)) for s in shares)
        np.testing.assert_allclose(found.aggregation.tensors[name], before + sum(changes), rtol=0, atol=1e-6)
    assert found.limited()[0].startswith("updates scaled down to the length that the round allows: ")
    assert "far to 0.2" in found.limited()[0] and len(found.limited()) == 1


def test_weights_that_count_for_less_are_told():
    found = ScreenedRound(CONTRACT, 3, RoundRules(clip=0))
    for site, weight in (("a", 5.0), ("b", 10.0), ("c", 12.0), ("heavy", 1e9)):
        found.add(site, 3, weight, near(1))
    result = found.result(PREVIOUS)
    assert result.capped == {"heavy": pytest.approx(15.4)} and result.clipped == {}
    assert result.aggregation.total_weight == pytest.approx(5 + 10 + 12 + 15.4)
    assert result.limited() == ["weights above what the round allows count less: heavy with 15.4"]


def test_a_round_that_limits_nobody_says_nothing():
    assert collected(RoundRules(), {"a": near(1), "b": near(2)}).result(PREVIOUS).limited() == []


@pytest.mark.parametrize(("weighting", "is_refused"), [("subjects", True), ("uniform", False)])
def test_a_weight_that_contradicts_the_number_of_subjects_is_refused(weighting: str, is_refused: bool):
    collection = ScreenedRound(CONTRACT, 3, weighting=weighting)
    collection.add("a", 3, 7.0, near(1), n_subjects=7.0)
    collection.add("b", 3, 7.0, near(2))
    if is_refused:
        with pytest.raises(AggregationError, match="c has weight 50, but says that it trained on 7 subjects"):
            collection.add("c", 3, 50.0, near(3), n_subjects=7.0)
    else:
        collection.add("c", 3, 1.0, near(3), n_subjects=7.0)
    assert collection.n_sites == (2 if is_refused else 3)


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
def test_memory_does_not_grow_with_the_number_of_sites(rule: str, monkeypatch: pytest.MonkeyPatch):
    # what is read together is bounded by a constant, into which sixty adapters as small as these would fit
    monkeypatch.setattr("med_duallora.adapter.geometric.BLOCK_BYTES", 0)

    def peak(n_sites: int) -> int:
        tracemalloc.start()
        collection = ScreenedRound(CONTRACT, 3, None, AGGREGATIONS[rule])
        for index in range(n_sites):
            collection.add(str(index), 3, 1.0, PREVIOUS)
        collection.result(PREVIOUS)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # a few numbers of each site are kept; their tensors would be 57 times these bytes. Least of three: the first one
    # also holds what is loaded once, and coverage's probes of lines that ran for the first time
    assert min(peak(60) for _ in range(3)) < min(peak(3) for _ in range(3)) + 5 * CONTRACT.tensor_bytes


def test_a_full_disk_refuses_the_contribution_not_the_round(monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    collection = collected(RoundRules(), {"a": near(1)})
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "write", full)
        with pytest.raises(AggregationError, match="no room to keep the contribution of b: No space left"):
            collection.add("b", 3, 1.0, near(2))
    assert collection.result(PREVIOUS).aggregation.sites == ("a",)


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"norm_limit": 1.0}, "0 (off), or between 2 and 1e+06"),
        ({"norm_limit": -1}, "0 (off), or between 2 and 1e+06"),
        ({"norm_limit": float("inf")}, "a finite number"),
        ({"clip": 0.5}, "0 (off), or between 1 and 1e+06"),
        ({"weight_limit": 0.99}, "0 (off), or between 1 and 1e+06"),
        ({"max_change": 0}, "above 0 and at most 1e+06"),
        ({"max_change": float("nan")}, "a finite number"),
        ({"max_weight": 0}, "above 0 and at most 1e+09"),
        ({"max_weight": 1e10}, "above 0 and at most 1e+09"),
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
