"""The workflow of the training: FLARE's own, among the sites that train."""

from typing import Any

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.bcast_manager import _KEY_MIN_RESPS
from nvflare.apis.shareable import Shareable
from nvflare.app_common.utils.error_handling_utils import should_ignore_result_error
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather

from med_duallora.flare.wire.payload import evaluates_only


class TrainingRounds(ScatterAndGather):
    """Counts the answers of sites that train, and asks no others from the second round on.

    A site that only evaluates says so when it gets its first train task. FLARE would count that as one of the answers
    that a round needs, and would go on without a site that is still training.

    It has the arguments of ``ScatterAndGather``; ``min_clients`` is a number of sites that train.
    """

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Begin with no site known to evaluate only."""
        self._evaluating: set[str] = set()
        super().start_controller(fl_ctx)

    def broadcast_and_wait(self, task: Task, fl_ctx: FLContext, **how: Any) -> None:
        """Send a train task to the sites that are not known to evaluate only."""
        if self._evaluating:
            names = [client.name for client in self._engine.get_clients() if client.name not in self._evaluating]
            self._current_num_targets = len(names)
            if len(names) < self._min_clients:
                self._end(len(names), fl_ctx)
                return
            how["targets"] = names
        super().broadcast_and_wait(task=task, fl_ctx=fl_ctx, **how)

    def _process_train_result(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        if evaluates_only(client_task.result):
            # FLARE counts this answer when the callback has ended; the round still needs as many others
            client_task.task.props[_KEY_MIN_RESPS] += 1
        super()._process_train_result(client_task, fl_ctx)

    def _accept_train_result(
        self, client_name: str, result: Shareable, fl_ctx: FLContext, is_unknown_task: bool = False
    ) -> bool:
        if not evaluates_only(result):
            return bool(super()._accept_train_result(client_name, result, fl_ctx, is_unknown_task))
        self._evaluating.add(client_name)
        self.log_info(fl_ctx, f"{client_name} evaluates only; the rounds go on without it")
        # what is not a fault counts like one here: are there still enough sites that train?
        enough = should_ignore_result_error(
            None, client_name, self._current_failed_clients, self._current_num_targets, self._min_clients
        )
        if not (enough or is_unknown_task):
            self._end(self._current_num_targets - len(self._current_failed_clients), fl_ctx)
        return False

    def _end(self, n_left: int, fl_ctx: FLContext) -> None:
        sites = ", ".join(sorted(self._evaluating))
        reason = f"workflow.min_sites is {self._min_clients}, but {n_left} are left of the sites that train"
        self.system_panic(f"{reason}; evaluating only: {sites}", fl_ctx)
