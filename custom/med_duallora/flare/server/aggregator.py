"""The server's aggregator: contributions checked, kept and aggregated, and the record of every round."""

import time
from dataclasses import fields
from threading import Lock
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.model import ModelLearnableKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils import fobs
from nvflare.widgets.info_collector import InfoCollector

from med_duallora.adapter.methods import plan_of
from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, utc_now
from med_duallora.errors import AggregationError, EgressViolation
from med_duallora.flare.server.directory import keep_receipt, server_directory
from med_duallora.flare.server.sender import checked_sender, sender_of
from med_duallora.flare.wire.job import job_of
from med_duallora.flare.wire.payload import EVALUATES_ONLY, TrainReply, read_failure, read_scalar, read_train_reply
from med_duallora.flare.wire.receipts import event_entry, train_entry
from med_duallora.flare.wire.tracking import FEDERATION_EVENT, publish_statistics, write_at_server
from med_duallora.server.aggregation import AggregationResult
from med_duallora.server.monitoring import round_summary
from med_duallora.server.rundir import add_round
from med_duallora.server.screening import RoundRules, ScreenedResult, ScreenedRound
from med_duallora.settings.reading import built
from med_duallora.settings.screening import ScreeningConfig

DECIMALS = 6
"""Of the means that the console shows."""


