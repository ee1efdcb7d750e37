"""Whatever is thrown at the filter: what comes out is inside the contract, and nothing but a violation is raised."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from nvflare.apis.dxo import DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable
from nvflare.fuel.utils import fobs

from med_duallora.boundary.contract import HEADERS, EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.wire.payload import RETURN_CODES, Failure, Scores, TrainReply, read_reply, rebuilt
from med_duallora.settings.config import JobConfig
from tests.attacks.harness import SiteProcess
from tests.unit.tiny import random_payload

CONTRACT = EgressContract.for_job(JobConfig(backbone="cinema-tiny"))
TENSORS = random_payload(CONTRACT, 1)
METRICS = {"train_loss": 0.5, "n_subjects": 6.0}
MAX_BYTES = 1.05 * CONTRACT.tensor_bytes + 8 * 1024

names = st.text(max_size=12) | st.sampled_from(
    [*TENSORS, *CONTRACT.metrics, "DXO", "kind", "data", "meta", "__headers__"]
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20)
any_array = arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(max_dims=3, max_side=4))
right_shape = st.sampled_from(list(CONTRACT.tensors.values())).flatmap(
    lambda spec: arrays.arrays(
        st.sampled_from(["f4", "f8", "i4", ">f4"]), spec.shape, elements=st.just(1), fill=st.just(0)
    )
)
leaves = plain | any_array
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)
metrics = st.dictionaries(names, st.floats() | anything, max_size=4) | st.just(METRICS)
metas = st.fixed_dictionaries(
    {},
    optional={
        "NUM_STEPS_CURRENT_ROUND": st.just(6.0) | anything,
        "current_round": st.integers(-2, 20) | anything,
        "metrics": metrics,
        "initial_metrics": metrics,
    },
)
datas = (
    st.just(dict(TENSORS))
    | st.tuples(names, right_shape | anything).map(lambda item: {**TENSORS, item[0]: item[1]})
    | st.fixed_dictionaries({"initial_metrics": metrics})
    | anything
)


@st.composite
def shareables(draw: st.DrawFn) -> Shareable:
    """A reply of any form, mostly close to an honest one."""
    found = Shareable()
    for key, value in draw(st.dictionaries(names, anything, max_size=2)).items():
        found.set_header(key, value)
    found.set_header("__content_type__", draw(st.just("DXO") | st.just("DXO") | anything))
    if draw(st.booleans()):
        found.set_header("__rc__", draw(st.sampled_from(sorted(RETURN_CODES)) | anything))
    found["DXO"] = {
        "kind": draw(st.sampled_from([DataKind.WEIGHTS, DataKind.METRICS]) | st.sampled_from(DataKind) | anything),
        "data": draw(datas),
        "meta": draw(metas | anything),
    }
    if draw(st.integers(0, 3)) == 0:
        found[draw(names)] = draw(anything)
    return found


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(task=st.sampled_from(["train", "validate", "submit_model", "x", None]), reply=shareables())
def test_what_comes_out_is_inside_the_contract(task: Any, reply: Shareable):
    try:
        sent = rebuilt(task, reply, CONTRACT)
    except EgressViolation as violation:
        assert len(str(violation)) < 500, "the message names the offence and holds no payload"
        return
    assert_inside(task, sent)


@settings(max_examples=60, deadline=None)
@given(
    weight=st.integers(1, 9).map(float), round_index=st.integers(0, 11), chosen=st.sets(st.sampled_from(list(METRICS)))
)
def test_an_honest_reply_always_passes(weight: float, round_index: int, chosen: set[str]):
    reply = TrainReply(TENSORS, weight, round_index, {name: METRICS[name] for name in chosen}, {"val_loss": 0.25})
    sent = rebuilt("train", reply.to_shareable(), CONTRACT)
    assert_inside("train", sent)
    found = read_reply("train", sent, CONTRACT)
    assert isinstance(found, TrainReply)
    assert (found.weight, found.round_index, found.metrics) == (weight, round_index, reply.metrics)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(task=st.sampled_from(["train", "validate", "submit_model", "x"]), reply=shareables())
def test_a_closed_site_sends_codes_and_scores_that_it_computed(
    task: str, reply: Shareable, process: Callable[..., SiteProcess], trained: Any
) -> None:
    """The same through FLARE's runner, the site's filter and its guard: no tensor of another's making ever leaves."""
    assume(type(dict.get(reply, "__headers__")) is dict)  # FLARE's own log line fails without, and nothing is sent
    sent = process().answer(task, reply).result
    assert type(sent) is Shareable and vars(sent) == {}
    assert set(sent["__headers__"]) <= {*HEADERS, "__task_name__", "__task_id__", "__audit_event_id__"}
    if "DXO" in sent:
        scores = sent["DXO"]["data"]["initial_metrics"]
        assert task == "validate" and scores.items() <= trained[0].reported.items()
    else:
        assert set(sent) == {"__headers__"} and sent.get_return_code() in RETURN_CODES - {ReturnCode.OK}


