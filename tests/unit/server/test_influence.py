"""How much a contribution counts, as numbers alone."""

import itertools

import numpy as np
import pytest

from med_duallora.server.influence import Claim, influence
from med_duallora.settings.screening import ScreeningConfig

OFF = ScreeningConfig(norm_limit=0, clip=0, weight_limit=0)


def claims(norms: list[float], weights: list[float] | None = None, change: float = 0.01) -> dict[str, Claim]:
    given = weights or [1.0] * len(norms)
    return {str(n): Claim(weight, norm, change) for n, (norm, weight) in enumerate(zip(norms, given, strict=True))}


@pytest.mark.parametrize(
    ("limits", "norms", "clipped", "reason"),
    [
        (ScreeningConfig(), [1, 1, 1, 9.5], {"3": 1 / 9.5}, "scaled to the median"),
        (ScreeningConfig(), [1, 2, 3], {"2": 2 / 3}, "the longer half of honest sites, too"),
        (ScreeningConfig(clip=2), [1, 1, 1, 1.9, 4], {"4": 0.5}, "another multiple"),
        (ScreeningConfig(clip=0), [1, 1, 1, 9], {}, "off"),
        (ScreeningConfig(), [1, 9], {}, "two sites have no majority"),
        (ScreeningConfig(), [0, 0, 0, 1], {"3": 0.0}, "most sites say that there is nothing new"),
        (ScreeningConfig(), [0, 0, 0, 0], {}, "nothing to scale"),
        (ScreeningConfig(), [1, 1.2, 1.5, 99], {"2": 1.2 / 1.5}, "what is refused does not move the median"),
        (ScreeningConfig(), [1, 5, 99], {}, "nor make a majority: two are left"),
    ],
)
def test_lengths(limits: ScreeningConfig, norms: list[float], clipped: dict[str, float], reason: str) -> None:
    assert influence(claims(norms), limits).clipped == pytest.approx(clipped), reason


@pytest.mark.parametrize(
    ("limits", "weights", "capped", "reason"),
    [
        (ScreeningConfig(), [10, 10, 10, 1e9], {"3": 14.0}, "a claim far above the median"),
        (ScreeningConfig(), [10, 10, 10, 14], {}, "at the limit"),
        (ScreeningConfig(weight_limit=10), [10, 10, 10, 99], {}, "another limit"),
        (ScreeningConfig(weight_limit=0), [10, 10, 10, 1e9], {"3": 1e4}, "off: the job's highest weight still holds"),
        (ScreeningConfig(), [10, 1e9], {"1": 1e4}, "two sites: the same"),
        (ScreeningConfig(max_weight=60), [10, 1e9], {"1": 60.0}, "another highest weight"),
        (
            ScreeningConfig(),
            [1e9, 1e9, 1e9, 10],
            {"0": 1e4, "1": 1e4, "2": 1e4},
            "claims are limited before the median",
        ),
        (ScreeningConfig(), [1e-300, 10, 12], {}, "a small weight harms nobody"),
    ],
)
def test_weights(limits: ScreeningConfig, weights: list[float], capped: dict[str, float], reason: str) -> None:
    found = influence(claims([1.0] * len(weights), weights), limits)
    assert found.capped == pytest.approx(capped), reason
    assert found.refused == {}, "a weight is limited, not refused"


@pytest.mark.parametrize("weights", [[1, 1, 50], [1, 0.01, 1], [3, 2]])
def test_uniform_weights_are_one_whatever_a_site_claims(weights: list[float]) -> None:
    found = influence(claims([1.0] * len(weights), weights), ScreeningConfig(), "uniform")
    assert found.capped == {str(n): 1.0 for n, weight in enumerate(weights) if weight != 1}


def test_a_change_beyond_all_training_is_refused_even_alone() -> None:
    found = influence({"a": Claim(1.0, 5.0, 11.0)}, OFF)
    assert found.refused == {"a": "it changes a tensor by 11 (root mean square), the limit of a round is 10"}
    assert influence({"a": Claim(1.0, 5.0, 10.0)}, OFF).refused == {}


def test_the_order_of_sites_changes_nothing() -> None:
    given = claims([1, 1.3, 0.7, 2, 30], [5, 6, 70, 8, 9])
    found = [influence(dict(order), ScreeningConfig()) for order in itertools.permutations(given.items())]
    assert all(one == found[0] for one in found)


def test_a_claim_is_measured_over_all_tensors_and_in_each() -> None:
    before = {"a": np.ones((2, 2), np.float32), "b": np.zeros(8, np.float32)}
    after = {"a": np.full((2, 2), 4.0, np.float32), "b": np.array([8, 0, 0, 0, 0, 0, 0, 0], np.float32)}
    found = Claim.of(3.0, after, before)
    assert found == Claim(3.0, pytest.approx(10.0), pytest.approx(3.0))


def test_the_largest_numbers_do_not_overflow() -> None:
    most = np.finfo(np.float32).max
    found = Claim.of(1.0, {"a": np.full(1000, most)}, {"a": np.full(1000, -most)})
    assert found.norm == pytest.approx(2 * float(most) * np.sqrt(1000)) and found.change == pytest.approx(
        2 * float(most)
    )


def test_nothing_sent_claims_nothing() -> None:
    assert Claim.of(1.0, {}, {}) == Claim(1.0, 0.0, 0.0)
