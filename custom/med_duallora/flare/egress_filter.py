"""The filter through which every task result of a site passes. Fail-closed."""

from nvflare.apis.filter import Filter
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

from med_duallora.egress import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.job import job_of
from med_duallora.flare.payload import metrics_reply, read_metrics_reply, read_train_reply

FILTERED_TASKS = (AppConstants.TASK_TRAIN, AppConstants.TASK_VALIDATION, AppConstants.TASK_SUBMIT_MODEL)
"""Tasks the filter is configured for. A job's filter for "*" never runs, so they are listed by name."""

RETURN_CODES = frozenset(value for name, value in vars(ReturnCode).items() if name.isupper())


class EgressFilter(Filter):
    """Builds a new reply from the egress contract; whatever else the old one held stays behind.

    It subclasses ``Filter`` because FLARE's ``DXOFilter`` lets error replies, foreign content and empty objects
    pass. An error reply leaves as its return code alone, without text. Anything outside the contract raises
    EgressViolation, which FLARE turns into an empty TASK_RESULT_FILTER_ERROR reply.
    """

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the only reply that may leave; raises EgressViolation where there is none."""
        return rebuilt(fl_ctx.get_prop(FLContextKey.TASK_NAME), shareable, job_of(fl_ctx).contract)


def rebuilt(task: object, reply: Shareable, contract: EgressContract) -> Shareable:
    """Return a fresh reply to ``task`` that holds what the contract allows of ``reply``.

    Raises:
        EgressViolation: the reply holds something else, or the task may not be answered with data.
    """
    if type(reply) is not Shareable:
        raise EgressViolation(f"the payload is a {type(reply).__name__}, expected a plain Shareable")
    code = reply.get_return_code()
    if code != ReturnCode.OK:
        return make_reply(code if type(code) is str and code in RETURN_CODES else ReturnCode.ERROR)
    if task == AppConstants.TASK_TRAIN:
        return read_train_reply(contract, reply).to_shareable()
    if task == AppConstants.TASK_VALIDATION:
        return metrics_reply(read_metrics_reply(contract, reply))
    raise EgressViolation("this task may not be answered with data")
