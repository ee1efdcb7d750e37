"""Attacks on what no filter sees: the public context, fed events, statistics, texts, tasks of other members.

The code that some of them need cannot run at a closed site at all (see test_doors); the guard holds nevertheless.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FedEventHeader, FLContextKey, ReservedTopic, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.app_common.widgets.convert_to_fed_event import ConvertToFedEvent
from nvflare.fuel.utils import fobs
from nvflare.widgets.info_collector import InfoCollector

from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from tests.attacks.harness import SiteProcess
from tests.attacks.jobcode import JobHandler, other_class, with_item
from tests.attacks.test_results import assert_nothing_left
from tests.attacks.tricks import PIXELS, SECRETS, SUBJECT

PUBLIC: list[tuple[str, str, Any, bool]] = [
    ("text", "note", SUBJECT, False),
    ("text that stays for all tasks", "note", SUBJECT, True),
    ("pixels", "pixels", PIXELS.tobytes(), False),
    ("pixels that stay for all tasks", "pixels", PIXELS, True),
    ("a long text under a name of FLARE's", FLContextKey.CLIENT_NAME, SUBJECT * 40, True),
    ("a number as text in a dict", "more", {"note": SUBJECT}, True),
]


@pytest.mark.parametrize("row", PUBLIC, ids=[row[0] for row in PUBLIC])
def test_the_public_context_carries_nothing(row: tuple[str, str, Any, bool], process, trained):
    _trick, key, value, sticky = row

    def act(fl_ctx: FLContext) -> None:
        fl_ctx.set_prop(key, value, private=False, sticky=sticky)

    site = process(job_components={"evil": JobHandler(EventType.AFTER_TASK_EXECUTION, act)})
    assert_nothing_left(site.answer("train", trained[1].to_shareable()))
    assert key not in site.context().get_all_public_props(), "nor does it come back with the next task"


@pytest.mark.parametrize("row", PUBLIC, ids=[row[0] for row in PUBLIC])
def test_nor_does_it_when_it_was_made_public_before_any_task(row: tuple[str, str, Any, bool], process):
    """A site asks for its first task, and sends its public context, before it has done anything."""
    _trick, key, value, _sticky = row

    def act(fl_ctx: FLContext) -> None:
        fl_ctx.set_prop(key, value, private=False, sticky=True)

    site = process(job_components={"evil": JobHandler(EventType.START_RUN, act)})
    assert key not in site.context().get_all_public_props()


def scalar(tag: Any = "train_loss", value: Any = None, step: Any = 1, kind=AnalyticsDataType.SCALAR, **more: Any):
    """An analytics event; ``value`` None stands for the honest one."""

    def make(honest: dict[str, float]) -> Shareable:
        found = honest["train_loss"] if value is None else value
        return create_analytic_dxo(tag, found, kind, global_step=step, **more).to_shareable()

    return make


def altered(change: Callable[[Shareable], Any]):
    """An honest event that was changed afterwards."""

    def make(honest: dict[str, float]) -> Shareable:
        shareable = scalar()(honest)
        changed = change(shareable)
        return changed if isinstance(changed, Shareable) else shareable

    return make


def true_step(shareable: Shareable) -> None:
    shareable["DXO"]["data"].update(global_step=True, analytics_kwargs={"global_step": True})


def note_in_meta(shareable: Shareable) -> None:
    shareable["DXO"]["meta"]["note"] = SUBJECT


def note_in_data(shareable: Shareable) -> None:
    shareable["DXO"]["data"]["note"] = SUBJECT


EVENTS: list[tuple[str, str, Any, str]] = [
    ("another event", "fed.patient_list", scalar(), "only the agreed metrics"),
    ("an event that FLARE converts", "fed._error_log_available", scalar(), "only the agreed metrics"),
    ("text", FEDERATION_EVENT, scalar(value=SUBJECT, kind=AnalyticsDataType.TEXT), "not a plain scalar"),
    ("an image", FEDERATION_EVENT, scalar(value=PIXELS, kind=AnalyticsDataType.IMAGE), "not a plain scalar"),
    ("many scalars", FEDERATION_EVENT, scalar(value={"a": 1.0}, kind=AnalyticsDataType.SCALARS), "not a plain scalar"),
    ("a parameter", FEDERATION_EVENT, scalar(value=SUBJECT, kind=AnalyticsDataType.PARAMETER), "not a plain scalar"),
    ("a model", FEDERATION_EVENT, scalar(value=PIXELS, kind=AnalyticsDataType.MODEL), "not a plain scalar"),
    ("a tag with a message", FEDERATION_EVENT, scalar(f"train_loss/{SUBJECT}"), "a metric outside the contract"),
    ("an endless tag", FEDERATION_EVENT, scalar("x" * 10**6), "a metric outside the contract"),
    ("a value never computed", FEDERATION_EVENT, scalar(value=0.7007), "is not what this site computed"),
    ("a value out of range", FEDERATION_EVENT, scalar(value=7e300), "out of range"),
    ("not a number", FEDERATION_EVENT, scalar(value=float("nan")), "out of range"),
    ("a step with a message", FEDERATION_EVENT, scalar(step=7007007), "not an integer between 0 and 2"),
    ("an enormous step", FEDERATION_EVENT, scalar(step=10**300), "not an integer between 0 and 2"),
    ("a truth value as step", FEDERATION_EVENT, altered(true_step), "not an integer between 0 and 2"),
    ("a path", FEDERATION_EVENT, scalar(path=SUBJECT), "not a plain scalar"),
    ("another keyword", FEDERATION_EVENT, scalar(note=SUBJECT), "not a plain scalar"),
    ("text in the meta", FEDERATION_EVENT, altered(note_in_meta), "not a plain scalar"),
    (
        "text beside the value",
        FEDERATION_EVENT,
        altered(note_in_data),
        "not a plain scalar",
    ),
    ("text beside the DXO", FEDERATION_EVENT, altered(lambda s: s.update(note=SUBJECT)), "more than one scalar"),
    ("another kind", FEDERATION_EVENT, altered(lambda s: s["DXO"].update(kind=DataKind.METRICS)), "not a plain scalar"),
    ("no DXO", FEDERATION_EVENT, lambda _: with_item("note", SUBJECT)(Shareable()), "more than one scalar"),
    ("a class of one's own", FEDERATION_EVENT, altered(other_class), "more than one scalar"),
]


@pytest.mark.parametrize("row", EVENTS, ids=[row[0] for row in EVENTS])
def test_a_fed_event_is_dropped(row: tuple[str, str, Any, str], process, trained, site_files):
    _trick, event, make, refusal = row
    site = process()
    learner = site.engine.components["learner"]
    learner.fire_fed_event(event, make(trained[1].metrics), site.context())
    assert site.events() == []
    line = site.ledger(site_files[1])[-1]
    assert (line["kind"], line["verdict"]) == ("event", "blocked") and refusal in line["reason"], line["reason"]


def test_a_fed_event_leaves_without_what_was_hidden(process, trained):
    site = process()
    shareable = scalar()(trained[1].metrics)
    shareable.set_header("note", SUBJECT)
    site.engine.components["learner"].fire_fed_event(FEDERATION_EVENT, shareable, site.context(), targets=[SUBJECT])
    (sent,) = site.events()
    assert all(secret not in bytes(fobs.dumps(sent)) for secret in SECRETS)
    assert sent["DXO"]["data"]["track_value"] == trained[1].metrics["train_loss"]


def test_a_metric_leaves_once_per_round_whatever_its_value(process, trained):
    site = process()
    for _ in range(50):
        site.engine.components["learner"].fire_fed_event(FEDERATION_EVENT, scalar()(trained[1].metrics), site.context())
    assert len(site.events()) == 1


def test_log_records_converted_to_fed_events_are_dropped(process, loud):
    events = [EventType.ERROR_LOG_AVAILABLE, EventType.WARNING_LOG_AVAILABLE, EventType.CRITICAL_LOG_AVAILABLE]
    site = process(job_components={"converter": ConvertToFedEvent(events)})
    learner = site.engine.components["learner"]
    learner.log_error(site.context(), f"{SUBJECT} is unreadable")
    learner.log_critical(site.context(), f"{SUBJECT} is unreadable")
    learner.log_warning(site.context(), f"{SUBJECT} is unreadable")
    assert site.events() == []


def test_an_incoming_event_is_not_touched(process, site_files):
    """What the server sends is none of the guard's business; it is marked as coming in."""
    site = process()
    shareable = with_item("note", "from the server")(Shareable())
    shareable.set_header(FedEventHeader.DIRECTION, "in")
    site.engine.components["learner"].fire_fed_event("fed.hello", shareable, site.context())
    assert shareable["note"] == "from the server" and site.events() == []
    assert not site_files[1].exists()


