"""What the egress filter and the egress guard of a site share: the contract, the site's policy, state and ledger.

Everything is derived at the site. The job contributes its settings, from which the installed code derives the
contract; the policy, the pinned hashes and the ledger come from the site's own configuration, and what a payload holds
is compared with what this site's own steps offered and with the tensors that stay.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from med_duallora.boundary.contract import EgressContract, demands_of
from med_duallora.boundary.ledger import site_ledger
from med_duallora.boundary.ledger_entry import Entry
from med_duallora.boundary.ledger_marker import CUT
from med_duallora.boundary.told import ToldNumbers
from med_duallora.errors import ConfigError, EgressViolation, LedgerError, MedDualLoRAError
from med_duallora.flare.site.learner import DualLoRALearner
from med_duallora.flare.wire.job import FederatedJob, job_of
from med_duallora.flare.wire.payload import Failure, Scores, TrainReply, leaving, read_reply
from med_duallora.flare.wire.receipts import blocked_entry, error_entry, metrics_entry, statistics_entry, train_entry
from med_duallora.measures import MEASURES, STATEMENTS, Kind, Place, Subjects, may_stand
from med_duallora.settings.config import TRAIN, JobConfig, SiteConfig
from med_duallora.site.offer import EVALUATES_ONLY
from med_duallora.site.runtime import SiteRuntime
from med_duallora.support.digest import content_digest

NOTED = "__med_duallora_noted__"
"""Property of a task's context: the ledger has a line of what is answered."""
TESTED = frozenset({Place.VALIDATE_REPLY})
"""Where a number must be allowed to stand that a site tells which evaluates only."""


@dataclass(frozen=True)
class Release:
    """What may leave a site as the answer to a task.

    Args:
        reply: fresh.
        entry: its line in the ledger.
        numbers: metrics that it holds.
        adapter: digest of the tensors that it holds; empty where there are none.
    """

    reply: Shareable
    entry: Entry
    numbers: Mapping[str, float]
    adapter: str = ""


