"""Attacks by a member in the name of another, and by an address in a message, through FLARE's own cell."""

from collections.abc import Iterator
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.f3.cellnet.core_cell import CoreCell, MessageType
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.stats_pool import StatsPoolManager
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, StreamHeaderKey

from med_duallora.flare.local.processes import free_port
from med_duallora.flare.wire.connections import ConnectionGuard
from med_duallora.site_kit.wanted import CONNECTION_GUARD

SERVER, MEMBER = "server", "ge"
CHANNEL, TOPIC = MessageHeaderKey.CHANNEL, MessageHeaderKey.TOPIC
JOB = "0b9a2c1e-5f0d-4c1b-9a77-2f3e4d5c6b7a"
FORGED = {
    "a request as the server": ("server", MEMBER, MessageType.REQ),
    "a request as the server's process of a job": (f"server.{JOB}", MEMBER, MessageType.REQ),
    "a request as another member": ("siemens", MEMBER, MessageType.REQ),
    "a request as another member's process of a job": (f"siemens.{JOB}", f"{MEMBER}.{JOB}", MessageType.REQ),
    "a request as one whose name begins as its own": ("ge2", MEMBER, MessageType.REQ),
    "a request over a connection without a name": ("server", "", MessageType.REQ),
    "an answer as the server": ("server", MEMBER, MessageType.REPLY),
    "an answer as another member": ("siemens", MEMBER, MessageType.REPLY),
    "a returned message as the server": ("server", MEMBER, MessageType.RETURN),
}
COMMANDS: dict[str, dict[str, str]] = {
    **{
        f"{topic!r} to the server's process of a job": {CHANNEL: CellChannel.SERVER_COMMAND, TOPIC: topic}
        for topic in (
            "abort",
            "handle_dead_job",
            "show_stats",
            "show_errors",
            "configure_job_log",
            "server_state",
            "new",
        )
    },
    **{
        f"{topic!r}, as one of the server's processes asks": {CHANNEL: CellChannel.SERVER_PARENT_LISTENER, TOPIC: topic}
        for topic in ("get_clients", "update_run_status", "heartbeat")
    },
    **{
        f"{topic!r} to FLARE's network agent": {CHANNEL: "_net_manager", TOPIC: topic}
        for topic in ("stop", "change_root", "config_vars")
    },
    "'abort' as a stream": {
        CHANNEL: STREAM_CHANNEL,
        TOPIC: "",
        StreamHeaderKey.CHANNEL: CellChannel.SERVER_COMMAND,
        StreamHeaderKey.TOPIC: "abort",
    },
    "'abort', as if it were part of a stream for another": {
        CHANNEL: CellChannel.SERVER_COMMAND,
        TOPIC: "abort",
        StreamHeaderKey.CHANNEL: CellChannel.SERVER_COMMAND,
        StreamHeaderKey.TOPIC: "get_task",
    },
}
ASKED = [
    (CellChannel.SERVER_COMMAND, "get_task"),
    (CellChannel.SERVER_COMMAND, "submit_update"),
    (CellChannel.SERVER_MAIN, "heart_beat"),
    (CellChannel.AUX_COMMUNICATION, "fed.event"),
    (CellChannel.HCI, "command"),
]
HONEST = [(MEMBER, MEMBER), (f"{MEMBER}.{JOB}", MEMBER), (f"{MEMBER}.{JOB}", f"{MEMBER}.{JOB}"), (SERVER, SERVER)]
INVITATIONS = {
    "an answer with an address to connect to": MessageType.REPLY,
    "a request with an address to connect to": MessageType.REQ,
}


class Engine:
    """What FLARE's server engine is to a component."""

    def __init__(self, core: Any) -> None:
        self.cell = type("Cell", (), {"core_cell": core})()


