"""The server's application directory of a job, and its record of what arrived."""

from pathlib import Path

from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_entry import Entry
from med_duallora.errors import LedgerError
from med_duallora.server.rundir import RECEIVED_FILE


def server_directory(fl_ctx: FLContext) -> Path:
    """Return the server's application directory of the running job, which FLARE archives and offers for download."""
    workspace = fl_ctx.get_engine().get_workspace()
    return Path(workspace.get_app_dir(fl_ctx.get_job_id()))


def keep_receipt(component: FLComponent, entry: Entry, fl_ctx: FLContext) -> None:
    """Write a line of the server's record; a record that cannot be written is said, and stops no round."""
    try:
        Ledger(server_directory(fl_ctx) / RECEIVED_FILE).append(entry)
    except LedgerError as error:
        component.log_error(fl_ctx, f"the record of what was received has a gap: {error}")
