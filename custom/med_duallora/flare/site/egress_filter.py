"""The filter through which every task result of a site passes. Fail-closed."""

from nvflare.apis.filter import Filter, FilterContextKey, FilterSource
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from med_duallora.errors import EgressViolation
from med_duallora.flare.site.boundary import boundary_of, note_blocked, reason_of
from med_duallora.flare.wire.payload import rebuilt

__all__ = ["FILTERED_TASKS", "EgressFilter", "rebuilt"]

FILTERED_TASKS = (AppConstants.TASK_TRAIN, AppConstants.TASK_VALIDATION, AppConstants.TASK_SUBMIT_MODEL)
"""Tasks the filter is configured for in a job. A job's filter for "*" never runs, so they are listed by name."""


class EgressFilter(Filter):
    """Builds a new reply from the egress contract; whatever else the old one held stays behind.

    It subclasses ``Filter`` because FLARE's ``DXOFilter`` lets error replies, foreign content and empty objects
    pass. An error reply leaves as its return code alone, without text. Anything outside the contract raises
    EgressViolation, which FLARE turns into an empty TASK_RESULT_FILTER_ERROR reply.

    A job names it for its own results. Named in a scope of the site's privacy.json it sees all results of all jobs, and
    demands in addition that the site's configuration and model are there to compare with.
    """

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the only reply that may leave; raises EgressViolation where there is none."""
        of_site = self.get_prop(FilterContextKey.SOURCE) == FilterSource.SITE
        task = fl_ctx.get_prop(FLContextKey.TASK_NAME)
        try:
            return boundary_of(fl_ctx).release(task, shareable, strict=of_site).reply
        except Exception as error:  # an unknown failure must not become a way out, nor its text
            reason = reason_of(error)
            if of_site:
                note_blocked(fl_ctx, task, reason, shareable)
            raise EgressViolation(reason) from None