STATISTICS: list[tuple[str, dict[str, Any]]] = [
    ("an unknown group", {"patients": {"n": 7007}}),
    ("an unknown key", {"med_duallora": {"age": 61.0}}),
    ("a text value", {"med_duallora": {"n_subjects": SUBJECT}}),
    ("a phase that is the secret", {"med_duallora": {"phase": SUBJECT}}),
    ("a device that is a path", {"med_duallora": {"device": f"/data/{SUBJECT}"}}),
    ("a key that is the secret", {"med_duallora": {SUBJECT: 1.0}}),
    ("pixels", {"med_duallora": {"train_loss": PIXELS.tolist()}}),
    ("nested values", {"med_duallora": {"n_steps": {"note": SUBJECT}}}),
    ("a group that is text", {"med_duallora": SUBJECT}),
    ("a number out of range", {"med_duallora": {"both.auroc": 7007.0}}),
]


@pytest.mark.parametrize(("trick", "info"), STATISTICS, ids=[row[0] for row in STATISTICS])
def test_statistics_carry_nothing_else(trick: str, info: dict[str, Any], process):
    def act(fl_ctx: FLContext) -> None:
        for group, values in info.items():
            fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR).info[group] = values

    site: SiteProcess = process(job_components={"evil": JobHandler(InfoCollector.EVENT_TYPE_GET_STATS, act)})
    shown = site.collector.get_run_stats()
    assert shown.pop("ClientRunner") == {"job_id": "job-1", "current_tasks": []}
    assert shown.get("med_duallora", {}) in ({}, {"phase": "starting"})
    assert SUBJECT not in str(shown) and "7007" not in str(shown)


