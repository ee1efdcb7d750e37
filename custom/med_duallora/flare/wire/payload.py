"""The kinds of replies a site may give, between the core's plain values and FLARE's Shareable.

Reading is strict in both directions: the filter at the site and the aggregator at the server read with the same
functions, and what they read is built anew from the contract. Nothing is copied from one Shareable to another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nvflare.apis.analytix import AnalyticsDataType, LogWriterName, TrackConst
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.errors import EgressViolation
from med_duallora.flare.wire.packing import packed, unpacked
from med_duallora.measures import Place
from med_duallora.settings.workflow import ADAPTER_KINDS

WEIGHT = MetaKey.NUM_STEPS_CURRENT_ROUND
ROUND = MetaKey.CURRENT_ROUND
INITIAL_METRICS = MetaKey.INITIAL_METRICS
"""Metrics of the incoming global adapter before training; LearnerExecutor and IntimeModelSelector agree on the key."""
METRICS = "metrics"
"""Metrics of the site's training in this round."""
LINEAGE = "med_duallora_lineage"
"""Header of a task: the run that it belongs to and those that it continues."""
ADAPTER_KIND = "med_duallora_adapter"
"""Header of a validate task: which adapter of the job it brings, one of ``ADAPTER_KINDS``."""
RETURN_CODES = frozenset(value for name, value in vars(ReturnCode).items() if name.isupper())


EVALUATES_ONLY = ReturnCode.TASK_UNSUPPORTED
"""What a site answers to a train task that takes part in the evaluation alone."""


@dataclass(frozen=True)
class TrainReply:
    """What a site sends after a round.

    Args:
        tensors: the global state by name, as the contract lists it.
        weight: of the contribution in the aggregation.
        round_index: the round that was trained.
        metrics: of the training.
        initial_metrics: of the incoming global adapter, before training; None where they were not computed.
    """

    tensors: dict[str, np.ndarray]
    weight: float
    round_index: int
    metrics: dict[str, float]
    initial_metrics: dict[str, float] | None = None

    def to_shareable(self, pack: bool = False) -> Shareable:
        """Return a fresh Shareable that holds these values and nothing else.

        Args:
            pack: as it leaves a site, with the small tensors as bytes; filters of FLARE's before that want arrays.
        """
        meta: dict[str, Any] = {WEIGHT: self.weight, ROUND: self.round_index, METRICS: dict(self.metrics)}
        if self.initial_metrics is not None:
            meta[INITIAL_METRICS] = dict(self.initial_metrics)
        data = packed(self.tensors) if pack else dict(self.tensors)
        return DXO(DataKind.WEIGHTS, data=data, meta=meta).to_shareable()


@dataclass(frozen=True)
class Scores:
    """What a site answers to a validate task: metrics by the contract's names."""

    metrics: dict[str, float]

    def to_shareable(self) -> Shareable:
        """Return a fresh Shareable that holds these values and nothing else."""
        return metrics_reply(self.metrics)


@dataclass(frozen=True)
class Failure:
    """What a site answers when it could not do a task: one of FLARE's return codes, without any text."""

    code: str

    def to_shareable(self) -> Shareable:
        """Return a fresh Shareable that holds the code and nothing else."""
        return make_reply(self.code)


def read_reply(task: object, reply: Shareable, contract: EgressContract) -> TrainReply | Scores | Failure:
    """Return fresh values of any reply.

    Raises:
        EgressViolation: the reply holds something that the contract does not name, or the task may not be answered
            with data.
    """
    failure = read_failure(reply)
    if failure is not None:
        return failure
    if task == AppConstants.TASK_TRAIN:
        return read_train_reply(contract, reply)
    if task == AppConstants.TASK_VALIDATION:
        return Scores(read_metrics_reply(contract, reply))
    raise EgressViolation("this task may not be answered with data")


def read_failure(reply: Shareable) -> Failure | None:
    """Return what an error reply says; None where a reply is none.

    Raises:
        EgressViolation: it is not a plain Shareable with plain headers.
    """
    _check_plain(reply)
    code = reply.get_return_code()
    # only text is compared: the comparison of an array, say, would raise or mean something else
    if type(code) is str and code == ReturnCode.OK:
        return None
    return Failure(code if type(code) is str and code in RETURN_CODES else ReturnCode.ERROR)


def evaluates_only(reply: Shareable) -> bool:
    """Return whether a train task's reply says that the site takes part in the evaluation alone."""
    code = reply.get_return_code()
    return type(code) is str and code == EVALUATES_ONLY


def rebuilt(task: object, reply: Shareable, contract: EgressContract) -> Shareable:
    """Return a fresh reply that holds what the contract allows of ``reply``; EgressViolation: see ``read_reply``."""
    return leaving(read_reply(task, reply, contract))


def leaving(answer: TrainReply | Scores | Failure) -> Shareable:
    """Return a reply as it leaves a site."""
    return answer.to_shareable(pack=True) if isinstance(answer, TrainReply) else answer.to_shareable()


def read_train_reply(contract: EgressContract, reply: Shareable) -> TrainReply:
    """Return fresh values of a train task's reply.

    Raises:
        EgressViolation: the first thing that the contract does not name.
    """
    dxo = _only_dxo(reply, DataKind.WEIGHTS)
    _only_keys(dxo.meta, {WEIGHT, ROUND, METRICS}, {INITIAL_METRICS}, "meta entry")
    initial = dxo.meta.get(INITIAL_METRICS)
    return TrainReply(
        tensors=contract.check_tensors(unpacked(contract, dxo.data)),
        weight=contract.check_weight(dxo.meta[WEIGHT]),
        round_index=contract.check_round(dxo.meta[ROUND]),
        metrics=contract.check_metrics(dxo.meta[METRICS], Place.TRAIN_REPLY),
        initial_metrics=None if initial is None else contract.check_metrics(initial, Place.INITIAL),
    )


