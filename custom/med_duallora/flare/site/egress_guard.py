"""A site's last line: acts on what leaves after all filters of a job, and on what no filter sees.

FLARE loads it from ``components`` of the site's local/privacy.json into every job process of the site. There it hears
every event after the job's own components and before FLARE's fed event runner and info collector. A handler cannot stop
anything by raising, because FLARE swallows its exceptions; so it changes what would leave, in place.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

from nvflare.apis.analytix import AnalyticsData, AnalyticsDataType
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import EventScope, FedEventHeader, FLContextKey, LogMessageTag, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.analytix_utils import create_analytic_dxo
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.boundary.ledger_entry import Entry
from med_duallora.errors import EgressViolation
from med_duallora.flare.site.boundary import NOTED, boundary_of, note_blocked, note_code, reason_of
from med_duallora.flare.site.message_gate import close_topics, guard_cell
from med_duallora.flare.site.public_context import framework_headers, hide_foreign_properties
from med_duallora.flare.wire.payload import read_scalar
from med_duallora.flare.wire.receipts import event_entry
from med_duallora.flare.wire.tracking import FEDERATION_EVENT

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


@dataclass(frozen=True)
class Checked:
    """A result between its check and the wire.

    Args:
        result: the object that FLARE will send.
        task_id: FLARE's id of the task that it answers.
        entry: the ledger's line of it; None where it was cleared.
    """

    result: Any
    task_id: object
    entry: Entry | None


class EgressGuard(FLComponent):
    """Clears what violates the contract, drops fed events that are not contract metrics, and keeps the ledger."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, int]] = set()
        self._lock = Lock()
        self._is_running = False
        self._checked: Checked | None = None
        self._answered: dict[int | None, str] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Look at everything that could leave with this event; never raises."""
        if self._is_incoming(fl_ctx):
            return  # somebody else's event: it says nothing of this site, whatever it is called
        if not self._is_running:
            close_topics(fl_ctx)
            guard_cell(fl_ctx)
            self._is_running = event_type == EventType.START_RUN
        # at every event: a property that a job makes public travels with the very next message
        self._guarded(self._hide_properties, self._tell, fl_ctx)
        if event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._guarded(self._check_result, self._drop_result, fl_ctx)
        elif event_type == EventType.BEFORE_SEND_TASK_RESULT:
            self._guarded(self._check_again, self._drop_again, fl_ctx)
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
        except Exception as error:  # an unknown failure must not become a way out
            drop(fl_ctx, reason_of(error))

    def _check_result(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        if not self._is_running:
            raise EgressViolation("the task came before the run began, when any site could have sent it")
        boundary = boundary_of(fl_ctx)
        released = boundary.release(fl_ctx.get_prop(FLContextKey.TASK_NAME), result, strict=True)
        self._check_once(released.entry, released.adapter)
        boundary.record(released.entry, released.numbers)
        replace_content(result, released.reply)
        self._checked = Checked(result, fl_ctx.get_prop(FLContextKey.TASK_ID), released.entry)

    def _check_once(self, entry: Entry, adapter: str) -> None:
        """Refuse a second answer to a round: a server could ask again and again, from adapters of its choice."""
        if entry.kind != "tensors":
            return
        if self._answered.setdefault(entry.round_index, adapter) != adapter:
            raise EgressViolation(f"round {entry.round_index} was already answered with another adapter")

    def _drop_result(self, fl_ctx: FLContext, reason: str) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        self._clear(result, reason, fl_ctx)
        self._checked = Checked(result, fl_ctx.get_prop(FLContextKey.TASK_ID), None)

    def _check_again(self, fl_ctx: FLContext) -> None:
        """Send what was checked: a handler that kept the result may have changed it, and its headers, since then."""
        checked = self._checked
        if checked is None or checked.task_id != fl_ctx.get_prop(FLContextKey.TASK_ID):
            if not fl_ctx.get_prop(NOTED):
                note_code(fl_ctx)
            return
        task, fresh = fl_ctx.get_prop(FLContextKey.TASK_NAME), make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR)
        headers = framework_headers(checked.result, task, checked.task_id)
        if checked.entry is not None:
            released = boundary_of(fl_ctx).release(task, checked.result, strict=True)
            if released.entry != checked.entry:
                raise EgressViolation("it was changed after the check")
            fresh = released.reply
        replace_content(checked.result, fresh)
        set_headers(checked.result, headers)
        self._checked = None

    def _drop_again(self, fl_ctx: FLContext, reason: str) -> None:
        checked, self._checked = self._checked, None
        if checked is not None:
            headers = framework_headers(checked.result, fl_ctx.get_prop(FLContextKey.TASK_NAME), checked.task_id)
            self._clear(checked.result, reason, fl_ctx)
            set_headers(checked.result, headers)

    def _clear(self, result: Any, reason: str, fl_ctx: FLContext) -> None:
        # cleared first: whatever fails after that, nothing leaves
        outline = dict.copy(result) if isinstance(result, dict) else None
        replace_content(result, make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR))
        task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
        self._tell(fl_ctx, f"a result was cleared: {reason}")
        note_blocked(fl_ctx, task, reason, outline)

    @staticmethod
    def _is_incoming(fl_ctx: FLContext) -> bool:
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        is_federal = fl_ctx.get_prop(FLContextKey.EVENT_SCOPE) == EventScope.FEDERATION
        return is_federal and isinstance(data, Shareable) and _direction(data) == "in"

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
        boundary.record(event_entry(boundary.job_id, boundary.site, tag, value, step=step), {tag: value})
        fresh = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=step)
        replace_content(data, fresh.to_shareable())

    def _drop_fed_event(self, fl_ctx: FLContext, reason: str) -> None:
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        replace_content(data, Shareable())
        data.set_header(FedEventHeader.DIRECTION, "blocked")
        self._tell(fl_ctx, f"a fed event was dropped: {reason}")
        note_blocked(fl_ctx, "fed event", reason, None, "event")

    def _check_statistics(self, fl_ctx: FLContext) -> None:
        collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
        if not isinstance(collector, GroupInfoCollector):
            return
        found = collector.info.get(STATISTICS_GROUP)
        collector.info = {}
        if isinstance(found, dict):
            collector.info[STATISTICS_GROUP] = boundary_of(fl_ctx).allowed_statistics(found)

    def _drop_statistics(self, fl_ctx: FLContext, reason: str) -> None:
        collector = fl_ctx.get_prop(InfoCollector.CTX_KEY_STATS_COLLECTOR)
        if isinstance(collector, GroupInfoCollector):
            collector.info = {}
        self._tell(fl_ctx, f"an answer to show_stats was emptied: {reason}")

    def _check_log_text(self, fl_ctx: FLContext) -> None:
        if fl_ctx.get_prop(FLContextKey.EVENT_ORIGIN) not in OUR_VOICES:
            self._drop_log_text(fl_ctx, "")

    def _drop_log_text(self, fl_ctx: FLContext, reason: str) -> None:  # noqa: ARG002  same form as its siblings
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        if isinstance(data, Shareable):
            text = AnalyticsData(LogMessageTag.ERROR, WITHHELD, AnalyticsDataType.TEXT)
            replace_content(data, text.to_dxo().to_shareable())

    def _hide_properties(self, fl_ctx: FLContext) -> None:
        if hide_foreign_properties(fl_ctx):
            self._tell(fl_ctx, "a public property of the context was hidden")

    def _tell(self, fl_ctx: FLContext, text: str) -> None:
        """Write a line of the site's log; names that a payload brought stand in the ledger only."""
        text = _QUOTED.sub("<name>", text)
        try:
            # fire_event would come back here
            self.log_error(fl_ctx, text, fire_event=False)
        except Exception:  # FLARE builds the line from the context, which a job can damage
            self.logger.error(text)


_QUOTED = re.compile(r"['\"].*['\"]", re.DOTALL)


def _direction(data: Shareable) -> object:
    headers = dict.get(data, "__headers__")
    return headers.get(FedEventHeader.DIRECTION, "out") if isinstance(headers, dict) else "out"


def set_headers(target: Shareable, headers: dict[str, Any]) -> None:
    """Set several headers."""
    for name, value in headers.items():
        target.set_header(name, value)


def replace_content(target: Any, fresh: Shareable) -> None:
    """Make ``target`` hold what ``fresh`` holds, in place and without calling any method that it may override."""
    vars(target).clear()
    dict.clear(target)
    dict.update(target, fresh)
    if type(target) is not Shareable:
        target.__class__ = Shareable
