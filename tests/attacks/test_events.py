"""Attacks by events and tasks that a site did not make, through FLARE's own dispatchers."""

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import EventScope, FedEventHeader, FLContextKey, ReservedKey, ReservedTopic, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.widgets.fed_event import FED_EVENT_TOPIC

from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from tests.attacks.site_parent import SERVER

INJECTED = [
    ("a metric", FEDERATION_EVENT),
    ("a filter event", EventType.AFTER_TASK_RESULT_FILTER),
    ("the sending of a result", EventType.BEFORE_SEND_TASK_RESULT),
    ("the start of the run", EventType.START_RUN),
    ("the end of the run", EventType.END_RUN),
    ("a log text", EventType.ERROR_LOG_AVAILABLE),
    ("an event of another name", "fed.patient_list"),
]


def injected(event: str) -> Shareable:
    request = Shareable()
    request.set_header(FedEventHeader.EVENT_TYPE, event)
    request.set_header(FedEventHeader.TIMESTAMP, 1.0)
    request.set_header(FedEventHeader.DIRECTION, "out")
    request.set_peer_props({ReservedKey.IDENTITY_NAME: "philips", ReservedKey.RUN_NUM: "job-1"})
    return request


@pytest.mark.parametrize("row", INJECTED, ids=[row[0] for row in INJECTED])
def test_an_event_of_another_member_is_not_heard(row: tuple[str, str], process):
    site = process()
    with site.engine.new_context() as fl_ctx:
        reply = site.engine.aux_runner.dispatch(FED_EVENT_TOPIC, injected(row[1]), fl_ctx)
    assert reply.get_return_code() == ReturnCode.TASK_UNSUPPORTED
    assert site.fed_events.in_events == [] and site.fed_events.poster is None


@pytest.mark.parametrize("row", INJECTED, ids=[row[0] for row in INJECTED])
def test_nor_would_the_guard_take_it_for_its_own(row: tuple[str, str], process, trained, site_files, caplog):
    """As if FLARE had posted it to all components: no line, nothing sent outward, nothing raised."""
    site = process()
    guard = next(item for item in site.engine.handlers if type(item).__name__ == "EgressGuard")
    request = injected(row[1])
    request.set_header(FedEventHeader.DIRECTION, "in")
    before = dict(request)
    with site.engine.new_context() as fl_ctx:
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, request, private=True, sticky=False)
        fl_ctx.set_prop(FLContextKey.EVENT_SCOPE, EventScope.FEDERATION, private=True, sticky=False)
        guard.handle_event(row[1], fl_ctx)
        site.fed_events.handle_event("fed.other", fl_ctx)
    assert site.events() == [] and dict(request) == before and not site_files[1].exists()
    assert site.answer("train", trained[1].to_shareable()).result.get_return_code() == ReturnCode.OK
    assert len(site.ledger(site_files[1])) == 1


def test_who_registers_a_handler_later_changes_nothing(process):
    site = process()
    site.engine.aux_runner.topic_table.pop(ReservedTopic.DO_TASK)
    site.engine.register_aux_message_handler(ReservedTopic.DO_TASK, lambda **_: Shareable())
    request = Shareable()
    request.set_header(ReservedHeaderKey.TASK_NAME, "train")
    request.set_peer_props({ReservedKey.IDENTITY_NAME: SERVER})
    with site.engine.new_context() as fl_ctx:
        reply = site.engine.aux_runner.dispatch(ReservedTopic.DO_TASK, request, fl_ctx)
    assert reply.get_return_code() == ReturnCode.TASK_UNSUPPORTED
