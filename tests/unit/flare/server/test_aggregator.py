import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils import fobs
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.server.aggregator import DualLoRAAggregator
from med_duallora.flare.wire.payload import TrainReply
from med_duallora.flare.wire.tracking import LOCAL_EVENT
from med_duallora.measures import Place, standing_in
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine, from_site, sent_by, server_context
from tests.unit.tiny import random_payload, same


class Server:
    """The aggregator in the order in which FLARE's ScatterAndGather calls it."""

    def __init__(self, engine: Engine, previous: dict[str, np.ndarray]) -> None:
        self.engine = engine
        self.aggregator = DualLoRAAggregator()
        self.previous = previous

    def context(self, round_index: int = 0) -> Any:
        return server_context(self.engine, round_index, self.previous)

    def open(self, round_index: int = 0) -> None:
        self.aggregator.handle_event(AppEventType.ROUND_STARTED, self.context(round_index))

    def accept(self, site: str, shareable: Shareable, round_index: int = 0, claimed: str = "") -> bool:
        fl_ctx = from_site(self.context(round_index), claimed or site)
        return self.aggregator.accept(sent_by(site, shareable), fl_ctx)

    def close(self, round_index: int = 0) -> dict[str, np.ndarray]:
        return dict(from_shareable(self.aggregator.aggregate(self.context(round_index))).data)

    def records(self) -> list[dict[str, Any]]:
        text = (self.engine.workspace.directory / "round_metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


def near(server: Server, contract: EgressContract, seed: int, scale: float = 0.01) -> TrainReply:
    """A contribution at some distance from the global adapter that the site was given."""
    change = random_payload(contract, seed, scale)
    tensors = {name: value + change[name] for name, value in server.previous.items()}
    return TrainReply(tensors, 6.0, 0, {"train_loss": 0.5})


@pytest.fixture
def server(engine: Engine, contract: EgressContract) -> Server:
    return Server(engine, random_payload(contract, seed=9))


def test_a_round_is_the_weighted_mean_and_leaves_a_record(
    server: Server, contract: EgressContract, reply: TrainReply
) -> None:
    metrics = {**reply.metrics, "n_subjects": 2.0}
    other = TrainReply(random_payload(contract, seed=1), 2.0, 0, metrics)
    server.open()
    assert server.accept("ge", reply.to_shareable())
    assert server.accept("canon", other.to_shareable())
    result = server.close()
    for name, value in result.items():
        expected = (6 * reply.tensors[name].astype(float) + 2 * other.tensors[name].astype(float)) / 8
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    (record,) = server.records()
    assert (record["round"], record["tensor_bytes"], record["refused"]) == (0, contract.tensor_bytes, [])
    assert (record["clipped"], record["capped"]) == ({}, {}), "two sites"
    assert record["seconds"] >= 0
    assert 0 < record["residual"] < 2
    assert record["sites"]["ge"]["metrics"] == {**reply.metrics, "val_balanced_accuracy": 0.75}
    assert record["sites"]["ge"]["weight"] == 6.0
    assert record["sites"]["ge"]["payload_bytes"] == len(fobs.dumps(sent_by("ge", reply.to_shareable())))
    assert record["sites"]["canon"]["metrics"] == other.metrics


def test_the_payload_is_little_more_than_its_numbers(tiny_job: JobConfig, tmp_path: Path) -> None:
    job = tiny_job.with_overrides(["backbone=cinema-base"])
    contract = EgressContract.for_job(job)
    engine = Engine(job, tmp_path)
    server = Server(engine, random_payload(contract))
    server.open()
    server.accept("ge", TrainReply(random_payload(contract), 1.0, 0, {}).to_shareable())
    server.close()
    payload = server.records()[0]["sites"]["ge"]["payload_bytes"]
    assert contract.tensor_bytes < payload <= 1.05 * contract.tensor_bytes + 8 * 1024


REFUSED = [
    ("a second contribution", lambda reply: reply, "already contributed"),
    ("an old round", lambda reply: dataclasses.replace(reply, round_index=1), "answers round 1, but round 0 is open"),
    ("no weight", lambda reply: dataclasses.replace(reply, weight=-1.0), "weight"),
    ("no tensors", lambda reply: dataclasses.replace(reply, tensors={}), "is missing"),
]


@pytest.mark.parametrize(("reason", "change", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_bad_contribution_is_refused_and_spoils_nothing(
    reason: str, change: Any, message: str, server: Server, reply: TrainReply
) -> None:
    server.open()
    assert server.accept("ge", reply.to_shareable())
    sender = "ge" if reason == "a second contribution" else "canon"
    assert not server.accept(sender, change(reply).to_shareable())
    assert same(server.close(), reply.tensors)
    (record,) = server.records()
    assert list(record["sites"]) == ["ge"]
    assert len(record["refused"]) == 1
    assert record["refused"][0]["site"] == sender
    assert message in record["refused"][0]["reason"]


def test_a_contribution_that_is_no_dxo_is_refused(server: Server) -> None:
    server.open()
    assert not server.accept("ge", Shareable())


def test_without_contributions_the_adapter_stays(server: Server) -> None:
    server.open()
    assert same(server.close(), server.previous)
    (record,) = server.records()
    assert (record["sites"], record["residual"]) == ({}, None)


def test_a_result_before_the_first_round_is_refused(server: Server, reply: TrainReply) -> None:
    assert not server.accept("ge", reply.to_shareable())
    assert same(server.close(), server.previous)


def test_a_new_round_forgets_the_old_one(server: Server, contract: EgressContract, reply: TrainReply) -> None:
    server.open()
    server.accept("ge", reply.to_shareable())
    server.close()
    server.open(1)
    late = dataclasses.replace(reply, tensors=random_payload(contract, seed=4), round_index=1)
    assert server.accept("ge", late.to_shareable(), 1)
    assert same(server.close(1), late.tensors)
    assert [record["round"] for record in server.records()] == [0, 1]


def test_a_site_that_failed_is_in_the_record(server: Server) -> None:
    server.open()
    fl_ctx = from_site(server.context(), "philips")
    fl_ctx.set_prop(FLContextKey.TASK_NAME, "train", private=True, sticky=False)
    failed = sent_by("philips", make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR))
    fl_ctx.set_prop(FLContextKey.TASK_RESULT, failed, True, False)
    server.aggregator.handle_event(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)
    server.close()
    assert server.records()[0]["refused"] == [
        {"site": "philips", "reason": "the site answered TASK_RESULT_FILTER_ERROR"}
    ]


def statistics(server: Server, round_index: int = 0) -> dict[str, Any]:
    collector = GroupInfoCollector()
    fl_ctx = server.context(round_index)
    fl_ctx.set_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR, collector, private=True, sticky=False)
    server.aggregator.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, fl_ctx)
    return dict(collector.info["med_duallora"])