def assert_inside(task: Any, sent: Shareable) -> None:
    """The sent object, checked without the code under test."""
    assert type(sent) is Shareable and set(sent) <= {"__headers__", "DXO"} and vars(sent) == {}
    assert set(sent["__headers__"]) <= set(HEADERS)
    assert len(bytes(fobs.dumps(sent))) <= MAX_BYTES
    if "DXO" not in sent:
        assert sent.get_return_code() in RETURN_CODES - {ReturnCode.OK}
        assert isinstance(read_reply(task, sent, CONTRACT), Failure)
        return
    inside = sent["DXO"]
    assert set(inside) == {"kind", "data", "meta"}
    if task == "train":
        assert inside["kind"] == DataKind.WEIGHTS and set(inside["data"]) == set(CONTRACT.tensors)
        for name, value in inside["data"].items():
            assert type(value) is bytes and len(value) == 4 * math.prod(CONTRACT.tensors[name].shape)
            assert np.isfinite(np.frombuffer(value, "<f4")).all()
        assert set(inside["meta"]) <= {"NUM_STEPS_CURRENT_ROUND", "current_round", "metrics", "initial_metrics"}
        numbers = {**inside["meta"]["metrics"], **inside["meta"].get("initial_metrics", {})}
    else:
        assert task == "validate" and inside["kind"] == DataKind.METRICS
        assert set(inside["data"]) == {"initial_metrics"} and not inside["meta"]
        assert isinstance(read_reply(task, sent, CONTRACT), Scores)
        numbers = inside["data"]["initial_metrics"]
    for name, value in numbers.items():
        low, high = CONTRACT.metrics[name]
        assert type(name) is str and type(value) is float and low <= value <= high


def test_a_return_code_that_is_no_text_leaves_as_an_error():
    """Found by the property: an array as return code raised ValueError instead of becoming an error reply."""
    reply = TrainReply(TENSORS, 1.0, 0, {}).to_shareable()
    reply.set_header("__rc__", np.array([False, False]))
    sent = rebuilt("train", reply, CONTRACT)
    assert_inside("train", sent)
    assert "DXO" not in sent and sent.get_return_code() == ReturnCode.ERROR


def test_the_strategy_is_not_vacuous():
    """Some of what is thrown passes, some is refused; otherwise the property would say nothing."""
    outcomes = set()

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(reply=shareables())
    def collect(reply: Shareable) -> None:
        try:
            outcomes.add("failure" if "DXO" not in rebuilt("train", reply, CONTRACT) else "data")
        except EgressViolation:
            outcomes.add("refused")

    collect()
    assert {"failure", "refused"} <= outcomes
    assert "DXO" in rebuilt("train", TrainReply(TENSORS, 1.0, 0, {}).to_shareable(), CONTRACT)
