"""Attacks by messages to a site's processes, commands and events, through FLARE's own dispatchers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import EventScope, FedEventHeader, FLContextKey, ReservedKey, ReservedTopic, ReturnCode
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.workspace import Workspace
from nvflare.fuel.f3.cellnet.core_cell import CoreCell, MessageType
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey, MessagePropKey
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, StreamHeaderKey
from nvflare.fuel.sec.audit import AuditService
from nvflare.fuel.sec.authz import AuthorizationService
from nvflare.private.admin_defs import Message
from nvflare.private.admin_defs import ReturnCode as AdminCode
from nvflare.private.aux_runner import AuxRunner
from nvflare.private.defs import InfoCollectorTopic, RequestHeader, SysCommandTopic, TrainingTopic
from nvflare.private.fed.client.admin import FedAdminAgent, RequestProcessor
from nvflare.private.fed.client.client_engine import ClientEngine
from nvflare.security.security import FLAuthorizer
from nvflare.widgets.fed_event import FED_EVENT_TOPIC

from med_duallora.boundary.ledger_audit import read_lines
from med_duallora.flare.site.console_guard import ClosedRights
from med_duallora.flare.site.message_gate import Gate, MessageGate, guard_cell
from med_duallora.flare.site.message_rules import TOPICS
from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from med_duallora.site_kit import harden
from tests.unit.site_kit.conftest import provisioned, site_kit

__all__ = ["provisioned", "site_kit"]

SITE, SERVER = "siemens", "server"
JOB = "0b9a2c1e-5f0d-4c1b-9a77-2f3e4d5c6b7a"
PERSON = {RequestHeader.USER_NAME: "lead@clinic", RequestHeader.USER_ORG: "clinic_a", RequestHeader.USER_ROLE: "lead"}
RIGHTS = {
    "format_version": "1.0",
    "permissions": {
        "project_admin": "any",
        "org_admin": {"submit_job": "none", "view": "any", "operate": "o:site"},
        "lead": {"submit_job": "any", "view": "any", "operate": "none"},
    },
}


class Cell:
    """What FLARE's parent process needs of its cell; the filters and the callback are FLARE's registrations."""

    def __init__(self, own: str) -> None:
        self.own, self.callback = own, None
        self.filters: list[Any] = []
        self.request_filters: list[Any] = []
        self.core_cell = self

    def get_fqcn(self) -> str:
        return self.own

    def register_request_cb(self, channel: str, topic: str, cb: Any) -> None:  # noqa: ARG002  FLARE's signature
        self.callback = cb

    def add_incoming_filter(self, channel: str, topic: str, cb: Any) -> None:
        assert (channel, topic) == ("*", "*")
        self.filters.append(cb)

    def add_incoming_request_filter(self, channel: str, topic: str, cb: Any) -> None:
        assert (channel, topic) == ("*", "*")
        self.request_filters.append(cb)

    def _add_adhoc_connector(self, to_cell: str, url: str) -> None:
        raise AssertionError(f"it connects to {to_cell} at {url}")

    def receive(self, message: CellMessage) -> Any:
        """What FLARE does with a message: the incoming filters may drop it, then the callback answers."""
        for look in (*self.filters, *self.request_filters):
            if look(message):
                return "dropped"
        assert self.callback
        return self.callback(message)


class Everything(RequestProcessor):
    """Answers every command that FLARE knows, and remembers which."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def get_topics(self) -> list[str]:
        known = [
            value for part in (TrainingTopic, SysCommandTopic, InfoCollectorTopic) for value in vars(part).values()
        ]
        return sorted({value for value in known if isinstance(value, str) and "." in value and "nvflare" not in value})

    def process(self, req: Message, app_ctx: Any) -> Message:
        self.done.append(req.topic)
        if req.topic == TrainingTopic.DELETE_RUN:
            ClientEngine.delete_run(app_ctx, req.get_header(RequestHeader.JOB_ID))
        return Message("reply", "done")