def metrics_reply(metrics: Mapping[str, float]) -> Shareable:
    """Return the reply to a validate task."""
    return DXO(DataKind.METRICS, data={INITIAL_METRICS: dict(metrics)}).to_shareable()


def read_metrics_reply(contract: EgressContract, reply: Shareable) -> dict[str, float]:
    """Return fresh values of a validate task's reply.

    Raises:
        EgressViolation: the first thing that the contract does not name.
    """
    dxo = _only_dxo(reply, DataKind.METRICS)
    _only_keys(dxo.meta, set(), set(), "meta entry")
    _only_keys(dxo.data, {INITIAL_METRICS}, set(), "data entry")
    return contract.check_metrics(dxo.data[INITIAL_METRICS], Place.VALIDATE_REPLY)


def read_scalar(data: Any) -> tuple[object, object, object]:
    """Return tag, value and step of an analytics event that holds nothing else.

    Raises:
        EgressViolation: it is not a scalar, or holds more than a scalar.
    """
    if type(data) is not Shareable or set(data) != {"__headers__", "DXO"}:
        raise EgressViolation("a fed event holds more than one scalar")
    try:
        dxo = from_shareable(data)
    except (ValueError, TypeError, AttributeError) as error:
        raise EgressViolation("a fed event holds no data exchange object") from error
    step = dxo.data.get(TrackConst.GLOBAL_STEP_KEY) if isinstance(dxo.data, dict) else None
    wanted = {TrackConst.TRACK_KEY, TrackConst.TRACK_VALUE, TrackConst.GLOBAL_STEP_KEY, TrackConst.KWARGS_KEY}
    meta = {TrackConst.DATA_TYPE_KEY: AnalyticsDataType.SCALAR, TrackConst.TRACKER_KEY: LogWriterName.TORCH_TB}
    good = dxo.data_kind == DataKind.ANALYTIC and set(dxo.data) == wanted and dxo.meta == meta
    if not good or dxo.data[TrackConst.KWARGS_KEY] != {TrackConst.GLOBAL_STEP_KEY: step}:
        raise EgressViolation("a fed event is not a plain scalar with a round")
    return dxo.data[TrackConst.TRACK_KEY], dxo.data[TrackConst.TRACK_VALUE], step


def task_tensors(contract: EgressContract, task: Shareable) -> dict[str, np.ndarray]:
    """Return the global state that a task brings, checked as strictly as what leaves.

    Raises:
        EgressViolation: the task brings something else than the contract's tensors.
    """
    return contract.check_tensors(_read_dxo(task, DataKind.WEIGHTS).data)


def set_lineage(task: Shareable, lineage: Lineage) -> None:
    """Say in a task which run it belongs to."""
    task.set_header(LINEAGE, lineage.to_list())


def task_lineage(task: Shareable) -> Lineage:
    """Return the run that a task belongs to.

    Raises:
        EgressViolation: the task does not say it, or says it in another form.
    """
    try:
        return Lineage.from_list(task.get_header(LINEAGE))
    except ValueError as error:
        raise EgressViolation(f"the task does not say which run it belongs to: {error}") from error


def set_adapter_kind(task: Shareable, kind: str) -> None:
    """Say in a validate task which adapter of the job it brings."""
    task.set_header(ADAPTER_KIND, kind)


def task_adapter_kind(task: Shareable) -> str:
    """Return which adapter of the job a validate task brings.

    Raises:
        EgressViolation: the task says none of ``ADAPTER_KINDS``.
    """
    kind = task.get_header(ADAPTER_KIND)
    if type(kind) is not str or kind not in ADAPTER_KINDS:
        raise EgressViolation(f"the task does not say which adapter it brings, {' or '.join(ADAPTER_KINDS)}")
    return kind


def _read_dxo(shareable: Shareable, kind: DataKind) -> DXO:
    try:
        dxo = from_shareable(shareable)
    except (ValueError, TypeError, AttributeError) as error:
        raise EgressViolation("the payload is not a data exchange object") from error
    if dxo.data_kind != kind:
        raise EgressViolation(f"the payload is not of kind {kind.value}")
    return dxo


def _only_dxo(shareable: Shareable, kind: DataKind) -> DXO:
    """Read a DXO and refuse anything beside it; headers are the framework's and are not carried on."""
    _check_plain(shareable)
    dxo = _read_dxo(shareable, kind)
    _only_keys(shareable, {ReservedHeaderKey.HEADERS, "DXO"}, set(), "payload entry")
    _only_keys(shareable["DXO"], {"kind", "data", "meta"}, set(), "payload entry")
    return dxo


def _check_plain(shareable: Shareable) -> None:
    if type(shareable) is not Shareable:
        raise EgressViolation(f"the payload is a {type(shareable).__name__}, expected a plain Shareable")
    headers = shareable.get(ReservedHeaderKey.HEADERS, {})
    if type(headers) is not dict:
        raise EgressViolation(f"the headers come as {type(headers).__name__}, expected a plain dict")


def _only_keys(values: object, needed: set[str], allowed: set[str], what: str) -> None:
    if not isinstance(values, dict):
        raise EgressViolation(f"a {what} is a {type(values).__name__}, expected a dict")
    for key in values:
        if type(key) is not str or key not in needed | allowed:
            raise EgressViolation(f"a {what} outside the contract: {str(key)[:120]!r}")
    missing = sorted(needed - set(values))
    if missing:
        raise EgressViolation(f"{what} {missing[0]} is missing")
