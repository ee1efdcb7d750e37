"""One bad site and the real aggregator, called by the workflow of the job: the round goes on without it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_constant import FLContextKey, ServerCommandKey
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.server.aggregator import DualLoRAAggregator
from med_duallora.flare.server.rounds import TrainingRounds
from med_duallora.flare.server.selector import AdapterSelector
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.measures import KEY_MEASURE
from med_duallora.settings.config import JobConfig
from tests.unit.flare.server.test_aggregator import Server, near
from tests.unit.flare.standin import Engine, client, from_site, sent_by, server_context
from tests.unit.tiny import random_payload, same

NAN, INF = float("nan"), float("inf")
SITES = ["ge", "canon", "philips", "siemens", "mallory"]


@pytest.fixture
def server(engine: Engine, contract: EgressContract) -> Server:
    found = Server(engine, random_payload(contract, seed=9))
    found.aggregator = DualLoRAAggregator(sites=SITES, clip=0)
    return found


Change = Callable[[Shareable], Any]


def meta(**entries: Any) -> Change:
    return lambda reply: reply["DXO"]["meta"].update(entries)


def tensors(change: Callable[[np.ndarray], Any]) -> Change:
    def apply(reply: Shareable) -> None:
        data = reply["DXO"]["data"]
        data.update({name: change(value) for name, value in data.items()})

    return apply


def one(name: Any, value: Any) -> Change:
    return lambda reply: reply["DXO"]["data"].update({name: value})


def beside(key: str, value: Any) -> Change:
    return lambda reply: reply.update({key: value})


def header(key: str, value: Any) -> Change:
    return lambda reply: reply.set_header(key, value)


FORGED: list[tuple[str, Change, str]] = [
    ("an older round", meta(current_round=-1), "the round is not an integer between 0 and 1"),
    ("a later round", meta(current_round=1), "answers round 1, but round 0 is open"),
    ("a round after the last", meta(current_round=7), "the round is not an integer between 0 and 1"),
    ("a round that is true", meta(current_round=False), "the round is not an integer"),
    ("weight zero", meta(NUM_STEPS_CURRENT_ROUND=0.0), "the weight is not a number above 0"),
    ("a negative weight", meta(NUM_STEPS_CURRENT_ROUND=-6.0), "the weight is not a number above 0"),
    ("a weight that is not a number", meta(NUM_STEPS_CURRENT_ROUND=NAN), "the weight is not a number above 0"),
    ("an infinite weight", meta(NUM_STEPS_CURRENT_ROUND=INF), "the weight is not a number above 0"),
    ("an enormous weight", meta(NUM_STEPS_CURRENT_ROUND=1e300), "the weight is not a number above 0 and at most 1e+09"),
    ("weights in an array", meta(NUM_STEPS_CURRENT_ROUND=np.ones(9)), "the weight is not a number above 0"),
    ("not a number among the tensors", tensors(lambda v: v * np.float32(NAN)), "not finite"),
    ("infinity among the tensors", tensors(lambda v: np.full_like(v, np.inf)), "not finite"),
    ("another dtype", tensors(lambda v: v.astype(np.float64)), "has dtype float64"),
    ("another shape", tensors(lambda v: v.T), "has shape"),
    ("a tensor more", one("pixels", np.zeros(3, np.float32)), "a tensor outside the contract: 'pixels'"),
    ("a name that is not text", one(7, np.zeros(3, np.float32)), "a tensor name is not text"),
    ("no tensors", lambda reply: reply["DXO"]["data"].clear(), "is missing"),
    ("an unknown metric", meta(metrics={"age": 61.0}), "a metric outside the contract"),
    ("a metric out of range", meta(initial_metrics={"val_balanced_accuracy": 1e300}), "is out of range"),
    ("text beside the DXO", beside("note", "hello"), "payload entry outside the contract: 'note'"),
    ("no DXO", lambda reply: reply.pop("DXO"), "not a data exchange object"),
    ("a kind that is an array", lambda reply: reply["DXO"].update(kind=np.arange(3)), "not a data exchange object"),
    ("another content type", header("__content_type__", np.arange(3)), "not a data exchange object"),
    (
        "headers that are a list",
        lambda reply: dict.update(reply, __headers__=[1]),
        "it is not known which site sent it",
    ),
]


@pytest.mark.parametrize("row", FORGED, ids=[row[0] for row in FORGED])
def test_a_forged_contribution_is_refused_said_and_changes_nothing(
    row: tuple[str, Change, str], server: Server, contract: EgressContract, caplog: pytest.LogCaptureFixture
) -> None:
    _trick, change, reason = row
    good = {site: near(server, contract, seed) for seed, site in enumerate(("ge", "canon", "philips"))}
    server.open()
    for site, reply in good.items():
        assert server.accept(site, reply.to_shareable())
    forged = sent_by("mallory", near(server, contract, 7).to_shareable())
    change(forged)
    assert not server.aggregator.accept(forged, from_site(server.context(), "mallory"))
    found = server.close()
    expected = {name: np.mean([reply.tensors[name].astype(float) for reply in good.values()], axis=0) for name in found}
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    (record,) = server.records()
    assert sorted(record["sites"]) == sorted(good)
    assert [reason in refused["reason"] for refused in record["refused"]] == [True], record["refused"]
    assert "refused" in caplog.text


def test_one_site_cannot_speak_for_another(server: Server, contract: EgressContract) -> None:
    """The peer context is written by the sender; only the token tells who it is."""
    server.open()
    for name in ("ge", "canon"):
        assert not server.accept("mallory", near(server, contract, 7).to_shareable(), claimed=name)
    for seed, site in enumerate(("ge", "canon")):
        assert server.accept(site, near(server, contract, seed).to_shareable()), "its own contribution still counts"
    server.close()
    (record,) = server.records()
    assert sorted(record["sites"]) == ["canon", "ge"]
    assert record["refused"][0] == {"site": "mallory", "reason": "it was sent under the name 'ge'"}


def test_a_result_of_nobody_is_refused(server: Server, contract: EgressContract) -> None:
    server.open()
    reply = near(server, contract, 1).to_shareable()
    assert not server.aggregator.accept(reply, from_site(server.context(), "ge"))
    reply.set_header(ServerCommandKey.FL_CLIENT, "ge")
    assert not server.aggregator.accept(reply, from_site(server.context(), "ge")), "a name alone is not the server's"


def test_a_check_that_fails_refuses_one_contribution_and_not_the_round(
    server: Server, contract: EgressContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLARE ends the round for everybody when ``accept`` raises."""

    def broken(*_: Any) -> Any:
        raise RuntimeError("patient007")

    server.open()
    with monkeypatch.context() as patch:
        patch.setattr("med_duallora.flare.server.aggregator.read_train_reply", broken)
        assert not server.accept("mallory", near(server, contract, 7).to_shareable())
    reply = near(server, contract, 1)
    assert server.accept("ge", reply.to_shareable())
    assert same(server.close(), reply.tensors)
    assert server.records()[0]["refused"] == [{"site": "mallory", "reason": "its check failed with RuntimeError"}]


