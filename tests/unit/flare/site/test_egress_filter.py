from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.site.egress_filter import FILTERED_TASKS, EgressFilter, rebuilt
from med_duallora.flare.wire.payload import TrainReply, metrics_reply, read_metrics_reply, read_train_reply
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine, answered


def filtered(engine: Engine, task: str, reply: Shareable) -> Shareable:
    return EgressFilter().process(reply, engine.context("ge", **{FLContextKey.TASK_NAME: task}))


def test_a_train_reply_leaves_as_a_fresh_object(engine: Engine, contract: EgressContract, reply: TrainReply) -> None:
    shareable = reply.to_shareable()
    shareable.set_header("subject", "patient007")
    sent = filtered(engine, "train", shareable)
    assert sent is not shareable
    assert sent[ReservedHeaderKey.HEADERS] == {ReservedHeaderKey.CONTENT_TYPE: "DXO"}
    found = read_train_reply(contract, sent)
    for name, value in found.tensors.items():
        assert not np.shares_memory(value, reply.tensors[name])
        np.testing.assert_array_equal(value, reply.tensors[name])


def test_scores_leave_as_a_fresh_object(engine: Engine, contract: EgressContract) -> None:
    shareable = metrics_reply({"both.auroc": 0.5})
    shareable.set_header("path", "/data")
    sent = filtered(engine, "validate", shareable)
    assert sent[ReservedHeaderKey.HEADERS] == {ReservedHeaderKey.CONTENT_TYPE: "DXO"}
    assert read_metrics_reply(contract, sent) == {"both.auroc": 0.5}


@pytest.mark.parametrize("task", FILTERED_TASKS)
def test_an_error_leaves_as_its_code_alone(task: str, engine: Engine) -> None:
    shareable = make_reply(ReturnCode.EXECUTION_EXCEPTION, {"text": "patient007 is unreadable"})
    shareable["DXO"] = {"data": b"pixels"}
    sent = filtered(engine, task, shareable)
    assert sent == {ReservedHeaderKey.HEADERS: {ReservedHeaderKey.RC: ReturnCode.EXECUTION_EXCEPTION}}


@pytest.mark.parametrize("code", ["patient007", 7, None, b"pixels"])
def test_a_return_code_cannot_carry_anything(code: Any, engine: Engine) -> None:
    assert answered(filtered(engine, "train", make_reply(code))) == ReturnCode.ERROR


@pytest.mark.parametrize(
    ("task", "reason"),
    [("submit_model", "no site gives its own model"), ("predict", "nobody knows it"), (None, "no task runs")],
)
def test_other_tasks_may_not_be_answered_with_data(
    task: Any, reason: str, contract: EgressContract, reply: TrainReply
) -> None:
    with pytest.raises(EgressViolation, match="may not be answered"):
        rebuilt(task, reply.to_shareable(), contract)


def test_the_replies_of_two_tasks_are_not_interchangeable(contract: EgressContract, reply: TrainReply) -> None:
    with pytest.raises(EgressViolation):
        rebuilt("validate", reply.to_shareable(), contract)
    with pytest.raises(EgressViolation):
        rebuilt("train", metrics_reply({}), contract)


def test_something_that_is_no_shareable_is_refused(contract: EgressContract) -> None:
    with pytest.raises(EgressViolation, match="dict"):
        rebuilt("train", {"DXO": 1}, contract)


def test_no_message_holds_a_value(contract: EgressContract, reply: TrainReply) -> None:
    shareable = reply.to_shareable()
    shareable["DXO"]["meta"]["metrics"] = {"train_loss": 123456.789}
    with pytest.raises(EgressViolation) as caught:
        rebuilt("train", shareable, contract)
    assert "123456" not in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=st.sampled_from(FILTERED_TASKS), kind=st.sampled_from(DataKind), parts=st.tuples(*[anything] * 3))
def test_whatever_leaves_is_inside_the_contract(task: str, kind: DataKind, parts: Any, tiny_job: JobConfig) -> None:
    meta, data, extra = parts
    contract = EgressContract.for_job(tiny_job)
    shareable = Shareable()
    shareable.set_header(ReservedHeaderKey.CONTENT_TYPE, "DXO")
    shareable["DXO"] = {"kind": kind, "data": data, "meta": meta}
    if extra:
        shareable["extra"] = extra
    try:
        sent = rebuilt(task, shareable, contract)
    except EgressViolation:
        return
    if task == "train":
        read_train_reply(contract, sent)
    else:
        read_metrics_reply(contract, sent)


def test_an_empty_reply_of_the_right_form_is_refused(engine: Engine) -> None:
    with pytest.raises(EgressViolation):
        filtered(engine, "train", DXO(DataKind.WEIGHTS, data={}).to_shareable())