def test_the_console_sees_the_running_round(server: Server, reply: TrainReply) -> None:
    server.open()
    server.accept("ge", reply.to_shareable())
    plan = {"n_rounds": 2, "start_round": 0}
    assert statistics(server) == {"round": 0, "n_contributions": 1, "n_refused": 0, "n_refused_in_all": 0, **plan}


def test_the_console_sees_what_the_last_round_gave(server: Server, contract: EgressContract, reply: TrainReply) -> None:
    server.open()
    other = dataclasses.replace(reply, tensors=random_payload(contract, seed=1), metrics={"train_loss": 1.0})
    for site, contribution in {"ge": reply, "canon": other}.items():
        server.accept(site, contribution.to_shareable())
    server.accept("ge", reply.to_shareable())
    server.close()
    server.open(1)
    server.accept("ge", dataclasses.replace(reply, round_index=1).to_shareable(), 1)
    server.aggregator.handle_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, server.context(1))
    shown = statistics(server, 1)
    (record,) = server.records()
    for name in ("residual", "seconds"):
        assert shown[name] == round(record[name], 6)
    assert (shown["train_loss"], shown["val_balanced_accuracy"]) == (0.75, 0.75)
    assert (shown["round"], shown["n_contributions"], shown["best_round"]) == (1, 1, 0)
    assert (shown["n_refused"], shown["n_refused_in_all"]) == (0, 1)
    assert set(shown) <= set(standing_in(Place.SERVER)), "every number of the server has an entry that says so"


def test_tensorboard_sees_the_round(server: Server, reply: TrainReply) -> None:
    server.open()
    server.accept("ge", reply.to_shareable())
    server.close()
    tags = {event["DXO"]["data"]["track_key"] for event in server.engine.fired(LOCAL_EVENT)}
    expected = {"n_contributions", "n_refused", "n_limited", "seconds", "payload_bytes_max", "residual"}
    assert tags == expected | {"train_loss", "val_balanced_accuracy"}


def test_the_console_can_ask_before_the_first_round(server: Server) -> None:
    collector = GroupInfoCollector()
    fl_ctx = server.engine.context("server", **{InfoCollector.CTX_KEY_STATS_COLLECTOR: collector})
    server.aggregator.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, fl_ctx)
    assert collector.info == {"med_duallora": {"phase": "before the first round", "n_rounds": 2, "start_round": 0}}
