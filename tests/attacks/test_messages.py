"""Attacks by commands to a site's processes, through FLARE's own dispatchers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.f3.cellnet.core_cell import CoreCell, MessageType
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, StreamHeaderKey
from nvflare.fuel.sec.audit import AuditService
from nvflare.fuel.sec.authz import AuthorizationService
from nvflare.private.admin_defs import Message
from nvflare.private.admin_defs import ReturnCode as AdminCode
from nvflare.private.defs import InfoCollectorTopic, RequestHeader, SysCommandTopic, TrainingTopic
from nvflare.private.fed.client.admin import FedAdminAgent
from nvflare.security.security import FLAuthorizer

from med_duallora.flare.site.console_guard import ClosedRights
from med_duallora.flare.site.message_gate import Gate, MessageGate, guard_cell
from med_duallora.flare.site.message_rules import TOPICS
from med_duallora.site_kit import harden
from tests.attacks.site_parent import (
    JOB,
    PERSON,
    RIGHTS,
    SERVER,
    SITE,
    Engine,
    Everything,
    Parent,
    command,
    envelope,
)
from tests.unit.site_kit.conftest import provisioned, site_kit

__all__ = ["provisioned", "site_kit"]


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
