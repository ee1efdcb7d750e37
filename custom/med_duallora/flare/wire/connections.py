"""Nobody speaks in another's name, and nobody turns another's messages to himself.

FLARE 2.9 binds the name of a connection to its certificate, but takes from a message itself whose message it is. The
server proves itself with a token that is in every message that it sends, so every member can send one on as the
server's. Whoever receives a message with an address in it connects to that address, without TLS, and sends half of its
messages for the server there if the other end calls itself the server. And the server's processes do what any member
asks as if they had asked each other: end a job, change its log, stop.

FLARE loads ``ConnectionGuard`` from local/resources.json into the server's processes; at a site the message gate does
the same.
"""

from collections.abc import Callable
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.f3.cellnet.defs import CellChannel, MessageHeaderKey, MessagePropKey
from nvflare.fuel.f3.cellnet.defs import ReturnCode as CellReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.utils import make_reply as make_cell_reply
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.private.fed.server.server_commands import ServerCommands

MARK = "med_duallora_connections"
NETWORK_AGENT = "_net_manager"
"""FLARE's channel that stops cells, changes their settings and reports on the process."""
CLOSED_CHANNELS = frozenset({NETWORK_AGENT, CellChannel.SERVER_PARENT_LISTENER})
"""Of the server's own processes."""


class ConnectionGuard(FLComponent):
    """Lets the server believe a message's origin only over that member's own connection.

    Raises:
        UnsafeComponentError: it cannot be set; FLARE then does not start the server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._refused = 0

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Set the guard as soon as this process has a cell."""
        core = getattr(getattr(fl_ctx.get_engine(), "cell", None), "core_cell", None)
        if core is None:
            if event_type == EventType.SYSTEM_BOOTSTRAP:
                raise UnsafeComponentError("the guard of connections could not be set")
            return
        if not hasattr(core, MARK):
            close_invitations(core, self._count)
            if core.get_fqcn() == FQCN.ROOT_SERVER:  # whatever a job's process gets passed this one
                core.add_incoming_filter("*", "*", self.incoming)

    def incoming(self, message: CellMessage) -> CellMessage | None:
        """Stop a message whose origin does not fit its connection, and a member's command."""
        if not speaks_for_itself(message):
            self._count("its origin does not fit the connection that it came over")
        elif commands_the_server(message):
            self._count("a member commands the server")
        else:
            return None
        return make_cell_reply(CellReturnCode.UNAUTHENTICATED, "refused by the server")

    def _count(self, reason: str) -> None:
        """Write of a refusal in the log, at the first, second, fourth, eighth, ... one."""
        self._refused += 1
        if not self._refused & (self._refused - 1):
            self.logger.warning(f"a message was refused: {reason} (number {self._refused})")


def speaks_for_itself(message: CellMessage) -> bool:
    """Return whether a message comes from the member, or a process of it, whose connection it came over."""
    neighbour = _family(getattr(message.get_prop(MessagePropKey.ENDPOINT), "name", ""))
    return bool(neighbour) and _family(message.get_header(MessageHeaderKey.ORIGIN)) == neighbour


def commands_the_server(message: CellMessage) -> bool:
    """Return whether a member asks the server, or its process of a job, for what only these ask of each other."""
    header = message.get_header
    if _family(header(MessageHeaderKey.ORIGIN)) == FQCN.ROOT_SERVER:
        return False
    to_server = _family(header(MessageHeaderKey.DESTINATION)) == FQCN.ROOT_SERVER
    # FLARE delivers by the first name unless it really is a stream, and the sender writes both
    names = (
        (header(MessageHeaderKey.CHANNEL), header(MessageHeaderKey.TOPIC)),
        (header(StreamHeaderKey.CHANNEL), header(StreamHeaderKey.TOPIC)),
    )
    return to_server and any(_is_command(*name) for name in names)


def _is_command(channel: object, topic: object) -> bool:
    if channel == CellChannel.SERVER_COMMAND:
        return topic not in ServerCommands.client_request_commands_names
    return channel in CLOSED_CHANNELS


def _family(cell: object) -> str:
    return str(cell or "").partition(".")[0]


def close_invitations(core: Any, tell: Callable[[str], None]) -> None:
    """Let a process connect to no address that a message names; FLARE's own connections stand in the kit.

    Args:
        core: FLARE's cell of this process.
        tell: takes the reason of a refusal.

    Raises:
        UnsafeComponentError: this version of FLARE connects in another way.
    """
    if not callable(getattr(core, "_add_adhoc_connector", None)):
        raise UnsafeComponentError("how this nvflare connects to an address in a message is not known")

    def refused(to_cell: str, url: str) -> None:  # noqa: ARG001  FLARE's signature
        tell("it names an address to connect to")

    core._add_adhoc_connector = refused
    setattr(core, MARK, True)