def test_all_four_ways_at_once_leave_the_good_sites_alone(server: Server, contract: EgressContract) -> None:
    server.aggregator = DualLoRAAggregator(min_sites=3, sites=SITES)
    server.open()
    good = {site: near(server, contract, seed) for seed, site in enumerate(("ge", "canon", "philips"))}
    for site, reply in good.items():
        assert server.accept(site, reply.to_shareable())
        assert not server.accept(site, near(server, contract, 5).to_shareable()), "a second contribution"
    assert not server.accept("eve", near(server, contract, 6).to_shareable()), "an unknown site"
    assert not server.accept("siemens", dataclasses.replace(good["ge"], weight=NAN).to_shareable())
    assert server.accept("mallory", near(server, contract, 7, scale=50.0).to_shareable()), "told at the end only"
    server.close()
    (record,) = server.records()
    assert sorted(record["sites"]) == ["canon", "ge", "philips"]
    assert len(record["refused"]) == 6


def test_an_outlier_leaves_too_few_and_the_adapter_stays(
    server: Server, contract: EgressContract, caplog: pytest.LogCaptureFixture
) -> None:
    server.aggregator = DualLoRAAggregator(min_sites=3)
    server.open()
    for seed, site in enumerate(("ge", "canon")):
        assert server.accept(site, near(server, contract, seed).to_shareable())
    assert server.accept("mallory", near(server, contract, 7, scale=50.0).to_shareable())
    assert same(server.close(), server.previous)
    assert "2 valid contributions, 3 needed: the global adapter stays as it was" in caplog.text


