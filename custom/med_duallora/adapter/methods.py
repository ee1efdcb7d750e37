"""Federated methods as data: what trains, what is sent, what stays. Adding a peer is adding an entry.

A method yields, once per job, an ``AdapterPlan``. Model, training loop, contract and aggregation read the plan; none of
them knows a method's name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from med_duallora.adapter.aggregations import AGGREGATIONS, Aggregation
from med_duallora.adapter.loss_terms import to_the_global_twin, to_the_rounds_start
from med_duallora.adapter.plan import FIXED, KEPT, SENT, WHOLE, AdapterPlan, LossTerm, Phase, Treatment
from med_duallora.adapter.roles import Role
from med_duallora.errors import ConfigError
from med_duallora.settings.config import AGGREGATION_NAMES, METHOD_NAMES, JobConfig, LoRAConfig


class Adapters(Enum):
    """Which adapters a method has, of those that the job describes."""

    BOTH = "both, as the job has them"
    GLOBAL = "the global one alone"
    LOCAL = "the local one alone, of the global one's rank and scale"
    TWINS = "both, the local one of the global one's rank and scale"
    NONE = "none, because whole weights train"

    def of(self, lora: LoRAConfig) -> LoRAConfig:
        """Return the adapter configuration as the method uses it."""
        if self is Adapters.BOTH:
            return lora
        if self in (Adapters.GLOBAL, Adapters.NONE):  # a configuration has a rank, also where nothing reads it
            return replace(lora, rank_local=0)
        twin = replace(lora, rank_local=lora.rank_global, alpha_local=lora.alpha_global)
        return replace(twin, rank_global=0) if self is Adapters.LOCAL else twin


@dataclass(frozen=True)
class Method:
    """One federated method.

    Args:
        name: as in the job configuration.
        summary: one line for help texts and reports.
        adapters: which ones it has.
        head_policy: what it does with the head whatever the job says, see ``LoRAConfig``; empty: as the job says.
        global_a: what is done with the A factors of the global adapter.
        global_b: likewise with its B factors; a head that is sent trains in the same phases.
        local: likewise with both factors of the local adapter.
        weights: likewise with whole weights and biases of all linear layers of the adapted blocks, whatever
            ``lora.targets`` says.
        norms: likewise with scale and shift of the norms of the adapted blocks.
        phases: of a round, in their order.
        loss_terms: made from the job, and added to the classification loss.
        aggregation: the rule that is used where the job names none.
        mix: how the adapters act together, see ``AdapterPlan``.
        after: whether what stays trains after the rounds, see ``AdapterPlan``.
        schedules: what is otherwise in the method under another ``train.schedule`` than ``joint``, by its name.
    """

    name: str
    summary: str
    adapters: Adapters = Adapters.BOTH
    head_policy: str = ""
    global_a: Treatment = SENT
    global_b: Treatment = SENT
    local: Treatment = KEPT
    weights: Treatment = FIXED
    norms: Treatment = FIXED
    phases: tuple[Phase, ...] = (Phase(),)
    loss_terms: tuple[Callable[[JobConfig], LossTerm], ...] = ()
    aggregation: str = "factors"
    mix: tuple[float, float] = WHOLE
    after: bool = False
    schedules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def plan(self, job: JobConfig) -> AdapterPlan:
        """Return the plan of a job.

        Raises:
            ConfigError: the aggregation is unknown, or needs factors that the method does not send; or the method does
                not have the schedule.
        """
        schedule = job.train.schedule
        if schedule == "joint":
            return self._plan(job)
        if schedule not in self.schedules:
            limit = f"joint for method {self.name}, which has a schedule of its own"
            raise ConfigError.of("train.schedule", schedule, limit)
        return replace(self, **self.schedules[schedule])._plan(job)

    def _plan(self, job: JobConfig) -> AdapterPlan:
        lora = self.adapters.of(job.lora)
        lora = replace(lora, head_policy=self.head_policy or lora.head_policy)
        sent_head = replace(SENT, phases=self.global_b.phases)
        treatments = {
            Role.GLOBAL_A: self.global_a,
            Role.GLOBAL_B: self.global_b,
            Role.LOCAL_A: self.local,
            Role.LOCAL_B: self.local,
            Role.WEIGHTS: self.weights,
            Role.NORM: self.norms,
            Role.HEAD: sent_head if lora.head_policy == "global" else replace(KEPT, phases=() if self.after else None),
        }
        if self.after and lora.head_policy == "local":
            limit = "shared or global where train.schedule is local-after: behind a head that waits nothing learns"
            raise ConfigError.of("lora.head_policy", lora.head_policy, limit)
        loss_terms = tuple(term(job) for term in self.loss_terms)
        return AdapterPlan(lora, treatments, self.phases, loss_terms, self._aggregation(job), self.mix, self.after)

    def _aggregation(self, job: JobConfig) -> Aggregation:
        name = job.aggregation or self.aggregation
        if name not in AGGREGATIONS:
            raise ConfigError.of("aggregation", name, AGGREGATION_NAMES.text)
        if AGGREGATIONS[name].needs_pairs and not (self.global_a.sent and self.global_b.sent):
            sends = "whole weights and no factors" if self.weights.sent else "one factor of each"
            limit = f"a rule that does without pairs, because method {self.name} sends {sends}"
            raise ConfigError.of("aggregation", name, limit)
        return AGGREGATIONS[name]


METHODS = {
    method.name: method
    for method in (
        Method(
            "med-duallora",
            "global adapter sent and averaged, local adapter stays",
            schedules={
                "alternate": {
                    "global_a": replace(SENT, phases=(0,)),
                    "global_b": replace(SENT, phases=(0,)),
                    "local": Treatment(phases=(1,)),
                    "phases": (Phase(0.5, local_acts=False), Phase(0.5)),
                },
                "local-after": {
                    "local": Treatment(phases=()),
                    "phases": (Phase(local_acts=False),),
                    "after": True,
                },
            },
        ),
        Method(
            "fedavg-lora",
            "one adapter and the head, both sent and averaged (FedIT)",
            Adapters.GLOBAL,
            head_policy="global",
        ),
        Method(
            "fedavg-full",
            "no adapter: whole weights of the last lora.n_blocks transformer blocks and the head, all sent and "
            "averaged (FedAvg); the stem and the blocks before these stay frozen",
            Adapters.NONE,
            head_policy="global",
            global_a=FIXED,
            global_b=FIXED,
            local=FIXED,
            weights=SENT,
            norms=SENT,
        ),
        Method(
            "fedprox-lora",
            "as fedavg-lora, with a pull towards what came in (FedProx; its mu is train.proximal)",
            Adapters.GLOBAL,
            head_policy="global",
            loss_terms=(to_the_rounds_start,),
        ),
        Method(
            "fedper-lora",
            "one adapter, sent and averaged; the head stays (FedPer)",
            Adapters.GLOBAL,
            head_policy="local",
        ),
        Method(
            "fedbn-lora",
            "one adapter and the head, both sent and averaged; scale and shift of the adapted blocks' norms train and "
            "stay (after FedBN)",
            Adapters.GLOBAL,
            head_policy="global",
            norms=KEPT,
        ),
        Method(
            "fedsa-lora",
            "one adapter: A sent and averaged, B and head stay (FedSA-LoRA)",
            Adapters.GLOBAL,
            head_policy="local",
            global_b=KEPT,
        ),
        Method(
            "ditto-lora",
            "half a round a global adapter, half a round a personal one by itself, which is pulled towards the global "
            "one that came in and predicts alone (Ditto; its lambda is train.proximal)",
            Adapters.TWINS,
            global_a=replace(SENT, phases=(0,)),
            global_b=replace(SENT, phases=(0,)),
            local=Treatment(phases=(1,), as_twin=True),
            phases=(Phase(0.5, local_acts=False), Phase(0.5, global_acts=False)),
            loss_terms=(to_the_global_twin,),
            mix=(0.0, 1.0),
        ),
        Method(
            "feddpa",
            "half a round the local adapter beside the frozen global one, half a round the global one alone; both act "
            "by halves in a prediction (FedDPA-T)",
            global_a=replace(SENT, phases=(1,)),
            global_b=replace(SENT, phases=(1,)),
            local=Treatment(phases=(0,)),
            phases=(Phase(0.5), Phase(0.5, local_acts=False)),
            mix=(0.5, 0.5),
        ),
        Method(
            "ffa-lora",
            "one adapter: A fixed, B and head sent and averaged (FFA-LoRA)",
            Adapters.GLOBAL,
            head_policy="global",
            global_a=FIXED,
        ),
        Method(
            "local-lora",
            "one adapter and the head at each site, nothing is sent: what a site reaches alone; in one process only",
            Adapters.LOCAL,
            head_policy="local",
            global_a=FIXED,
            global_b=FIXED,
        ),
    )
}
METHOD_NAMES.stand_in(METHODS)
ALONE = "local-lora"
"""What joining is compared with."""


def method_of(job: JobConfig) -> Method:
    """Return the job's method.

    Raises:
        ConfigError: the method is unknown, or needs an adapter that the job gives rank 0.
    """
    if job.method not in METHODS:
        raise ConfigError.of("method", job.method, METHOD_NAMES.text)
    if job.lora.rank_global == 0:
        whose = "whose adapter has this rank"
        if METHODS[job.method].adapters is Adapters.NONE:
            whose = "because training alone, which a site compares with, has an adapter of this rank"
        limit = f"above 0 for method {job.method}, {whose}"
        raise ConfigError.of("lora.rank_global", 0, limit)
    return METHODS[job.method]


def as_published(job: JobConfig, method: str) -> JobConfig:
    """Return a job with another method, for a comparison: no peer has a slower part that stays, or our schedules."""
    whole = replace(job.train, local_lr_factor=1.0, local_weight_decay_factor=1.0, schedule="joint")
    return replace(job, method=method, train=whole)


def alone(job: JobConfig) -> JobConfig:
    """Return the job of a site that trains by itself, as ``ALONE`` does, with all other settings the same."""
    return replace(as_published(job, ALONE), aggregation="")  # the rule may need what nobody sends


def plan_of(job: JobConfig) -> AdapterPlan:
    """Return the plan of a job's method (ConfigError: see ``method_of`` and ``Method.plan``)."""
    return method_of(job).plan(job)
