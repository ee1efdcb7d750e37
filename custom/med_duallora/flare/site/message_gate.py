"""The one gate for all messages to a site's processes: what is not on the short list is refused and recorded.

It stands at three places: before a process reads a message at all (``guard_cell``), before the parent process does
what a command says (``guard_commands``), and before a process hears what other members call events or tasks
(``close_topics``). FLARE loads ``MessageGate`` from local/resources.json into the site's parent process; in a job's
process the egress guard sets the gate.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReservedTopic, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.fuel.f3.cellnet.core_cell import MessageType
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey
from nvflare.fuel.f3.cellnet.defs import ReturnCode as CellReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply as make_cell_reply
from nvflare.fuel.f3.cellnet.utils import new_cell_message
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.fuel.utils.log_utils import get_obj_logger
from nvflare.private.admin_defs import Message, error_reply
from nvflare.widgets.fed_event import FED_EVENT_TOPIC

from med_duallora.boundary.ledger import site_ledger
from med_duallora.boundary.ledger_entry import BLOCKED, Entry
from med_duallora.errors import MedDualLoRAError
from med_duallora.flare.site.message_rules import (
    Envelope,
    answer_problem,
    command_problem,
    envelope_problem,
    is_within,
)
from med_duallora.flare.wire.connections import close_invitations
from med_duallora.settings.config import SiteConfig
from med_duallora.site_kit.policy_channels import site_config_file

CLOSED_TOPICS = frozenset({FED_EVENT_TOPIC, ReservedTopic.DO_TASK})
"""Messages between components that a site does not take: events that it did not make, tasks that it did not fetch."""


class Gate:
    """The gate of one process.

    Args:
        own: the process's cell.
        kit: the site's startup kit, which names the configuration and thereby the ledger.
    """

    def __init__(self, own: str, kit: Path) -> None:
        self.own = own
        self.kit = kit
        self.logger = get_obj_logger(self)
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def incoming(self, message: CellMessage) -> CellMessage | None:
        """Stop a message for this process, or for a job's behind it: FLARE neither reads it nor passes it on.

        Answers as well: FLARE unpacks one, whoever sends it, before it looks whether anything was asked.
        """
        destination = str(message.get_header(MessageHeaderKey.DESTINATION, ""))
        if not is_within(destination, self.own):
            return None
        if message.get_header(MessageHeaderKey.MSG_TYPE) == MessageType.REQ:
            return self.request(message)
        return self._refused(message, answer_problem)

    def request(self, message: CellMessage) -> CellMessage | None:
        """Return the refusal of a request; also of one that came inside another (FLARE's bulk messages)."""
        return self._refused(message, envelope_problem)

    def _refused(self, message: CellMessage, judge: Callable[[Envelope, str], str]) -> CellMessage | None:
        for envelope in envelopes_of(message):
            if problem := judge(envelope, self.own):
                self.refuse(problem, envelope.origin, f"{envelope.channel}/{envelope.topic}")
                return make_cell_reply(CellReturnCode.UNAUTHENTICATED, "refused by the site")
        return None

    def command(self, message: CellMessage) -> CellMessage | None:
        """Return the refusal of a command to the parent process; None where it may be done."""
        request = message.payload
        origin = str(message.get_header(MessageHeaderKey.ORIGIN, ""))
        problem = "it is no command" if type(request) is not Message else command_problem(request, origin, self.own)
        if not problem:
            return None
        self.refuse(problem, origin, str(getattr(request, "topic", "")))
        return new_cell_message({}, error_reply(f"refused by the site: {problem}"))

    def refuse(self, reason: str, origin: str, topic: str) -> None:
        """Write of a refusal in the site's log and ledger, at its first, second, fourth, eighth, ... occurrence.

        So nobody can fill a disk with refusals.
        """
        with self._lock:
            self._counts[reason] += 1
            count = self._counts[reason]
        if count & (count - 1):
            return
        self.logger.warning(f"a message to this site was refused: {reason} (number {count})")
        text = f"{reason}; sent as {origin[:64]!r}, number {count} of this reason"
        try:
            place = site_config_file(self.kit)
            if place is not None:
                entry = Entry("", self.own.partition(".")[0], topic[:64], "message", BLOCKED, text)
                site_ledger(SiteConfig.from_file(place)).append(entry)
        except (MedDualLoRAError, OSError) as error:
            self.logger.error(f"the refusal is not in the ledger: {type(error).__name__}")


def envelopes_of(message: CellMessage) -> tuple[Envelope, Envelope]:
    """Return the outside of a message as it is, and as that of the stream whose part it says to be.

    FLARE delivers by the first unless it really is a stream, and the sender writes both.
    """
    header = message.get_header
    neighbour = str(getattr(message.get_prop(MessagePropKey.ENDPOINT), "name", ""))
    origin = str(header(MessageHeaderKey.ORIGIN, ""))
    channel, topic = header(MessageHeaderKey.CHANNEL, ""), header(MessageHeaderKey.TOPIC, "")
    inner = header(StreamHeaderKey.CHANNEL) or channel, header(StreamHeaderKey.TOPIC) or topic
    return (
        Envelope(origin, neighbour, str(channel), str(topic)),
        Envelope(origin, neighbour, *map(str, inner)),
    )


class MessageGate(FLComponent):
    """Sets the gate in the site's parent process.

    Raises:
        UnsafeComponentError: it cannot be set; FLARE then does not start the site.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate: Gate | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Set the gate before the site registers, and before it takes commands."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            close_topics(fl_ctx)
            self.gate = guard_cell(fl_ctx)
            if self.gate is None:
                raise UnsafeComponentError("the gate for messages could not be set")
        elif event_type == EventType.SYSTEM_START:
            guard_commands(fl_ctx.get_engine().admin_agent, self.gate)


def guard_cell(fl_ctx: FLContext) -> Gate | None:
    """Set the gate where this process receives messages, once; None where the process has no cell yet."""
    engine = fl_ctx.get_engine()
    core = getattr(getattr(engine, "cell", None), "core_cell", None)
    workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
    if core is None or workspace is None:
        return None
    gate: Gate | None = getattr(core, "med_duallora_gate", None)
    if gate is None:
        gate = Gate(str(core.get_fqcn()), Path(workspace.get_root_dir()))
        close_invitations(core, lambda reason: gate.refuse(reason, "not told", ""))
        core.add_incoming_filter("*", "*", gate.incoming)
        core.add_incoming_request_filter("*", "*", gate.request)
        core.med_duallora_gate = gate
    return gate


def guard_commands(agent: Any, gate: Gate | None) -> None:
    """Put the gate before the parent process's commands; without one, it takes none."""
    if gate is None:
        agent.processors.clear()
        return
    dispatch = agent._dispatch_request

    def dispatched(request: CellMessage) -> CellMessage:
        return gate.command(request) or dispatch(request)

    # FLARE registers this attribute again when it connects again
    agent._dispatch_request = dispatched
    agent.register_cell_cb()


class ClosedTopics(dict[str, Any]):
    """FLARE's table of handlers, without those for the closed topics; whoever registers one later changes nothing."""

    def get(self, topic: str, default: Any = None) -> Any:
        """Return the handler of a topic."""
        return _refused if topic in CLOSED_TOPICS else super().get(topic, default)


def close_topics(fl_ctx: FLContext) -> None:
    """Take no events and no tasks that come as messages.

    FLARE 2.9 lets every member of the federation send them, takes its word for who it is, shows such an event to all
    components as if the site had made it, and returns the result of such a task to its sender.
    """
    runner = getattr(fl_ctx.get_engine(), "aux_runner", None)
    table = getattr(runner, "topic_table", None)
    if isinstance(table, dict) and not isinstance(table, ClosedTopics):
        with runner.reg_lock:  # type: ignore[union-attr]
            runner.topic_table = ClosedTopics(table)  # type: ignore[union-attr]


def _refused(topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:  # noqa: ARG001  FLARE's signature
    engine = fl_ctx.get_engine()
    gate = getattr(getattr(getattr(engine, "cell", None), "core_cell", None), "med_duallora_gate", None)
    if isinstance(gate, Gate):
        gate.refuse("this site takes no events and no tasks of others", "not told", topic)
    return make_reply(ReturnCode.TASK_UNSUPPORTED)
