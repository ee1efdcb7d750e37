import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.wire.payload import (
    INITIAL_METRICS,
    METRICS,
    ROUND,
    WEIGHT,
    TrainReply,
    metrics_reply,
    read_metrics_reply,
    read_reply,
    read_train_reply,
    task_tensors,
)
from med_duallora.flare.wire.size import payload_bytes
from med_duallora.settings.config import JobConfig
from tests.unit.tiny import random_payload, same

Change = Callable[[Shareable], Any]


def meta(shareable: Shareable) -> dict[str, Any]:
    return shareable["DXO"]["meta"]


def data(shareable: Shareable) -> dict[str, Any]:
    return shareable["DXO"]["data"]


def first(shareable: Shareable) -> str:
    return next(iter(data(shareable)))


class Sneaky(Shareable):
    pass


BAD_TRAIN: list[tuple[str, Change, str]] = [
    ("an entry beside the DXO", lambda s: s.update(extra=b"pixels"), "payload entry outside the contract: 'extra'"),
    ("an entry that is not named by text", lambda s: s.update({7: b"x"}), "payload entry outside"),
    ("an entry inside the DXO", lambda s: s["DXO"].update(more=1), "payload entry outside the contract: 'more'"),
    ("a hidden tensor in the meta", lambda s: meta(s).update(secret=np.ones(3)), "meta entry outside"),
    ("the filter history that FLARE adds", lambda s: meta(s).update(filter_history=["x"]), "meta entry outside"),
    ("no weight", lambda s: meta(s).pop(WEIGHT), "meta entry NUM_STEPS_CURRENT_ROUND is missing"),
    ("a weight of zero", lambda s: meta(s).update({WEIGHT: 0}), "weight"),
    ("a weight that is not finite", lambda s: meta(s).update({WEIGHT: float("inf")}), "weight"),
    ("a weight that is not a number", lambda s: meta(s).update({WEIGHT: "6"}), "weight"),
    ("a weight that is true", lambda s: meta(s).update({WEIGHT: True}), "weight"),
    ("no round", lambda s: meta(s).pop(ROUND), "current_round is missing"),
    ("a round after the last", lambda s: meta(s).update({ROUND: 2}), "round"),
    ("no training metrics", lambda s: meta(s).pop(METRICS), "metrics is missing"),
    ("an unknown metric", lambda s: meta(s)[METRICS].update(age=61.0), "metric outside"),
    ("a metric out of range", lambda s: meta(s)[INITIAL_METRICS].update(val_balanced_accuracy=2.0), "out of range"),
    ("initial metrics that are a number", lambda s: meta(s).update({INITIAL_METRICS: 0.5}), "metrics come as float"),
    ("no tensor", lambda s: data(s).pop(first(s)), "is missing"),
    ("a tensor more", lambda s: data(s).update({"classifier.head": np.ones(2, np.float32)}), "outside the contract"),
    ("a tensor of another dtype", lambda s: data(s).update({first(s): data(s)[first(s)].astype("f8")}), "dtype"),
    ("weight differences", lambda s: s["DXO"].update(kind=DataKind.WEIGHT_DIFF), "not of kind WEIGHTS"),
    ("a collection", lambda s: s["DXO"].update(kind=DataKind.COLLECTION), "not of kind WEIGHTS"),
    ("no DXO", lambda s: s.pop("DXO"), "not a data exchange object"),
    ("a DXO that is a list", lambda s: s.update(DXO=[1, 2]), "not a data exchange object"),
    ("a DXO without data", lambda s: s["DXO"].pop("data"), "payload entry data is missing"),
]


def test_a_reply_survives_the_way(contract: EgressContract, reply: TrainReply) -> None:
    received = fobs.loads(fobs.dumps(reply.to_shareable()))
    found = read_train_reply(contract, received)
    assert same(found.tensors, reply.tensors)
    assert (found.weight, found.round_index, found.metrics) == (6.0, 0, reply.metrics)
    assert found.initial_metrics == {"val_balanced_accuracy": 0.75}