class Cell:
    """FLARE's cell, as far as it receives; it is never connected to anything."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch, guard: ConnectionGuard | None) -> None:
        monkeypatch.setattr(CoreCell, "ALL_CELLS", {})
        monkeypatch.setattr(StatsPoolManager, "pools", {})
        self.core = CoreCell(name, f"tcp://localhost:{free_port()}", secure=False, credentials={})
        self.heard: list[str] = []
        self.connected: list[str] = []
        manager = self.core.connector_manager
        monkeypatch.setattr(manager, "get_external_connector", lambda url, adhoc: self.connected.append(url))  # noqa: ARG005
        monkeypatch.setattr(self.core, "_process_request", lambda origin, message: self.heard.append(origin))  # noqa: ARG005
        monkeypatch.setattr(self.core, "_process_reply", lambda origin, message, kind: self.heard.append(origin))  # noqa: ARG005
        monkeypatch.setattr(self.core, "_forward", lambda *values: self.heard.append(values[1]))
        if guard:
            guard.handle_event(EventType.SYSTEM_BOOTSTRAP, FLContextManager(Engine(self.core), name).new_context())

    def receive(self, origin: str, neighbour: str, kind: str, to: str = "", url: str = "", **more: str) -> None:
        headers = {
            MessageHeaderKey.MSG_TYPE: kind,
            MessageHeaderKey.ORIGIN: origin,
            MessageHeaderKey.FROM_CELL: "another",
            MessageHeaderKey.DESTINATION: to or self.core.get_fqcn(),
            CHANNEL: CellChannel.CLIENT_MAIN,
            TOPIC: "admin",
            **({MessageHeaderKey.CONN_URL: url} if url else {}),
            **more,
        }
        self.core._process_received_msg(Endpoint(neighbour), None, Message(headers, None))


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    yield Cell(SERVER, monkeypatch, ConnectionGuard())


@pytest.mark.parametrize("to", [SERVER, "siemens", f"siemens.{JOB}"])
@pytest.mark.parametrize("trick", FORGED)
def test_the_server_neither_hears_nor_passes_on_a_message_in_anothers_name(trick: str, to: str, guarded: Cell):
    origin, neighbour, kind = FORGED[trick]
    guarded.receive(origin, neighbour, kind, to)
    assert guarded.heard == []


@pytest.mark.parametrize("to", [SERVER, f"{SERVER}.{JOB}"])
@pytest.mark.parametrize("trick", COMMANDS)
def test_members_do_not_command_the_server(trick: str, to: str, guarded: Cell):
    guarded.receive(f"{MEMBER}.{JOB}", MEMBER, MessageType.REQ, to, **COMMANDS[trick])
    assert guarded.heard == []
    guarded.receive(f"{SERVER}.{JOB}", f"{SERVER}.{JOB}", MessageType.REQ, to, **COMMANDS[trick])
    assert guarded.heard == [f"{SERVER}.{JOB}"], "its own processes do"


@pytest.mark.parametrize("name", ASKED)
def test_they_ask_for_tasks_and_answer_them(name: tuple[str, str], guarded: Cell):
    guarded.receive(
        f"{MEMBER}.{JOB}", MEMBER, MessageType.REQ, SERVER, **dict(zip((CHANNEL, TOPIC), name, strict=True))
    )
    assert guarded.heard == [f"{MEMBER}.{JOB}"]


@pytest.mark.parametrize(("origin", "neighbour"), HONEST)
def test_it_hears_and_passes_on_a_members_own_messages(origin: str, neighbour: str, guarded: Cell):
    for to in (SERVER, "siemens"):
        guarded.receive(origin, neighbour, MessageType.REQ, to)
    assert guarded.heard == [origin, origin]


@pytest.mark.parametrize("name", [SERVER, f"{SERVER}.{JOB}"])
@pytest.mark.parametrize("trick", INVITATIONS)
def test_nobody_makes_the_server_connect_to_an_address(trick: str, name: str, monkeypatch: pytest.MonkeyPatch):
    cell = Cell(name, monkeypatch, ConnectionGuard())
    cell.receive(MEMBER, MEMBER, INVITATIONS[trick], url="tcp://localhost:1")
    assert cell.connected == []


def test_without_the_guard_both_work(monkeypatch: pytest.MonkeyPatch):
    """What FLARE 2.9 does by itself."""
    cell = Cell(SERVER, monkeypatch, None)
    cell.receive(SERVER, MEMBER, MessageType.REQ, "siemens")
    cell.receive(MEMBER, MEMBER, MessageType.REPLY, url="tcp://localhost:1")
    assert cell.heard == [SERVER, MEMBER] and cell.connected == ["tcp://localhost:1"]


def test_a_job_s_process_hears_what_the_server_s_parent_process_passed_on(monkeypatch: pytest.MonkeyPatch):
    cell = Cell(f"{SERVER}.{JOB}", monkeypatch, ConnectionGuard())
    cell.receive(f"{MEMBER}.{JOB}", SERVER, MessageType.REQ)
    assert cell.heard == [f"{MEMBER}.{JOB}"]


def test_a_server_whose_guard_cannot_be_set_does_not_start():
    for core in (None, object()):
        with pytest.raises(UnsafeComponentError):
            ConnectionGuard().handle_event(
                EventType.SYSTEM_BOOTSTRAP, FLContextManager(Engine(core), SERVER).new_context()
            )


def test_refusals_are_told_seldom(guarded: Cell, caplog: pytest.LogCaptureFixture):
    for _ in range(100):
        guarded.receive(SERVER, MEMBER, MessageType.REQ)
    told = [record.getMessage() for record in caplog.records if "does not fit the connection" in record.getMessage()]
    assert len(told) == 7


def test_the_kit_names_this_class():
    assert CONNECTION_GUARD["path"] == f"{ConnectionGuard.__module__}.{ConnectionGuard.__qualname__}"
