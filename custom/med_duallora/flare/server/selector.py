"""Which global adapter was the best so far: FLARE's selector, listening to accepted contributions only."""

from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.widgets.intime_model_selector import IntimeModelSelector


class AdapterSelector(IntimeModelSelector):
    """Counts a site's validation score once the aggregator has taken its contribution.

    FLARE's own counts it before: a refused contribution (a second one, one under another name, one with a score of
    1e300) would decide which adapter is kept as the best.

    Args:
        key_metric: name of the score in the contribution's initial metrics; higher is better.
    """

    def __init__(self, key_metric: str) -> None:
        super().__init__(key_metric=key_metric)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Count an accepted contribution's score; everything else is FLARE's."""
        if event_type == AppEventType.BEFORE_CONTRIBUTION_ACCEPT:
            return
        if event_type != AppEventType.AFTER_CONTRIBUTION_ACCEPT:
            super().handle_event(event_type, fl_ctx)
        elif fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED) is True:
            self._before_accept(fl_ctx)