class Engine:
    """FLARE's parent process of a site."""

    def __init__(self, kit: Path, own: str = SITE) -> None:
        self.args = type("Args", (), {"workspace": str(kit)})()
        self.cell = Cell(own)
        self.manager = FLContextManager(
            self, SITE, "", private_stickers={FLContextKey.WORKSPACE_OBJECT: Workspace(str(kit), SITE)}
        )
        self.aux_runner = AuxRunner(self)
        self.admin_agent: Any = None

    def new_context(self) -> FLContext:
        return self.manager.new_context()

    def get_cell(self) -> Cell:
        return self.cell

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None: ...


class Parent:
    """A site's parent process with FLARE's admin agent, gated or as FLARE makes it."""

    def __init__(self, kit: Path, gated: bool = True) -> None:
        self.kit = kit
        self.engine = Engine(kit)
        gate = MessageGate()
        if gated:
            gate.handle_event(EventType.SYSTEM_BOOTSTRAP, self.engine.new_context())
        self.engine.admin_agent = FedAdminAgent("admin_agent", self.engine.cell, self.engine)
        self.processor = Everything()
        self.engine.admin_agent.register_processor(self.processor)
        if gated:
            gate.handle_event(EventType.SYSTEM_START, self.engine.new_context())
            self.engine.admin_agent.register_cell_cb()  # as FLARE does when it connects again

    def ask(self, request: Any, origin: str = SERVER, neighbour: str | None = None, **changes: Any) -> Any:
        return self.engine.cell.receive(envelope(request, origin, neighbour, **changes))

    def ledger(self) -> list[Any]:
        path = self.kit / "egress_ledger.jsonl"
        return read_lines(path) if path.exists() else []


def envelope(request: Any, origin: str, neighbour: str | None = None, **changes: Any) -> CellMessage:
    headers = {
        MessageHeaderKey.MSG_TYPE: MessageType.REQ,
        MessageHeaderKey.ORIGIN: origin,
        MessageHeaderKey.DESTINATION: SITE,
        MessageHeaderKey.CHANNEL: CellChannel.CLIENT_MAIN,
        MessageHeaderKey.TOPIC: "admin",
        **changes,
    }
    message = CellMessage(headers, request)
    found = neighbour if neighbour is not None else (origin if origin.startswith(SITE) else SERVER)
    message.set_prop(MessagePropKey.ENDPOINT, Endpoint(found) if found else None)
    return message


def command(topic: str, job_id: Any = JOB, person: Any = None, **headers: Any) -> Message:
    message = Message(topic, "")
    message.set_headers({RequestHeader.JOB_ID: job_id, **(person or {}), **headers})
    return message


