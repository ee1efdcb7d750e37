"""The server's TensorBoard: one run per site and one for the server itself, which also holds the configuration."""

from nvflare.apis.fl_constant import EventScope, FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.utils.file_utils import resolve_path_under_root
from nvflare.app_opt.tracking.tb.tb_event_writer import TensorBoardEventWriter
from nvflare.app_opt.tracking.tb.tb_receiver import TBAnalyticsReceiver

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.server.directory import server_directory
from med_duallora.flare.wire.job import job_of
from med_duallora.flare.wire.payload import read_scalar
from med_duallora.flare.wire.tracking import FEDERATION_EVENT, LOCAL_EVENT
from med_duallora.measures import MEASURES
from med_duallora.server.artifact import versions
from med_duallora.server.monitoring import configuration_text
from med_duallora.server.rundir import TENSORBOARD_FOLDER

SERVER_RUN = "server"


class TensorBoardRuns(TBAnalyticsReceiver):
    """Draws the agreed metrics of the sites and the server's own numbers under readable tags.

    FLARE's receiver writes whatever a site sends, under whatever name. Here a site's number must be one of the
    contract's, in its range; anything else is dropped (the aggregator says so in the log), and so is a number of any
    origin that the table of measures gives no tag.
    """

    def __init__(self) -> None:
        super().__init__(events=[LOCAL_EVENT, FEDERATION_EVENT])

    def initialize(self, fl_ctx: FLContext) -> None:
        """Open the server's run and write the configuration into it."""
        self.root_log_dir = str(server_directory(fl_ctx) / TENSORBOARD_FOLDER)
        job = job_of(fl_ctx)
        computed_by = ", ".join(f"{name} {version}" for name, version in versions().items())
        text = configuration_text(job.settings, job.contract, job_id=fl_ctx.get_job_id(), versions=computed_by)
        writer = self._writer(SERVER_RUN)
        writer.add_text("configuration", text, 0)
        writer.flush()

    def save(self, fl_ctx: FLContext, shareable: Shareable, record_origin: str) -> None:
        """Write one scalar into the run of its origin."""
        try:
            name, value, step = read_scalar(shareable)
            if fl_ctx.get_prop(FLContextKey.EVENT_SCOPE) == EventScope.FEDERATION:
                _check(job_of(fl_ctx).contract, record_origin, name, value, step)
            else:
                record_origin = SERVER_RUN
        except EgressViolation:
            return
        measure = MEASURES.get(str(name))
        if measure is None or not measure.tag:
            return
        writer = self._writer(record_origin)
        writer.add_scalar(measure.tag, value, step)
        writer.flush()

    def _writer(self, run: str) -> TensorBoardEventWriter:
        if run not in self.writers_table:
            folder = resolve_path_under_root(self.root_log_dir, run, "run")
            self.writers_table[run] = TensorBoardEventWriter(log_dir=folder)
        return self.writers_table[run]


def _check(contract: EgressContract, site: str, name: object, value: object, step: object) -> None:
    if type(name) is not str or site == SERVER_RUN:
        raise EgressViolation("a scalar without a name, or of a site that calls itself the server")
    contract.check_metrics({name: value})
    contract.check_round(step)