class Boundary:
    """The boundary of one site in one job.

    Args:
        site: name of the site.
        job_id: FLARE's job id.
        job: the job's settings, as far as the site believes them.
        config: the site's configuration; None where it has none that is usable.
        learner: the site's learner in this process, if any.
    """

    def __init__(
        self, site: str, job_id: str, job: JobConfig, config: SiteConfig | None, learner: DualLoRALearner | None
    ) -> None:
        self.site = site
        self.job_id = job_id
        self.job = job
        self.contract = EgressContract.for_job(job)
        self.config = config
        self._learner = learner
        self._ledger = site_ledger(config) if config else None
        self._told = ToldNumbers()
        self._refusal = _refusal(config, job, self.contract)

    @property
    def runtime(self) -> SiteRuntime | None:
        """Return the site at work in this process, if any."""
        return self._learner.runtime if self._learner else None

    @property
    def _evaluates_only(self) -> bool:
        """Return whether the site's role lets no adapter leave; also where a job's own code trained one."""
        return self.config is not None and self.config.role != TRAIN

    def release(self, task: object, reply: Shareable, strict: bool) -> Release:
        """Return a fresh reply that may leave, its ledger entry and its numbers.

        Args:
            task: name of the task.
            reply: what would leave.
            strict: whether the site's own configuration and model must be there to compare with; a job's own filter in
                the simulator does without where they are missing.

        Raises:
            EgressViolation: the reply may not leave; names the first offence, never a value.
        """
        answer = read_reply(task, reply, self.contract)
        if isinstance(answer, Failure):
            return Release(answer.to_shareable(), error_entry(self.job_id, self.site, str(task)[:64], answer.code), {})
        if self._evaluates_only and isinstance(answer, TrainReply):
            raise EgressViolation(f"{EVALUATES_ONLY}, so that no adapter leaves it")
        runtime = self._checked_runtime(strict)
        if isinstance(answer, Scores):
            self._check_reported(answer.metrics, runtime)
            return Release(answer.to_shareable(), metrics_entry(self.job_id, self.site, answer.metrics), answer.metrics)
        if runtime:
            check_against_site(answer, runtime)
        numbers = {**answer.metrics, **(answer.initial_metrics or {})}
        self._check_reported(numbers, runtime)
        entry = train_entry(self.job_id, self.site, answer)
        return Release(leaving(answer), entry, numbers, content_digest(answer.tensors, {}))

    def _checked_runtime(self, strict: bool) -> SiteRuntime | None:
        if self._refusal and (strict or self.config):
            raise EgressViolation(self._refusal)
        if strict and self.runtime is None:
            raise EgressViolation("there is no trained model of this site to compare the payload with")
        if self.config and self.runtime:
            _check_backbone(self.config, self.runtime)
            train = self.runtime.n_subjects()[Subjects.TRAINING.value]
            if not self._evaluates_only and (floor := self.config.policy.short_of(train)):
                raise EgressViolation(f"this site has fewer training subjects than its policy.{floor} demands")
        return self.runtime

    def check_scalar(self, tag: object, value: object, step: object) -> tuple[str, float, int]:
        """Return one scalar of a fed event that may leave (EgressViolation)."""
        if type(tag) is not str:
            raise EgressViolation("the name of a scalar is not text")
        checked = self.contract.check_metrics({tag: value})
        self._check_reported(checked, self._checked_runtime(strict=True))
        return tag, checked[tag], self.contract.check_round(step)

    def allowed_statistics(self, statistics: Mapping[object, object]) -> dict[str, float | str]:
        """Return what of a site's statistics the console may see, by contract and policy, see ``ToldNumbers``.

        Numbers that the ledger has no line of get one. Where the policy is not known, or lets no number out, texts and
        the running round are left.

        Raises:
            EgressViolation: the line cannot be written; then nothing is told.
        """
        self.check_ledger()
        found = self.contract.allowed_statistics(statistics)
        free = {*STATEMENTS, *(name for name, measure in MEASURES.items() if measure.kind is Kind.ROUND)}
        plain = {name: value for name, value in found.items() if name in free}
        if self.config is None or self.runtime is None:
            return plain
        numbers = {name: float(value) for name, value in found.items() if name not in plain}
        if self._evaluates_only:
            numbers = {name: value for name, value in numbers.items() if may_stand(name, TESTED)}
        told = self._told.to_tell(self.config.policy.allowed_metrics(numbers, self.runtime.n_subjects()))
        if new := self._told.without_line(told):
            self.record(statistics_entry(self.job_id, self.site, new), new)
        return {**plain, **told}

    def _check_reported(self, metrics: Mapping[str, float], runtime: SiteRuntime | None) -> None:
        """Let out only numbers that this site computed and that its policy lets out, by its role of tests alone."""
        if self._evaluates_only:
            self.contract.check_metrics(dict(metrics), Place.VALIDATE_REPLY)
        for name, value in metrics.items():
            if runtime and runtime.reported.get(name) != value:
                raise EgressViolation(f"metric {name} is not what this site computed and lets out")
        if runtime and self.config:
            kept = set(metrics.items()) - set(self.config.policy.allowed_metrics(metrics, runtime.n_subjects()).items())
            if kept:
                raise EgressViolation(f"metric {min(kept)[0]} is more than this site's policy lets out")

    def check_ledger(self) -> None:
        """Raise EgressViolation where the site's ledger is not the one that it remembers."""
        try:
            if self._ledger:
                self._ledger.check()
        except LedgerError as error:
            raise EgressViolation(_without_places(error)) from error

    def record(self, entry: Entry, numbers: Mapping[str, float]) -> None:
        """Write a line of the site's ledger, and remember the numbers that it is of.

        Raises:
            EgressViolation: it cannot be written; then nothing leaves.
        """
        if self._ledger is None:
            raise EgressViolation("this site has no ledger, because it has no usable configuration")
        try:
            self._ledger.append(entry)
        except LedgerError as error:
            raise EgressViolation(_without_places(error)) from error
        self._told.note(numbers)


def _without_places(error: LedgerError) -> str:
    """Return what the site's log says of a ledger; the error itself names paths."""
    what = CUT if str(error).startswith(CUT) else "the ledger cannot be written"
    return f"{what}; ledger verify at the site tells why"


