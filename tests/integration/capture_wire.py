"""Keeps every message that reaches the server's job process, as it comes off the wire; travels in the test's job."""

import itertools
import json
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext


class WireCapture(FLComponent):
    """A component of the server that changes nothing.

    Args:
        folder: gets two files a message: its headers as JSON, and its payload before FLARE decodes it.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self._numbers = itertools.count()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type == EventType.START_RUN:
            fl_ctx.get_engine().get_cell().core_cell.add_incoming_filter("*", "*", self._keep)

    def _keep(self, message: Any) -> None:
        stem = Path(self.folder, f"{next(self._numbers):06d}")
        stem.with_suffix(".payload").write_bytes(message.payload or b"")
        stem.with_suffix(".json").write_text(json.dumps(message.headers, default=str))
