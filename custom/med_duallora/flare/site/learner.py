"""A site's learner: answers FLARE's tasks with the core's site runtime."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.learner_spec import Learner
from nvflare.app_common.app_constant import AppConstants, ValidateType
from nvflare.fuel.utils import fobs
from nvflare.widgets.info_collector import InfoCollector

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import CheckpointError, ConfigError, EgressViolation, StateError, TrainingAborted, UnfitError
from med_duallora.flare.wire.job import job_of
from med_duallora.flare.wire.payload import (
    EVALUATES_ONLY,
    TrainReply,
    metrics_reply,
    task_adapter_kind,
    task_lineage,
    task_tensors,
)
from med_duallora.flare.wire.tracking import publish_statistics, stream_from_site
from med_duallora.settings.config import SiteConfig
from med_duallora.site.evaluating import EvaluatingSite, site_at_work
from med_duallora.site.fitness import check
from med_duallora.site.places import without_paths
from med_duallora.site.runtime import SiteRuntime
from med_duallora.support.devices import use_threads
from med_duallora.support.usage import peak_memory_mb

State = dict[str, np.ndarray]
Work = Callable[[SiteRuntime, State, int | str], Shareable]
"""Takes the runtime, the global state of the task, and what is asked: a round, or which adapter is evaluated."""

QUOTABLE = (ConfigError, CheckpointError, EgressViolation, StateError)
"""Errors whose messages speak of settings, tensors, limits and states; all others may name a subject."""
HINT = "set this site's log level to DEBUG"


def loggable(error: BaseException) -> str:
    """Return what a site's log may say about an error: its class, and its message where no subject can be in it.

    Paths are left out, because logs can be read and streamed from elsewhere. The whole message is logged at
    level DEBUG.
    """
    name = type(error).__name__
    if isinstance(error, UnfitError):
        return f"{name}: {error.in_log} ({HINT} to see it whole)"
    if not isinstance(error, QUOTABLE):
        return f"{name} ({HINT} to see the message)"
    whole = str(error)
    text = without_paths(whole)
    return f"{name}: {text}" + (f" ({HINT} to see it whole)" if text != whole else "")


class DualLoRALearner(Learner):
    """Trains and evaluates both adapters at a site; only the global one is in its replies.

    A failed initialisation is remembered and every task is answered with an error reply: FLARE's executor calls
    an uninitialised learner otherwise. No exception leaves this class, because its text would reach FLARE's logs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._runtime: SiteRuntime | None = None
        self._statistics: dict[str, float | str] = {"phase": "starting"}
        self._round_began = 0.0

    @property
    def runtime(self) -> SiteRuntime | None:
        """Return the site at work; None before a successful initialisation."""
        return self._runtime

    def initialize(self, parts: dict[str, Any], fl_ctx: FLContext) -> None:  # noqa: ARG002  FLARE's signature
        """Load the site's configuration, cohort, backbone and state."""
        site = fl_ctx.get_identity_name()
        try:
            place = SiteConfig.place(site, fl_ctx.get_prop(FLContextKey.SCOPE_PROPERTIES))
            config = SiteConfig.from_file(place)
            job = job_of(fl_ctx).settings
            check(config, job, source=place)
            use_threads(config.n_threads)
            self._runtime = site_at_work(site, job, config)
        except Exception as error:
            self._report("initialisation", error, fl_ctx)
            self._now(phase="not initialised")
            return
        self._now(phase="waiting", device=self._runtime.model.source.device.type)

    def validate(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Score the incoming global adapter: on the validation split before training, on the test split after."""

        def scores(runtime: SiteRuntime, state: State, asked: int | str) -> Shareable:
            if isinstance(asked, str):
                self._now(phase="evaluation")
                return metrics_reply(runtime.evaluate(state, _stopped(abort_signal), kind=asked))
            found = runtime.validate(state, asked, _stopped(abort_signal))
            self._now(round=asked, **found)
            stream_from_site(self, runtime.contract, found, asked, fl_ctx)
            return metrics_reply(found)

        return self._answer("validation", scores, data, fl_ctx)

    def train(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Train both adapters for one round and reply with the global one."""

        def trained(runtime: SiteRuntime, state: State, asked: int | str) -> Shareable:
            index = runtime.contract.check_round(asked)
            self._now(round=index)
            self._round_began = time.monotonic()
            update = runtime.train_round(state, index, _stopped(abort_signal), self._on_step)
            self._now(**runtime.contract.check_metrics(update.metrics))
            stream_from_site(self, runtime.contract, update.metrics, index, fl_ctx)
            reply = TrainReply(update.tensors, update.weight, index, update.metrics)
            n_bytes = len(fobs.dumps(reply.to_shareable(pack=True)))
            self._now(**runtime.allowed_metrics({"payload_bytes": n_bytes}))
            return reply.to_shareable()

        return self._answer("training", trained, data, fl_ctx)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Answer the console's show_stats."""
        if event_type == InfoCollector.EVENT_TYPE_GET_STATS:
            publish_statistics("med_duallora", self._statistics, fl_ctx)

    def _on_step(self, progress: dict[str, float]) -> None:
        """Keep how far the running round is; the console asks for it while training goes on.

        The loss of a step is not told: it speaks of the few subjects of a batch, and of a round that is not answered.
        """
        if self._runtime is None:
            return
        found = {
            "n_steps": progress["step"],
            "steps_per_second": progress["step"] / max(time.monotonic() - self._round_began, 1e-9),
            "peak_memory_mb": peak_memory_mb(self._runtime.model.source.device),
        }
        self._now(**self._runtime.allowed_metrics(found))

    def _now(self, **values: float | str) -> None:
        # a new dict each time: the console reads from another thread
        self._statistics = {**self._statistics, **values}

    def _answer(self, what: str, work: Work, data: Shareable, fl_ctx: FLContext) -> Shareable:
        if self._runtime is None:
            self.log_error(fl_ctx, f"{what} refused: this site is not initialised, see the error above")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        try:
            state, asked = _read_task(self._runtime.contract, data)
            self._runtime.model.join(task_lineage(data))
        except EgressViolation as violation:
            self._report(f"reading the task for {what}", violation, fl_ctx)
            return make_reply(ReturnCode.BAD_TASK_DATA)
        if isinstance(self._runtime, EvaluatingSite) and not isinstance(asked, str):
            self.log_info(fl_ctx, f"{what} left to others: this site evaluates only")
            return make_reply(EVALUATES_ONLY)
        self._now(phase=what)
        try:
            return work(self._runtime, state, asked)
        except TrainingAborted:
            self.log_info(fl_ctx, f"{what} stopped because the job was aborted; the last saved state is intact")
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            self._report(what, error, fl_ctx)
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        finally:
            self._now(phase="waiting")

    def _report(self, what: str, error: Exception, fl_ctx: FLContext) -> None:
        self.log_error(fl_ctx, f"{what} failed: {loggable(error)}")
        self.log_debug(fl_ctx, f"{what} failed: {error}")


def _read_task(contract: EgressContract, data: Shareable) -> tuple[State, int | str]:
    """Return the global state a task brings, and its round or, after the last round, which adapter it is."""
    state = task_tensors(contract, data)
    if data.get_header(AppConstants.VALIDATE_TYPE) == ValidateType.MODEL_VALIDATE:
        return state, task_adapter_kind(data)
    return state, contract.check_round(data.get_header(AppConstants.CURRENT_ROUND))


def _stopped(abort_signal: Signal) -> Callable[[], bool]:
    return lambda: bool(abort_signal.triggered)
