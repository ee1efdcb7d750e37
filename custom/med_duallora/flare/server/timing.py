"""The server's clock: where the time of every round goes."""

import time
from collections.abc import Mapping
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from med_duallora.flare.server.directory import server_directory
from med_duallora.server.rundir import round_record
from med_duallora.server.timing import RoundClock, add_times


class RoundTimes(FLComponent):
    """Writes ``round_times.jsonl``, a line per round, see ``RoundClock.times``."""

    def __init__(self) -> None:
        super().__init__()
        self._clock: RoundClock | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Note the moments of a round; FLARE calls this from several threads, each for another site."""
        now, clock = time.monotonic(), self._clock
        if event_type == AppEventType.ROUND_STARTED:
            self._clock = RoundClock(int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)), now)
        elif clock is None or event_type not in (*MOMENTS, AppEventType.ROUND_DONE):
            return
        elif event_type == AppEventType.ROUND_DONE:
            self._clock = None
            directory = server_directory(fl_ctx)
            add_times(directory, clock.times(now, _computing(round_record(directory, clock.round_index))))
        elif fl_ctx.get_prop(FLContextKey.TASK_NAME) == AppConstants.TASK_TRAIN:
            site = fl_ctx.get_peer_context().get_identity_name()
            getattr(clock, MOMENTS[event_type])[site] = now


MOMENTS = {EventType.AFTER_TASK_DATA_FILTER: "given", EventType.BEFORE_PROCESS_SUBMISSION: "received"}
"""FLARE's events -> what they are of a site's part in a round."""


def _computing(record: Mapping[str, Any]) -> dict[str, float]:
    sites = record.get("sites", {}).items()
    return {site: float(found["metrics"]["seconds"]) for site, found in sites if "seconds" in found["metrics"]}