def test_initial_metrics_may_be_absent(contract: EgressContract, reply: TrainReply) -> None:
    shareable = TrainReply(reply.tensors, reply.weight, 0, {}).to_shareable()
    assert read_train_reply(contract, shareable).initial_metrics is None


@pytest.mark.parametrize(("reason", "change", "message"), BAD_TRAIN, ids=[row[0] for row in BAD_TRAIN])
def test_a_train_reply_outside_the_contract_is_refused(
    reason: str, change: Change, message: str, contract: EgressContract, reply: TrainReply
) -> None:
    shareable = copy.deepcopy(reply.to_shareable())
    change(shareable)
    with pytest.raises(EgressViolation, match=message):
        read_train_reply(contract, shareable)


def test_a_subclass_of_shareable_is_refused(contract: EgressContract, reply: TrainReply) -> None:
    with pytest.raises(EgressViolation, match="Sneaky"):
        read_train_reply(contract, Sneaky(reply.to_shareable()))


def test_metrics_survive_the_way(contract: EgressContract) -> None:
    scores = {"both.balanced_accuracy": 0.5, "n_test_subjects": 4.0}
    assert read_metrics_reply(contract, fobs.loads(fobs.dumps(metrics_reply(scores)))) == scores


BAD_METRICS: list[tuple[str, Change, str]] = [
    ("meta", lambda s: meta(s).update(note="x"), "meta entry outside"),
    ("predictions beside the metrics", lambda s: data(s).update(predictions=[0.1]), "data entry outside"),
    ("no metrics", lambda s: data(s).clear(), "initial_metrics is missing"),
    ("an unknown metric", lambda s: data(s)[INITIAL_METRICS].update(subject=1.0), "metric outside"),
    ("another kind", lambda s: s["DXO"].update(kind=DataKind.WEIGHTS), "not of kind METRICS"),
]


@pytest.mark.parametrize(("reason", "change", "message"), BAD_METRICS, ids=[row[0] for row in BAD_METRICS])
def test_a_metrics_reply_outside_the_contract_is_refused(
    reason: str, change: Change, message: str, contract: EgressContract
) -> None:
    shareable = metrics_reply({"n_test_subjects": 4.0})
    change(shareable)
    with pytest.raises(EgressViolation, match=message):
        read_metrics_reply(contract, shareable)


def test_a_task_brings_the_global_state(contract: EgressContract) -> None:
    tensors = random_payload(contract)
    task = DXO(DataKind.WEIGHTS, data=tensors).to_shareable()
    task.set_header("anything", "the server's headers do not matter")
    assert same(task_tensors(contract, task), tensors)


def test_a_task_with_other_tensors_is_refused(contract: EgressContract) -> None:
    with pytest.raises(EgressViolation, match="outside the contract"):
        task_tensors(contract, DXO(DataKind.WEIGHTS, data={"x": np.ones(1, np.float32)}).to_shareable())


@pytest.mark.parametrize("headers", [["note"], np.arange(3), "note", 7], ids=["list", "array", "text", "number"])
@pytest.mark.parametrize("task", ["train", "validate"])
def test_headers_that_are_no_dict_are_a_violation_and_not_an_accident(
    task: str, headers: Any, contract: EgressContract, reply: TrainReply
) -> None:
    """FLARE's own accessors raise ValueError for them, which would end a round at the server."""
    shareable = reply.to_shareable()
    dict.update(shareable, {"__headers__": headers})
    with pytest.raises(EgressViolation, match="the headers come as"):
        read_reply(task, shareable, contract)


def test_a_reply_that_leaves_weighs_hardly_more_than_its_values() -> None:
    for backbone in ("cinema-mini", "cinema-base"):
        job = JobConfig(backbone=backbone)
        assert payload_bytes(job) <= 1.02 * EgressContract.for_job(job).tensor_bytes, backbone