@pytest.fixture
def kit(site_kit: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed kit whose site configuration is filled in; its ledger lies beside ``local`` here."""
    harden(site_kit)
    place = site_kit / "local" / "med_duallora_site.json"
    values = {**json.loads(place.read_text()), "data_dir": "data", "cache_dir": "cache"}
    values |= {"state_dir": str(site_kit / "state"), "ledger": str(site_kit / "egress_ledger.jsonl")}
    place.write_text(json.dumps(values))
    authorizer = ClosedRights(FLAuthorizer("clinic_a", {**RIGHTS}))
    monkeypatch.setattr(AuthorizationService, "the_authorizer", authorizer)
    monkeypatch.setattr(AuditService, "the_auditor", None, raising=False)
    monkeypatch.setattr(
        AuditService, "get_auditor", staticmethod(lambda: AuditService.initialize(str(site_kit / "audit.txt")))
    )
    return site_kit


@pytest.fixture
def parent(kit: Path) -> Parent:
    return Parent(kit)


NOT_TAKEN = "this site does not take this command"
NOT_THE_SERVER = "neither from the server nor from a process of this site"
NO_RIGHT = "its user has no right to it here"
NO_JOB = "the job id is not one of FLARE's own"
LIED = {RequestHeader.REQUIRE_AUTHZ: "false", RequestHeader.ADMIN_COMMAND: "check_status"}
ADMIN = {**PERSON, RequestHeader.USER_ROLE: "project_admin"}
ORGANISATION = {**PERSON, RequestHeader.USER_ROLE: "org_admin"}
SUPER = {**PERSON, RequestHeader.USER_ROLE: "super"}
COMMANDS: list[tuple[str, Message, dict[str, Any], str]] = [
    *[
        (
            f"delete_run of {name!r} by a member",
            command(TrainingTopic.DELETE_RUN, name),
            {"origin": "ge"},
            NOT_THE_SERVER,
        )
        for name in ("local", "../x", "", "startup", JOB)
    ],
    *[
        (f"delete_run of {name!r} by the server", command(TrainingTopic.DELETE_RUN, name), {}, NOT_TAKEN)
        for name in ("local", "../x", "", JOB)
    ],
    *[
        (f"a job named {name!r} by the server", command(TrainingTopic.DEPLOY, name, PERSON), {}, NO_JOB)
        for name in ("local", "../x", "", None, 7, JOB.upper(), JOB + "/..", JOB + "\n", JOB.replace("-4", "-1"))
    ],
    *[
        (f"{topic} by another member", command(topic, person=PERSON), {"origin": "ge"}, NOT_THE_SERVER)
        for topic in (
            TrainingTopic.SHUTDOWN,
            TrainingTopic.RESTART,
            TrainingTopic.ABORT,
            TrainingTopic.DEPLOY,
            SysCommandTopic.CONFIGURE_SITE_LOG,
            SysCommandTopic.REPORT_ENV,
            InfoCollectorTopic.SHOW_ERRORS,
        )
    ],
    *[
        (f"{topic} by the server", command(topic, person=ADMIN), {}, NOT_TAKEN)
        for topic in (
            TrainingTopic.CONFIGURE_JOB_LOG,
            TrainingTopic.ABORT_TASK,
            SysCommandTopic.CONFIGURE_SITE_LOG,
            SysCommandTopic.SYS_INFO,
            SysCommandTopic.REPORT_RESOURCES,
        )
    ],
    *[
        (f"{topic} with no user, without the flag", command(topic, **LIED), {}, NO_RIGHT)
        for topic, rule in TOPICS.items()
        if rule.right
    ],
    (
        "shutdown by a user without the right, under another command's name",
        command(TrainingTopic.SHUTDOWN, person=PERSON, **LIED),
        {},
        NO_RIGHT,
    ),
    ("restart by FLARE's test role", command(TrainingTopic.RESTART, person=SUPER), {}, NO_RIGHT),
    ("from an unknown origin", command(TrainingTopic.ABORT), {"origin": "nobody"}, NOT_THE_SERVER),
    ("from no origin", command(TrainingTopic.ABORT), {"origin": ""}, NOT_THE_SERVER),
    (
        "from a member whose name begins as the server's",
        command(TrainingTopic.ABORT),
        {"origin": "server2"},
        NOT_THE_SERVER,
    ),
    (
        "as the server, over another member's connection",
        command(TrainingTopic.ABORT),
        {"neighbour": "ge"},
        NOT_THE_SERVER,
    ),
    ("as the server, over an unknown connection", command(TrainingTopic.ABORT), {"neighbour": ""}, NOT_THE_SERVER),
    (
        "as a job of this site, over the server's connection",
        command(TrainingTopic.NOTIFY_JOB_STATUS),
        {"origin": f"{SITE}.{JOB}", "neighbour": SERVER},
        NOT_THE_SERVER,
    ),
    (
        "by the server's process of a job",
        command(TrainingTopic.ABORT),
        {"origin": f"{SERVER}.{JOB}"},
        "from the server only",
    ),
    (
        "by a job of this site",
        command(TrainingTopic.DELETE_RUN, "local"),
        {"origin": f"{SITE}.{JOB}"},
        "a job of this site commands the site",
    ),
    (
        "by a job of this site, under another topic",
        command(TrainingTopic.DELETE_RUN, "local"),
        {"origin": f"{SITE}.{JOB}", MessageHeaderKey.TOPIC: TrainingTopic.NOTIFY_JOB_STATUS},
        "from the server only",
    ),
    (
        "the state of a job that is another's",
        command(TrainingTopic.NOTIFY_JOB_STATUS, JOB.replace("0b", "1b")),
        {"origin": f"{SITE}.{JOB}", MessageHeaderKey.TOPIC: TrainingTopic.NOTIFY_JOB_STATUS},
        "only a job's own process tells its state",
    ),
    (
        "the state of a job, by the server",
        command(TrainingTopic.NOTIFY_JOB_STATUS),
        {},
        "only a job's own process tells its state",
    ),
    ("no command at all", {"topic": TrainingTopic.ABORT}, {}, "it is no command"),
    (
        "FLARE's network agent, by the server",
        command("stop"),
        {MessageHeaderKey.CHANNEL: "_net_manager"},
        "nothing on this channel",
    ),
    (
        "a job's command channel, by the server",
        command("show_errors"),
        {MessageHeaderKey.CHANNEL: CellChannel.CLIENT_COMMAND, MessageHeaderKey.DESTINATION: f"{SITE}.{JOB}"},
        "nothing on this channel",
    ),
    (
        "the same as a stream",
        command("show_errors"),
        {MessageHeaderKey.CHANNEL: STREAM_CHANNEL, StreamHeaderKey.CHANNEL: CellChannel.CLIENT_COMMAND},
        "nothing on this channel",
    ),
    *[
        (
            f"{what}, as if it were part of a stream for another",
            command("stop"),
            {MessageHeaderKey.CHANNEL: channel, StreamHeaderKey.CHANNEL: CellChannel.AUX_COMMUNICATION},
            "nothing on this channel",
        )
        for what, channel in (
            ("FLARE's network agent", "_net_manager"),
            ("a job's command channel", CellChannel.CLIENT_COMMAND),
        )
    ],
    *[
        (
            f"an answer {how}",
            None,
            {"origin": origin, "neighbour": neighbour, MessageHeaderKey.MSG_TYPE: kind},
            "it answers, but is neither the server nor of this site",
        )
        for how, origin, neighbour, kind in (
            ("of another member", "ge", SERVER, MessageType.REPLY),
            ("returned by another member", "ge", SERVER, MessageType.RETURN),
            ("as the server, over another member's connection", SERVER, "ge", MessageType.REPLY),
            ("of no kind that FLARE knows", "ge", SERVER, "other"),
        )
    ],
]


@pytest.mark.parametrize("row", COMMANDS, ids=[row[0] for row in COMMANDS])
def test_a_command_is_refused_and_recorded(row: tuple[str, Message, dict[str, Any], str], parent: Parent):
    _trick, request, how, refusal = row
    kept = sorted(path.name for path in (parent.kit / "local").iterdir())
    reply = parent.ask(request, **how)
    assert reply == "dropped" or reply.payload.get_header("_rtnCode") == AdminCode.ERROR
    assert parent.processor.done == []
    assert sorted(path.name for path in (parent.kit / "local").iterdir()) == kept
    (line,) = parent.ledger()
    assert (line["kind"], line["verdict"]) == ("message", "blocked") and refusal in line["reason"]


def test_without_the_gate_a_member_deletes_the_policy(kit: Path):
    """What FLARE 2.9 does by itself."""
    parent = Parent(kit, gated=False)
    parent.ask(command(TrainingTopic.DELETE_RUN, "local"), origin="ge")
    assert parent.processor.done == [TrainingTopic.DELETE_RUN] and not (kit / "local").exists()


META = {"submitter_name": "lead@clinic", "submitter_org": "clinic_a", "submitter_role": "lead"}
TAKEN: list[tuple[str, Message]] = [
    ("check_status", command(TrainingTopic.CHECK_STATUS, None, PERSON)),
    ("show_stats", command(InfoCollectorTopic.SHOW_STATS, person=PERSON)),
    ("show_errors", command(InfoCollectorTopic.SHOW_ERRORS, person=PERSON)),
    ("reset_errors", command(InfoCollectorTopic.RESET_ERRORS, person=PERSON)),
    ("shutdown by the site's own organisation", command(TrainingTopic.SHUTDOWN, None, ORGANISATION)),
    ("restart by the project administrator", command(TrainingTopic.RESTART, None, ADMIN)),
    ("deploy", command(TrainingTopic.DEPLOY, person=PERSON)),
    ("start, with the submitter in the job's meta", command(TrainingTopic.START_JOB, **{RequestHeader.JOB_META: META})),
    ("check of resources", command(TrainingTopic.CHECK_RESOURCE)),
    ("their release", command(TrainingTopic.CANCEL_RESOURCE, None)),
    ("abort", command(TrainingTopic.ABORT)),
]


@pytest.mark.parametrize("row", TAKEN, ids=[row[0] for row in TAKEN])
def test_what_the_guides_promise_still_works(row: tuple[str, Message], parent: Parent):
    assert parent.ask(row[1]).payload.body == "done"
    assert parent.processor.done == [row[1].topic] and parent.ledger() == []


def test_a_job_tells_its_own_state(parent: Parent):
    request = command(TrainingTopic.NOTIFY_JOB_STATUS)
    how = {"origin": f"{SITE}.{JOB}", MessageHeaderKey.TOPIC: TrainingTopic.NOTIFY_JOB_STATUS}
    assert parent.ask(request, **how).payload.body == "done"


def test_answers_and_messages_that_only_pass_through_are_let_by(parent: Parent):
    gate = guard_cell(parent.engine.new_context())
    assert isinstance(gate, Gate) and len(parent.engine.cell.filters) == 1, "set once"
    answer = envelope(None, SERVER, **{MessageHeaderKey.MSG_TYPE: MessageType.REPLY})
    outward = envelope(None, f"{SITE}.{JOB}", **{MessageHeaderKey.DESTINATION: f"{SERVER}.{JOB}"})
    assert gate.incoming(answer) is None and gate.incoming(outward) is None


def test_a_site_connects_to_no_address_that_a_message_names(parent: Parent):
    parent.engine.cell._add_adhoc_connector("server.other", "tcp://localhost:1")
    (line,) = parent.ledger()
    assert line["verdict"] == "blocked" and "an address to connect to" in line["reason"]


def test_in_a_jobs_process_the_parent_commands_and_the_server_does_not(kit: Path):
    gate = guard_cell(Engine(kit, f"{SITE}.{JOB}").new_context())
    assert gate is not None
    to_job = {MessageHeaderKey.DESTINATION: f"{SITE}.{JOB}", MessageHeaderKey.CHANNEL: CellChannel.CLIENT_COMMAND}
    assert gate.incoming(envelope(None, SITE, **to_job)) is None
    assert gate.incoming(envelope(None, SERVER, SITE, **to_job)) is not None
    aux = {**to_job, MessageHeaderKey.CHANNEL: CellChannel.AUX_COMMUNICATION}
    assert gate.incoming(envelope(None, f"{SERVER}.{JOB}", SITE, **aux)) is None
    assert gate.incoming(envelope(None, f"ge.{JOB}", SERVER, **aux)) is not None
    assert gate.incoming(envelope(None, "ge", SITE, **aux)) is not None


def test_a_message_inside_another_is_looked_at_as_well(parent: Parent):
    """FLARE unpacks bulk messages after its incoming filters; what lies inside has no connection of its own."""
    inner = CellMessage({MessageHeaderKey.ORIGIN: SERVER, MessageHeaderKey.CHANNEL: "_net_manager"}, None)
    assert parent.engine.cell.request_filters[0](inner) is not None


def test_refusals_do_not_fill_the_disk(parent: Parent):
    for _ in range(1000):
        parent.ask(command(TrainingTopic.DELETE_RUN, "local"), origin="ge")
    assert [line["reason"].split("number ")[1].split()[0] for line in parent.ledger()] == [str(2**n) for n in range(10)]


def test_a_site_whose_gate_cannot_be_set_does_not_start(kit: Path):
    with pytest.raises(UnsafeComponentError, match="gate for messages"):
        MessageGate().handle_event(EventType.SYSTEM_BOOTSTRAP, FLContextManager(None, SITE).new_context())
    engine = Engine(kit)
    engine.admin_agent = FedAdminAgent("admin_agent", engine.cell, engine)
    engine.admin_agent.register_processor(Everything())
    MessageGate().handle_event(EventType.SYSTEM_START, engine.new_context())
    assert engine.admin_agent.processors == {}, "and without a gate it takes no command"


def test_flares_cell_calls_these_filters():
    """The gate stands on two registrations of FLARE's cell; another version may have others."""
    assert callable(CoreCell.add_incoming_filter) and callable(CoreCell.add_incoming_request_filter)


def test_a_refusal_counts_where_the_kit_is_gone(parent: Parent):
    shutil.rmtree(parent.kit / "local")
    assert parent.ask(command(TrainingTopic.DELETE_RUN, "local"), origin="ge") == "dropped"


# --- events and tasks of others --------------------------------------------------------------------------------------

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
