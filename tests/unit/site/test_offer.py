"""What a step of a site offers, and that nothing but a step offers anything."""

import dataclasses

import numpy as np
import pytest

from med_duallora.errors import TrainingAborted, TrainingDiverged
from med_duallora.settings.config import SiteConfig
from med_duallora.site.offer import Offer
from tests.unit.tiny import random_payload
from tests.unit.tiny_site import START, runtime_of

VALUE = np.arange(6, dtype=np.float32).reshape(2, 3)
OFFER = Offer.of_round(1, 6.0, {"a": VALUE}, {"train_loss": 0.5})


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["siemens"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("a", VALUE + 1, "other numbers"),
        ("a", np.where(VALUE == 0, np.float32(-0.0), VALUE), "another bit"),
        ("a", VALUE.reshape(3, 2), "another shape"),
        ("a", VALUE.astype(np.float64), "another dtype"),
        ("b", VALUE, "another name"),
    ],
)
def test_an_offer_holds_exactly_its_tensors(name: str, value: np.ndarray, reason: str) -> None:
    assert OFFER.holds("a", VALUE.copy())
    assert not OFFER.holds(name, value), reason


def test_an_offer_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OFFER.round_index = 2  # type: ignore[misc]
    for part in (OFFER.metrics, OFFER.digests):
        with pytest.raises(TypeError):
            part["x"] = 1  # type: ignore[index]
    metrics = {"train_loss": 0.5}
    offer = Offer(metrics)
    metrics["age"] = 61.0
    assert offer.metrics == {"train_loss": 0.5}


def test_a_round_offers_what_it_returns(config: SiteConfig) -> None:
    runtime = runtime_of(config)
    assert runtime.offered is None
    validation = runtime.validate(START, 0)
    assert runtime.offered is None, "scores offer no tensor"
    update = runtime.train_round(START, 0)
    offer = runtime.offered
    assert offer is not None
    assert (offer.round_index, offer.weight, offer.metrics) == (0, update.weight, update.metrics)
    assert offer.is_of(update.tensors) and not offer.is_of(START)
    assert runtime.reported == {**validation, **update.metrics}


def test_what_changes_the_model_afterwards_offers_nothing(config: SiteConfig) -> None:
    runtime = runtime_of(config)
    update = runtime.train_round(START, 0)
    runtime.model.network.load_values(runtime.model.network.plan.sent, random_payload(runtime.contract))
    assert runtime.offered.is_of(update.tensors)


def test_a_step_from_another_adapter_ends_the_offer(config: SiteConfig) -> None:
    runtime = runtime_of(config)
    update = runtime.train_round(START, 0)
    runtime.evaluate(update.tensors)
    assert runtime.offered is not None, "the model still holds what was offered"
    runtime.validate(random_payload(runtime.contract), 1)
    assert runtime.offered is None


@pytest.mark.parametrize("fails", ["stopped", "diverged"])
def test_a_round_that_failed_offers_nothing(fails: str, config: SiteConfig) -> None:
    runtime = runtime_of(config)
    runtime.train_round(START, 0)
    if fails == "stopped":
        with pytest.raises(TrainingAborted):
            runtime.train_round(START, 1, should_stop=lambda: True)
    else:
        with pytest.raises(TrainingDiverged):
            runtime.train_round({name: np.full_like(value, 1e30) for name, value in START.items()}, 1)
    assert runtime.offered is None
