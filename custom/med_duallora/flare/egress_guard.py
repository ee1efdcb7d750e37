"""A site's last line: acts on what leaves after all filters of a job, and on what no filter sees.

FLARE loads it from ``components`` of the site's local/privacy.json into every job process of the site. There it hears
every event after the job's own components and before FLARE's fed event runner and info collector. A handler cannot stop
anything by raising, because FLARE swallows its exceptions; so it changes what would leave, in place.
"""

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from nvflare.apis.analytix import AnalyticsData, AnalyticsDataType
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import (
    EventScope,
    FedEventHeader,
    FLContextKey,
    LogMessageTag,
    ReservedKey,
    ReservedTopic,
    ReturnCode,
)
from nvflare.apis.fl_context import MASK_PRIVATE, FLContext, M, V
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.errors import EgressViolation, MedDualLoRAError
from med_duallora.flare.boundary import boundary_of
from med_duallora.flare.payload import read_scalar
from med_duallora.flare.receipts import event_entry
from med_duallora.flare.tracking import FEDERATION_EVENT

OUR_VOICES = ("DualLoRALearner", "EgressFilter", "EgressGuard")
"""Components whose log texts name settings, tensors and limits only; the console may read these."""
WITHHELD = "an entry in this site's own log; its text stays at the site"
STATISTICS_GROUP = "med_duallora"
LOG_EVENTS = (
    EventType.CRITICAL_LOG_AVAILABLE,
    EventType.ERROR_LOG_AVAILABLE,
    EventType.EXCEPTION_LOG_AVAILABLE,
    EventType.WARNING_LOG_AVAILABLE,
    EventType.INFO_LOG_AVAILABLE,
    EventType.DEBUG_LOG_AVAILABLE,
)
SENDING_EVENTS = (EventType.AFTER_TASK_EXECUTION, EventType.AFTER_TASK_RESULT_FILTER, EventType.BEFORE_SEND_TASK_RESULT)
PUBLIC_PROPERTIES = frozenset(
    {
        ReservedKey.RUN_NUM,
        ReservedKey.IDENTITY_NAME,
        ReservedKey.FQSN,
        ReservedKey.IS_LEAF,
        FLContextKey.CLIENT_NAME,
        FLContextKey.CLIENT_TYPE,
        FLContextKey.CURRENT_RUN,
        FLContextKey.CURRENT_JOB_ID,
    }
)
"""Properties of a context that FLARE itself makes public; they name the site and the job."""
MAX_PROPERTY_LENGTH = 128