class DualLoRAAggregator(Aggregator):
    """Takes contributions one by one, checks each against the contract again, and aggregates them by the job's rule.

    A refused contribution never spoils a round; a round with too few of them leaves the global adapter as it was.
    How much memory a round takes is the rule's to say (see ``adapter.aggregations``). What arrives is recorded in
    ``received.jsonl``, which ``ledger match`` compares with the sites' own ledgers.

    Args:
        norm_limit: see ``ScreeningConfig``.
        clip: likewise.
        max_change: likewise.
        weight_limit: likewise.
        max_weight: likewise.
        min_sites: see ``screening.RoundRules``.
        sites: names of the sites that may contribute; empty: every site that FLARE lets into the job.

    Raises:
        ConfigError: a limit is out of range.
    """

    def __init__(
        self,
        *,
        norm_limit: float = ScreeningConfig.norm_limit,
        clip: float = ScreeningConfig.clip,
        max_change: float = ScreeningConfig.max_change,
        weight_limit: float = ScreeningConfig.weight_limit,
        max_weight: float = ScreeningConfig.max_weight,
        min_sites: int = 1,
        sites: list[str] | None = None,
    ) -> None:
        super().__init__()
        # FLARE exports a job from attributes of these names
        self.norm_limit, self.clip, self.max_change = norm_limit, clip, max_change
        self.weight_limit, self.max_weight = weight_limit, max_weight
        self.min_sites, self.sites = min_sites, sites or []
        self._rules = built(RoundRules, {field.name: getattr(self, field.name) for field in fields(RoundRules)}, "")
        self._lock = Lock()
        self._round: ScreenedRound | None = None
        self._started = 0.0
        self._sites: dict[str, dict[str, Any]] = {}
        self._refused: list[dict[str, str]] = []
        self._n_refused_before = 0
        self._summary: dict[str, float] = {}
        self._best_round: int | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Open the round, note what comes back from sites that failed, and answer show_stats."""
        if event_type == AppEventType.ROUND_STARTED:
            self._open(fl_ctx)
        elif event_type == EventType.BEFORE_PROCESS_SUBMISSION:
            self._note_failure(fl_ctx)
        elif event_type == FEDERATION_EVENT:
            self._note_event(fl_ctx)
        elif event_type == AppEventType.GLOBAL_BEST_MODEL_AVAILABLE:
            # the sites scored what they were given: the result of the round before
            self._best_round = int(fl_ctx.get_prop(AppConstants.CURRENT_ROUND)) - 1
        elif event_type == InfoCollector.EVENT_TYPE_GET_STATS:
            publish_statistics("med_duallora", {**self._statistics(), **_plan(fl_ctx)}, fl_ctx)

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Take one site's contribution; False, with the reason in the log and in the round's record, if refused."""
        try:
            site = checked_sender(shareable, fl_ctx)
            reply = read_train_reply(job_of(fl_ctx).contract, shareable)
        except EgressViolation as violation:
            return self._refuse(sender_of(shareable), str(violation), fl_ctx)
        except Exception as error:  # an exception that got out would end the round for every site
            return self._refuse(sender_of(shareable), f"its check failed with {type(error).__name__}", fl_ctx)
        reason = ""
        with self._lock:
            try:
                self._add(site, reply)
                self._sites[site] = _site_record(reply, len(fobs.dumps(shareable)))
            except AggregationError as error:
                reason = str(error)
        entry = train_entry(fl_ctx.get_job_id(), site, reply, BLOCKED if reason else ALLOWED, reason)
        keep_receipt(self, entry, fl_ctx)
        return self._refuse(site, reason, fl_ctx) if reason else True

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Return the next global state and write the round's record."""
        previous = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
        with self._lock:
            screened = self._result(previous)
            self._refused += [{"site": site, "reason": reason} for site, reason in screened.refused.items()]
            result = screened.aggregation
            record = {**self._record(result, fl_ctx), "clipped": screened.clipped, "capped": screened.capped}
            self._summary = round_summary(record)
        for site, reason in screened.refused.items():
            self.log_error(fl_ctx, f"contribution of {site} left out: {reason}")
        for line in screened.limited():
            self.log_info(fl_ctx, line)
        if screened.remark:
            self.log_warning(fl_ctx, screened.remark)
        add_round(server_directory(fl_ctx), record)
        write_at_server(self, self._summary, int(record["round"]), fl_ctx)
        return DXO(DataKind.WEIGHTS, data=result.tensors).to_shareable()

    def _open(self, fl_ctx: FLContext) -> None:
        with self._lock:
            round_index = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
            job = job_of(fl_ctx)
            rule = plan_of(job.settings).aggregation
            self._round = ScreenedRound(job.contract, round_index, self._rules, rule, job.settings.weighting)
            self._started = time.monotonic()
            self._n_refused_before += len(self._refused)
            self._sites, self._refused = {}, []

    def _add(self, site: str, reply: TrainReply) -> None:
        if self._round is None:
            raise AggregationError("no round is open")
        n_subjects = reply.metrics.get("n_subjects")
        self._round.add(site, reply.round_index, reply.weight, reply.tensors, n_subjects)

    def _refuse(self, site: str, reason: str, fl_ctx: FLContext) -> bool:
        with self._lock:
            self._refused.append({"site": site, "reason": reason})
        self.log_error(fl_ctx, f"contribution of {site} refused: {reason}")
        return False

    def _result(self, previous: dict[str, np.ndarray]) -> ScreenedResult:
        if self._round is None:
            return ScreenedResult(AggregationResult(dict(previous), (), 0.0, None), {}, "no round is open")
        return self._round.result(previous)

    def _note_event(self, fl_ctx: FLContext) -> None:
        """Record a scalar that a site streamed; the TensorBoard receiver draws it."""
        data = fl_ctx.get_prop(FLContextKey.EVENT_DATA)
        try:
            site = str(data.get_peer_prop(ReservedKey.IDENTITY_NAME, ""))
            tag, value, step = read_scalar(data)
            checked = job_of(fl_ctx).contract.check_metrics({tag: value})
            entry = event_entry(fl_ctx.get_job_id(), site, str(tag), *checked.values(), step=step)
        except (EgressViolation, AttributeError) as error:
            self.log_error(fl_ctx, f"a site streamed something other than an agreed metric: {error}")
            return
        keep_receipt(self, entry, fl_ctx)

    def _note_failure(self, fl_ctx: FLContext) -> None:
        """FLARE's controller drops error replies before they reach ``accept``; keep them in the record."""
        reply = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        is_training = fl_ctx.get_prop(FLContextKey.TASK_NAME) == AppConstants.TASK_TRAIN
        failure = read_failure(reply) if is_training and isinstance(reply, Shareable) else None
        if failure and failure.code != EVALUATES_ONLY:  # which is no fault
            with self._lock:
                self._refused.append({"site": sender_of(reply), "reason": f"the site answered {failure.code}"})

    def _record(self, result: AggregationResult, fl_ctx: FLContext) -> dict[str, Any]:
        return {
            "round": fl_ctx.get_prop(AppConstants.CURRENT_ROUND),
            "seconds": time.monotonic() - self._started,
            "ended": utc_now(),
            "sites": {site: self._sites[site] for site in result.sites},
            "residual": result.residual,
            "tensor_bytes": job_of(fl_ctx).contract.tensor_bytes,
            "refused": list(self._refused),
        }

    def _statistics(self) -> dict[str, float | str]:
        """Return where the running round is, and what the last finished one gave."""
        with self._lock:
            if self._round is None:
                return {"phase": "before the first round"}
            best = {} if self._best_round is None else {"best_round": self._best_round}
            return {
                **{name: round(value, DECIMALS) for name, value in self._summary.items()},
                **best,
                "round": self._round.round_index,
                "n_contributions": self._round.n_sites,
                "n_refused": len(self._refused),
                "n_refused_in_all": self._n_refused_before + len(self._refused),
            }


def _plan(fl_ctx: FLContext) -> dict[str, float | str]:
    """Return the rounds of the whole training, and with which one this job began; FLARE tells neither."""
    return {
        "n_rounds": job_of(fl_ctx).settings.train.n_rounds,
        "start_round": fl_ctx.get_prop(AppConstants.START_ROUND, 0),
    }


def _site_record(reply: TrainReply, payload_bytes: int) -> dict[str, Any]:
    """Return what is kept of a contribution: everything but the tensors."""
    return {
        "metrics": {**reply.metrics, **(reply.initial_metrics or {})},
        "payload_bytes": payload_bytes,
        "weight": reply.weight,
    }
