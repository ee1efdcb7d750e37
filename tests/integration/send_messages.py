"""Sends the sites what no server should, from the server's process of a job; travels in the test's job."""

import json
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.f3.cellnet.defs import CellChannel
from nvflare.fuel.f3.cellnet.utils import new_cell_message
from nvflare.private.admin_defs import Message
from nvflare.private.defs import RequestHeader, TrainingTopic

PATIENCE_S = 60.0


class Sender(FLComponent):
    """A component of the server that commands the sites, and sends them events.

    Args:
        answers: JSON file that gets what each site said to the deletion of its kit's local folder.
        sites: their names.
    """

    def __init__(self, answers: str, sites: list[str]) -> None:
        super().__init__()
        self.answers = answers
        self.sites = sites
        self.n_rounds = 0

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        if event_type != AppEventType.ROUND_STARTED:
            return
        self.n_rounds += 1
        if self.n_rounds == 2:  # in the first round the processes of the sites are not all there yet
            self.command(fl_ctx)
            self.fire_fed_event(EventType.AFTER_TASK_RESULT_FILTER, Shareable(), fl_ctx)

    def command(self, fl_ctx: FLContext) -> None:
        cell = fl_ctx.get_engine().get_cell()
        found = {}
        for site in self.sites:
            message = Message(TrainingTopic.DELETE_RUN, "")
            message.set_header(RequestHeader.JOB_ID, "local")
            request = new_cell_message({}, message)
            reply = cell.send_request(CellChannel.CLIENT_MAIN, "admin", site, request, PATIENCE_S, optional=True)
            found[site] = str(getattr(reply.payload, "body", reply.payload))
            job = f"{site}.{fl_ctx.get_job_id()}"
            request = new_cell_message({}, {})
            cell.fire_and_forget(CellChannel.CLIENT_COMMAND, "show_errors", [job], request, optional=True)
        Path(self.answers).write_text(json.dumps(found))
