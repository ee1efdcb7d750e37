"""Who sent a result: the server's own word for it, not the sender's."""

from nvflare.apis.client import Client
from nvflare.apis.fl_constant import ServerCommandKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import ReservedHeaderKey, Shareable

from med_duallora.errors import EgressViolation


def sender_of(result: Shareable) -> str:
    """Return the name of the site whose token came with a result; empty where the server noted none.

    The server puts it into a header of every result, over whatever the site had put there. The peer context, in
    contrast, is written by the site itself, and with it one site could speak for another.
    """
    headers = result.get(ReservedHeaderKey.HEADERS)
    client = headers.get(ServerCommandKey.FL_CLIENT) if isinstance(headers, dict) else None
    return str(client.name) if isinstance(client, Client) else ""


def checked_sender(result: Shareable, fl_ctx: FLContext) -> str:
    """Return the name of the site that sent a result.

    Raises:
        EgressViolation: the server does not know who sent it, or the sender gave another name than its own.
    """
    sender, claimed = sender_of(result), fl_ctx.get_peer_context().get_identity_name()
    if not sender:
        raise EgressViolation("it is not known which site sent it")
    if claimed != sender:
        raise EgressViolation(f"it was sent under the name {str(claimed)[:64]!r}")
    return sender
