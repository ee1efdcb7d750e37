"""A site's parent process with FLARE's own dispatchers, and the messages that an attacker sends to it."""

from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.workspace import Workspace
from nvflare.fuel.f3.cellnet.core_cell import MessageType
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey, MessagePropKey
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.private.admin_defs import Message
from nvflare.private.aux_runner import AuxRunner
from nvflare.private.defs import InfoCollectorTopic, RequestHeader, SysCommandTopic, TrainingTopic
from nvflare.private.fed.client.admin import FedAdminAgent, RequestProcessor
from nvflare.private.fed.client.client_engine import ClientEngine

from med_duallora.boundary.ledger_audit import read_lines
from med_duallora.flare.site.message_gate import MessageGate

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