def check_against_site(reply: TrainReply, runtime: SiteRuntime) -> None:
    """Compare a payload with what the site's last training offered, and with what stays.

    Raises:
        EgressViolation: it is not the round or weight that was just trained; a tensor is not the one that was offered,
            or equals one that stays.
    """
    offer = runtime.offered
    if offer is None or (offer.round_index, offer.weight) != (reply.round_index, reply.weight):
        raise EgressViolation("the round or the weight is not that of this site's last training")
    kept = {**runtime.kept_state(), **runtime.model.statistics()}
    for name, value in reply.tensors.items():
        if not offer.holds(name, value):
            raise EgressViolation(f"tensor {name} is not this site's current global adapter")
        if value.any() and any(_same_bytes(value, other) for other in kept.values()):
            raise EgressViolation(f"tensor {name} equals a tensor that stays at the site")


def _same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _check_backbone(config: SiteConfig, runtime: SiteRuntime) -> None:
    try:
        config.policy.check_backbone(runtime.model.backbone_sha256)
    except ConfigError as error:
        raise EgressViolation(str(error)) from error


def _refusal(config: SiteConfig | None, job: JobConfig, contract: EgressContract) -> str:
    if config is None:
        return "this site has no usable configuration, so its policy is not known"
    try:
        config.policy.check_job(**demands_of(job, contract, config.role == TRAIN))
    except ConfigError as error:
        return str(error)
    return ""


_BOUNDARIES: WeakKeyDictionary[FederatedJob, Boundary] = WeakKeyDictionary()


def boundary_of(fl_ctx: FLContext) -> Boundary:
    """Return the boundary of the running job at this site; it is made once per job.

    Raises:
        ConfigError: the job has no settings of the expected class.
    """
    job = job_of(fl_ctx)
    if job not in _BOUNDARIES:
        _BOUNDARIES[job] = _made(job, fl_ctx)
    return _BOUNDARIES[job]


def _made(job: FederatedJob, fl_ctx: FLContext) -> Boundary:
    components = fl_ctx.get_engine().get_all_components().values()
    learner = next((item for item in components if isinstance(item, DualLoRALearner)), None)
    settings = JobConfig.from_dict(job.config)
    return Boundary(fl_ctx.get_identity_name(), fl_ctx.get_job_id() or "", settings, _site_config(fl_ctx), learner)


def _site_config(fl_ctx: FLContext) -> SiteConfig | None:
    try:
        return SiteConfig.find(fl_ctx.get_identity_name(), fl_ctx.get_prop(FLContextKey.SCOPE_PROPERTIES))
    except ConfigError:
        return None


def reason_of(error: Exception) -> str:
    """Return what may be said of an error: our own texts hold no value of a payload, other texts may."""
    return str(error) if isinstance(error, MedDualLoRAError) else f"the check failed with {type(error).__name__}"


def note_blocked(fl_ctx: FLContext, task: object, reason: str, payload: object, kind: str = "tensors") -> None:
    """Write the ledger's line of something that was kept back, also in a job that is none of ours."""
    job_id, site = fl_ctx.get_job_id() or "", fl_ctx.get_identity_name()
    note(fl_ctx, blocked_entry(job_id, site, str(task)[:64], reason, payload, kind=kind))


def note_code(fl_ctx: FLContext) -> None:
    """Write the ledger's line of a return code that FLARE itself answers, before or between the checks."""
    job_id, task = fl_ctx.get_job_id() or "", str(fl_ctx.get_prop(FLContextKey.TASK_NAME))[:64]
    note(fl_ctx, error_entry(job_id, fl_ctx.get_identity_name(), task, "a return code of FLARE's own"))


def note(fl_ctx: FLContext, entry: Entry) -> None:
    """Write a line of the site's ledger, where there is one that can be written; nothing depends on it.

    The task's context remembers that its answer has a line.
    """
    if entry.kind != "event":
        fl_ctx.set_prop(NOTED, True, private=True, sticky=False)
    config = _site_config(fl_ctx)
    if config is None:
        return
    try:
        site_ledger(config).append(entry)
    except LedgerError:
        return  # it does not leave either way, and the first problem is the one to tell