# --- through FLARE's own workflow -------------------------------------------------------------------------------


@pytest.fixture
def workflow(tiny_job: JobConfig, contract: EgressContract, tmp_path: Any) -> tuple[TrainingRounds, Engine]:
    """Round 1 of the job's workflow, with our aggregator and our selector."""
    engine = Engine(tiny_job, tmp_path, aggregator=DualLoRAAggregator(), selector=AdapterSelector(KEY_MEASURE))
    rounds = TrainingRounds(min_clients=2, num_rounds=2)
    rounds._engine, rounds.aggregator = engine, engine.components["aggregator"]
    rounds._phase, rounds._current_round = AppConstants.PHASE_TRAIN, 1
    engine.fire_event(AppEventType.ROUND_STARTED, server_context(engine, 1, random_payload(contract, 9)))
    return rounds, engine


def arrives(rounds: TrainingRounds, engine: Engine, site: str, reply: TrainReply, claimed: str = "") -> None:
    """A result for a task that FLARE does not know: it is taken for a late one and goes to the aggregator."""
    result = sent_by(site, reply.to_shareable())
    result.add_cookie(AppConstants.CONTRIBUTION_ROUND, 1)
    fl_ctx = from_site(server_context(engine, 1), claimed or site)
    fl_ctx.get_peer_context().set_prop(FLContextKey.SHAREABLE, result, private=True, sticky=True)
    rounds.process_result_of_unknown_task(client(site), "train", "no-such-task", result, fl_ctx)


def scored(contract: EgressContract, seed: int, score: float) -> TrainReply:
    return TrainReply(random_payload(contract, seed), 6.0, 1, {"train_loss": 0.5}, {KEY_MEASURE: score})


def test_a_late_result_cannot_be_sent_for_another_site(workflow: Any, contract: EgressContract) -> None:
    rounds, engine = workflow
    arrives(rounds, engine, "mallory", scored(contract, 7, 0.5), claimed="ge")
    arrives(rounds, engine, "ge", scored(contract, 1, 0.5))
    fl_ctx = server_context(engine, 1, random_payload(contract, 9))
    result = from_shareable(rounds.aggregator.aggregate(fl_ctx)).data
    assert same(result, random_payload(contract, 1))


def best_of(engine: Engine, contract: EgressContract) -> float | None:
    """The score with which the selector calls the incoming adapter the best, if it does."""
    selector, fl_ctx = engine.components["selector"], server_context(engine, 1, random_payload(contract, 9))
    engine.events.clear()
    selector.handle_event(AppEventType.BEFORE_AGGREGATION, fl_ctx)
    told = engine.fired(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE)
    return float(fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)) if told else None


def test_the_best_adapter_is_the_mean_score_of_accepted_contributions(workflow: Any, contract: EgressContract) -> None:
    rounds, engine = workflow
    arrives(rounds, engine, "ge", scored(contract, 1, 0.5))
    arrives(rounds, engine, "canon", scored(contract, 2, 0.75))
    assert best_of(engine, contract) == pytest.approx(0.625)


def test_a_refused_contribution_does_not_choose_the_best_adapter(workflow: Any, contract: EgressContract) -> None:
    rounds, engine = workflow
    arrives(rounds, engine, "ge", scored(contract, 1, 0.5))
    for _ in range(5):
        arrives(rounds, engine, "ge", scored(contract, 2, 1.0))
    arrives(rounds, engine, "mallory", scored(contract, 3, 1.0), claimed="canon")
    arrives(rounds, engine, "mallory", scored(contract, 3, 1e300))
    arrives(rounds, engine, "mallory", dataclasses.replace(scored(contract, 3, 1.0), weight=NAN))
    assert best_of(engine, contract) == pytest.approx(0.5)


def test_without_an_accepted_contribution_no_adapter_is_the_best(workflow: Any, contract: EgressContract) -> None:
    rounds, engine = workflow
    arrives(rounds, engine, "mallory", scored(contract, 3, 1e300))
    assert best_of(engine, contract) is None