class EgressGuard(FLComponent):
    """Clears what violates the contract, drops fed events that are no contract metrics, and keeps the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, int]] = set()
        self._lock = Lock()
        self._is_running = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Look at everything that could leave with this event; never raises."""
        if not self._is_running:
            refuse_tasks_of_peers(fl_ctx)
            self._is_running = event_type == EventType.START_RUN
        if event_type in SENDING_EVENTS or self._is_outgoing(fl_ctx):
            self._hide_public_properties(fl_ctx)
        if event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._guarded(self._check_result, self._drop_result, fl_ctx)
        elif self._is_outgoing(fl_ctx):
            self._guarded(lambda context: self._check_fed_event(event_type, context), self._drop_fed_event, fl_ctx)
        elif event_type == InfoCollector.EVENT_TYPE_GET_STATS:
            self._guarded(self._check_statistics, self._drop_statistics, fl_ctx)
        elif event_type in LOG_EVENTS:
            self._guarded(self._check_log_text, self._drop_log_text, fl_ctx)

    def _guarded(
        self, check: Callable[[FLContext], None], drop: Callable[[FLContext, str], None], fl_ctx: FLContext
    ) -> None:
        """Run a check; whatever goes wrong in it, nothing leaves."""
        try:
            check(fl_ctx)
        except MedDualLoRAError as violation:
            drop(fl_ctx, str(violation))
        except Exception as error:  # an unknown failure must not become a way out
            drop(fl_ctx, f"the check failed with {type(error).__name__}")

    def _check_result(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        if not self._is_running:
            raise EgressViolation("the task came before the run began, when any site could have sent it")
        boundary = boundary_of(fl_ctx)
        fresh, entry = boundary.release(fl_ctx.get_prop(FLContextKey.TASK_NAME), result, strict=True)
        boundary.record(entry)
        replace_content(result, fresh)

    def _drop_result(self, fl_ctx: FLContext, reason: str) -> None:
        result, task = fl_ctx.get_prop(FLContextKey.TASK_RESULT), fl_ctx.get_prop(FLContextKey.TASK_NAME)
        self._tell(fl_ctx, f"a result of task {str(task)[:64]!r} was cleared: {reason}")
        self._blocked(fl_ctx, str(task), reason, result, "tensors")
        replace_content(result, make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR))

    @staticmethod
    def _is_outgoing(fl_ctx: FLContext) -> bool:
        if fl_ctx.get_prop(FLContextKey.EVENT_SCOPE) != EventScope.FEDERATION:
            return False
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        return isinstance(data, Shareable) and _direction(data) == "out"

    def _check_fed_event(self, event_type: str, fl_ctx: FLContext) -> None:
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        if event_type != FEDERATION_EVENT:
            raise EgressViolation("only the agreed metrics may leave as fed events")
        boundary = boundary_of(fl_ctx)
        tag, value, step = boundary.check_scalar(*read_scalar(data))
        with self._lock:
            if (tag, step) in self._seen:
                raise EgressViolation(f"metric {tag} was already sent for round {step}")
            self._seen.add((tag, step))
        boundary.record(event_entry(boundary.job_id, boundary.site, tag, value, step=step))
        fresh = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=step)
        replace_content(data, fresh.to_shareable())

    def _drop_fed_event(self, fl_ctx: FLContext, reason: str) -> None:
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        self._tell(fl_ctx, f"a fed event was dropped: {reason}")
        self._blocked(fl_ctx, "fed event", reason, None, "event")
        replace_content(data, Shareable())
        data.set_header(FedEventHeader.DIRECTION, "blocked")

    def _check_statistics(self, fl_ctx: FLContext) -> None:
        collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
        if not isinstance(collector, GroupInfoCollector):
            return
        found = collector.info.get(STATISTICS_GROUP)
        collector.info = {}
        if isinstance(found, dict):
            collector.info[STATISTICS_GROUP] = boundary_of(fl_ctx).allowed_statistics(found)

    def _drop_statistics(self, fl_ctx: FLContext, reason: str) -> None:
        self._tell(fl_ctx, f"an answer to show_stats was emptied: {reason}")
        collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
        if isinstance(collector, GroupInfoCollector):
            collector.info = {}

    def _check_log_text(self, fl_ctx: FLContext) -> None:
        if fl_ctx.get_prop(FLContextKey.EVENT_ORIGIN) not in OUR_VOICES:
            self._drop_log_text(fl_ctx, "")

    def _drop_log_text(self, fl_ctx: FLContext, reason: str) -> None:  # noqa: ARG002  same form as its siblings
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        if isinstance(data, Shareable):
            text = AnalyticsData(LogMessageTag.ERROR, WITHHELD, AnalyticsDataType.TEXT)
            replace_content(data, text.to_dxo().to_shareable())

    def _hide_public_properties(self, fl_ctx: FLContext) -> None:
        """Take out of the public context what FLARE itself did not put there; it travels with every message."""
        for key in _foreign_properties(fl_ctx):
            self._tell(fl_ctx, "a public property of the context was hidden")
            fl_ctx.props[key] = {V: None, M: MASK_PRIVATE}
            manager = fl_ctx._get_ctx_manager()
            if manager is not None:
                manager.public_stickers.pop(key, None)

    def _blocked(self, fl_ctx: FLContext, task: str, reason: str, payload: object, kind: str) -> None:
        try:
            boundary_of(fl_ctx).record_blocked(task, reason, payload, kind)
        except Exception as error:
            self._tell(fl_ctx, f"the ledger has no line of it: {type(error).__name__}")

    def _tell(self, fl_ctx: FLContext, text: str) -> None:
        # fire_event would come back here
        self.log_error(fl_ctx, text, fire_event=False)


def refuse_tasks_of_peers(fl_ctx: FLContext) -> None:
    """Answer no task that comes as a message instead of being fetched from the server.

    FLARE 2.9 lets every member of the federation send such a task, takes its word for who it is, and returns the result
    to it: another site could ask for this site's adapter.
    """
    runner = getattr(fl_ctx.get_engine(), "aux_runner", None)
    topics = getattr(runner, "topic_table", None)
    if isinstance(topics, dict):
        topics[ReservedTopic.DO_TASK] = _no_task


def _no_task(topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:  # noqa: ARG001  FLARE's signature
    return make_reply(ReturnCode.TASK_UNSUPPORTED)


def _direction(data: Shareable) -> object:
    headers = dict.get(data, "__headers__")
    return headers.get(FedEventHeader.DIRECTION, "out") if isinstance(headers, dict) else "out"


def replace_content(target: Any, fresh: Shareable) -> None:
    """Make ``target`` hold what ``fresh`` holds, in place and without calling any method that it may override."""
    vars(target).clear()
    dict.clear(target)
    dict.update(target, fresh)
    if type(target) is not Shareable:
        target.__class__ = Shareable


def _foreign_properties(fl_ctx: FLContext) -> Iterable[str]:
    public = fl_ctx.get_all_public_props().items()
    return [key for key, value in public if key not in PUBLIC_PROPERTIES or not _is_plain(value)]


def _is_plain(value: object) -> bool:
    return type(value) in (bool, int, type(None)) or (type(value) is str and len(value) <= MAX_PROPERTY_LENGTH)
