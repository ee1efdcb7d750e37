"""A site's process for tests: FLARE's executor with our learner."""

from typing import Any

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.executors.learner_executor import LearnerExecutor
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.lineage import Lineage
from med_duallora.flare.site.learner import DualLoRALearner
from med_duallora.flare.wire.payload import set_adapter_kind, set_lineage
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine


class Site:
    """A site's process: FLARE's executor with our learner, as the client configuration sets it up."""

    def __init__(self, engine: Engine, job: JobConfig) -> None:
        self.engine = engine
        self.job = job
        self.learner = DualLoRALearner()
        self.executor = LearnerExecutor(learner_id="learner")
        engine.components["learner"] = self.learner
        self.signal = Signal()
        self.lineage = Lineage.begin()
        self.kind = "last"

    def ask(self, task: str, data: Shareable | None = None, round_index: Any = 0, **props: Any) -> Shareable:
        shareable = data or DXO(DataKind.WEIGHTS, data=initial_global_state(self.job)).to_shareable()
        set_lineage(shareable, self.lineage)
        set_adapter_kind(shareable, self.kind)
        shareable.set_header(AppConstants.CURRENT_ROUND, round_index)
        return self.executor.execute(task, shareable, self.context(**props), self.signal)

    def context(self, **props: Any) -> FLContext:
        return self.engine.context("ge", **props)

    def statistics(self) -> dict[str, Any]:
        collector = GroupInfoCollector()
        fl_ctx = self.context(**{InfoCollector.CTX_KEY_STATS_COLLECTOR: collector})
        self.learner.handle_event(InfoCollector.EVENT_TYPE_GET_STATS, fl_ctx)
        return dict(collector.info["med_duallora"])