def test_a_running_loss_of_a_small_batch_is_not_shown(process, trained, site_files: tuple[Path, Path]):
    text = site_files[0].read_text().replace('"min_subjects": 1', '"min_subjects": 3')
    site_files[0].write_text(text)
    site = process()
    site.engine.components["learner"]._statistics = {"phase": "training", "train_loss": 0.5, "n_steps": 1}
    assert site.collector.get_run_stats()["med_duallora"] == {"phase": "training", "n_steps": 1.0}


@pytest.mark.parametrize("method", ["log_error", "log_warning", "log_critical"])
def test_texts_of_other_components_are_withheld_from_the_console(method: str, process, loud):
    class Foreign(FLComponent):
        pass

    site = process(job_components={"foreign": Foreign()})
    getattr(site.engine.components["foreign"], method)(site.context(), f"cannot read /data/{SUBJECT}/ed.nii.gz")
    shown = str(site.collector.get_errors())
    assert "its text stays at the site" in shown and SUBJECT not in shown and "/data" not in shown


def asked_by_a_peer(site: SiteProcess) -> Shareable:
    """What another site gets that sends a task as a message, and says that it is the server."""
    request = Shareable()
    request.set_header(ReservedHeaderKey.TASK_NAME, "train")
    request.set_header(ReservedHeaderKey.TASK_ID, "task-7")
    request.set_peer_props({"__identity_name__": "server", "__run_num__": "job-1"})
    with site.engine.new_context() as fl_ctx:
        return site.engine.aux_runner.dispatch(ReservedTopic.DO_TASK, request, fl_ctx)


def test_a_task_that_another_site_sends_is_not_done(process, trained):
    site = process()
    site.executor.reply = trained[1].to_shareable()
    reply = asked_by_a_peer(site)
    assert reply.get_return_code() == ReturnCode.TASK_UNSUPPORTED and "DXO" not in reply


def test_nor_is_it_answered_before_the_run_begins(process, trained, site_files):
    """FLARE listens for such tasks before any component hears of the run."""
    site = process(starts=False)
    site.executor.reply = trained[1].to_shareable()
    reply = asked_by_a_peer(site)
    assert reply.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR and "DXO" not in reply
    assert "before the run began" in site.ledger(site_files[1])[-1]["reason"]


def test_a_failure_of_the_guard_itself_lets_nothing_out(process, trained, monkeypatch):
    def broken(_fl_ctx: FLContext) -> Any:
        raise RuntimeError(f"{SUBJECT}")

    site = process()
    monkeypatch.setattr("med_duallora.flare.site.egress_guard.boundary_of", broken)
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    site.engine.components["learner"].fire_fed_event(FEDERATION_EVENT, scalar()(trained[1].metrics), site.context())
    assert site.events() == []
    assert set(site.collector.get_run_stats()) <= {"ClientRunner"}
