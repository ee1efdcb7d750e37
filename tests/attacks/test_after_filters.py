"""Attacks by what a job brings besides its results, on results: later filters, event handlers, the last moment.

Such code cannot run at a closed site at all (see test_doors); the guard holds nevertheless.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.fuel.utils import fobs

from med_duallora.flare.wire import packing
from med_duallora.flare.wire.payload import read_train_reply
from med_duallora.site.offer import Offer
from tests.attacks.jobcode import (
    JobFilter,
    JobHandler,
    Keeper,
    in_the_array,
    other_class,
    other_reply,
    with_another_class,
    with_audit_event,
    with_cookie,
    with_header,
    with_item,
    with_meta,
    with_pixels,
    with_task_name,
)
from tests.attacks.test_results import assert_nothing_left
from tests.attacks.tricks import PIXELS, SUBJECT

FILTERS: list[tuple[str, Callable[[Shareable], Any], bool]] = [
    ("adds text beside the DXO", with_item("note", SUBJECT), False),
    ("adds pixels beside the DXO", with_item("pixels", PIXELS), False),
    ("adds an entry whose name is the secret", with_item(SUBJECT, 1), False),
    ("adds an entry whose name is the secret in quotes", with_item(f"'{SUBJECT}\"", 1), False),
    ("adds text to the meta", with_meta, False),
    ("puts pixels into a tensor", with_pixels, False),
    ("gives another reply", other_reply, False),
    ("gives an object of another class", other_class, False),
    ("adds a header", with_header, True),
]


@pytest.mark.parametrize("row", FILTERS, ids=[row[0] for row in FILTERS])
def test_a_later_filter_of_the_job_adds_nothing(row: tuple[str, Any, bool], process, trained, contract):
    _trick, change, leaves = row
    leaving = process(job_filters=[JobFilter(change)]).answer("train", trained[1].to_shareable())
    assert_nothing_left(leaving)
    assert type(leaving.result) is Shareable
    if leaves:
        read_train_reply(contract, fobs.loads(leaving.data))
    else:
        assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR


def test_a_later_filter_that_fails_tells_nothing(process, trained):
    def fails(_shareable: Shareable) -> Shareable:
        raise ValueError(f"{SUBJECT} is unreadable")

    leaving = process(job_filters=[JobFilter(fails)]).answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)


HANDLED = (
    EventType.AFTER_TASK_EXECUTION,
    EventType.BEFORE_TASK_RESULT_FILTER,
    EventType.AFTER_TASK_RESULT_FILTER,
    EventType.BEFORE_SEND_TASK_RESULT,
)


CHANGES: list[tuple[str, Callable[[Shareable], Any]]] = [
    ("text beside the DXO", with_item("note", SUBJECT)),
    ("text in the meta", with_meta),
    ("pixels for a tensor", with_pixels),
    ("a header", with_header),
]


@pytest.mark.parametrize("event", HANDLED)
@pytest.mark.parametrize(("trick", "change"), CHANGES, ids=[row[0] for row in CHANGES])
def test_a_handler_of_the_job_adds_nothing(event: str, trick: str, change, process, trained):
    def act(fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        if result is not None:
            change(result)

    leaving = process(job_components={"evil": JobHandler(event, act)}).answer("train", trained[1].to_shareable())
    assert_nothing_left(leaving)


KEPT: list[tuple[str, Callable[[Shareable], Any], bool]] = [
    ("text beside the DXO", with_item("note", SUBJECT), False),
    ("text in the meta", with_meta, False),
    ("pixels for a tensor", with_pixels, False),
    ("pixels inside a tensor's memory", in_the_array, False),
    ("another class", with_another_class, False),
    ("a header", with_header, True),
    ("a cookie", with_cookie, True),
    ("an audit event that is none", with_audit_event, True),
    ("another task's name", with_task_name, True),
]


@pytest.fixture
def row(request, monkeypatch):
    if request.param[1] is in_the_array:
        monkeypatch.setattr(packing, "MAX_PACKED", 0)  # as bytes a tensor has no memory to write to
    return request.param


@pytest.mark.parametrize("row", KEPT, ids=[row[0] for row in KEPT], indirect=True)
def test_what_was_checked_is_what_is_sent(row, process, trained, contract, site_files):
    """A handler that kept the checked result changes it in the last moment before FLARE sends it."""
    _trick, change, leaves = row
    site = process(job_components={"evil": Keeper(change)})
    leaving = site.answer("train", trained[1].to_shareable())
    assert_nothing_left(leaving)
    assert type(leaving.result) is Shareable
    assert leaving.result.get_header("__task_name__") == "train"
    lines = site.ledger(site_files[1])
    if leaves:
        assert read_train_reply(contract, fobs.loads(leaving.data)).metrics == trained[1].metrics
        assert [line["verdict"] for line in lines] == ["allowed"]
    else:
        assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
        assert [line["verdict"] for line in lines] == ["allowed", "blocked"]


def test_a_damaged_context_does_not_keep_the_guard_from_its_work(process, trained, site_files):
    """FLARE swallows what a handler raises; a property that cannot be read must not let the guard fail like that."""

    def act(fl_ctx: FLContext) -> None:
        # FLARE writes the headers' return code into every log line, so these headers break the guard's own log as well
        dict.update(fl_ctx.get_prop(FLContextKey.TASK_RESULT), {"note": SUBJECT, "__headers__": ["x"]})
        fl_ctx.props["broken"] = {"value": 1, "mask": "none"}

    def repair(fl_ctx: FLContext) -> None:
        fl_ctx.props.pop("broken", None)

    components = {
        "evil": JobHandler(EventType.AFTER_TASK_RESULT_FILTER, act),
        "repair": JobHandler(EventType.BEFORE_SEND_TASK_RESULT, repair),
    }
    site = process(job_components=components)
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    assert site.ledger(site_files[1])[-1]["verdict"] == "blocked"


def test_a_cleared_result_is_not_filled_again(process, trained, site_files):
    site = process(job_components={"evil": Keeper(with_item("note", SUBJECT))}, job_filters=[JobFilter(with_meta)])
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    assert [line["verdict"] for line in site.ledger(site_files[1])] == ["blocked"]


def test_the_framework_s_own_headers_go_back_to_the_server(process, trained):
    """The server needs its cookie to take a result for what it is."""
    jar = {"__task_id__": "task-1", "__workflow__": "rounds", "contribution_round": 1}
    leaving = process().answer("train", trained[1].to_shareable(), jar)
    assert leaving.result.get_cookie_jar() == jar
    assert leaving.result.get_header("__task_id__") == "task-1"


@pytest.mark.parametrize(
    ("reply", "code"),
    [({"pixels": PIXELS}, ReturnCode.EXECUTION_RESULT_ERROR), (None, ReturnCode.EXECUTION_RESULT_ERROR)],
)
def test_a_code_of_flare_s_own_has_its_line_too(reply: Any, code: str, process, site_files):
    """FLARE answers by itself where an executor fails; no filter and no check sees that."""
    site = process()
    assert site.answer("train", reply).result.get_return_code() == code
    (line,) = site.ledger(site_files[1])
    assert (line["kind"], line["verdict"], line["reason"]) == ("error", "allowed", "a return code of FLARE's own")


def test_one_answer_is_one_line(process, trained, site_files):
    site = process()
    site.answer("train", trained[1].to_shareable())
    site.answer("train", with_meta(trained[1].to_shareable()))
    site.answer("train", None)
    site.answer("train", make_reply(ReturnCode.TASK_ABORTED))
    verdicts = [(line["kind"], line["verdict"]) for line in site.ledger(site_files[1])]
    assert verdicts == [("tensors", "allowed"), ("tensors", "blocked"), ("error", "allowed"), ("error", "allowed")]


def test_a_round_is_answered_once(process, trained, site_files, monkeypatch):
    """A server that asks for the same round again, from another adapter, would get another look at the same data."""
    runtime, reply = trained
    site = process()
    for _ in range(2):
        assert site.answer("train", reply.to_shareable()).result.get_return_code() == ReturnCode.OK
    other = {name: value + np.float32(0.125) for name, value in reply.tensors.items()}
    monkeypatch.setattr(runtime, "offered", Offer.of_round(1, reply.weight, other, reply.metrics))
    leaving = site.answer("train", dataclasses.replace(reply, tensors=other).to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert other[next(iter(other))].tobytes() not in leaving.data
    line = site.ledger(site_files[1])[-1]
    assert (line["verdict"], line["round_index"]) == ("blocked", 1)
    assert "round 1 was already answered with another adapter" in line["reason"]
    monkeypatch.setattr(runtime, "offered", Offer.of_round(2, reply.weight, other, reply.metrics))
    later = dataclasses.replace(reply, tensors=other, round_index=2)
    assert site.answer("train", later.to_shareable()).result.get_return_code() == ReturnCode.OK
