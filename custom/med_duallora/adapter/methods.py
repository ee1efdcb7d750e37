"""Federated methods as data: what trains, what is sent, what stays. Adding a peer is adding an entry.

A method yields, once per job, an ``AdapterPlan``. Model, training loop, contract and aggregation read the plan; none of
them knows a method's name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from med_duallora.adapter.aggregations import AGGREGATIONS, Aggregation
from med_duallora.adapter.roles import GLOBAL, Role, Start
from med_duallora.errors import ConfigError
from med_duallora.settings.config import AGGREGATION_NAMES, METHOD_NAMES, JobConfig, LoRAConfig

if TYPE_CHECKING:
    from torch import Tensor

    from med_duallora.adapter.model import DualLoRAModel

LossTerm = Callable[["DualLoRAModel", "Mapping[str, Tensor]"], "Tensor"]
"""A scalar to add to the loss, from the model and from what its trained parameters were at the round's start."""


@dataclass(frozen=True)
class Treatment:
    """What a method does with the parameters of one role.

    Args:
        trains: whether they are optimised at a site.
        sent: whether they leave the site; what trains and is not sent stays in the site's state.
        phases: in which of the plan's phases they train, counted from 0; None: in all.
        start: how they start; None: as the layer declares.
    """

    trains: bool = True
    sent: bool = False
    phases: tuple[int, ...] | None = None
    start: Start | None = None


SENT = Treatment(sent=True)
KEPT = Treatment()
FIXED = Treatment(trains=False)
"""Neither trained nor sent: what it starts with follows from the job's seed at every site."""


@dataclass(frozen=True)
class Phase:
    """A part of a round.

    Args:
        share: of the round's steps; the shares of all phases sum to 1.
        global_acts: whether the global adapter of the blocks acts in it.
        local_acts: likewise the local one.
    """

    share: float = 1.0
    global_acts: bool = True
    local_acts: bool = True


@dataclass(frozen=True)
class AdapterPlan:
    """What becomes of every adapter factor and of the head in one job.

    Args:
        lora: the adapter configuration as the method uses it.
        treatments: by role; the backbone is not in it, because no method touches it.
        phases: of a round, in their order.
        loss_terms: added to the classification loss.
        aggregation: how the server forms the next global adapter.

    Raises:
        ValueError: the plan contradicts itself.
    """

    lora: LoRAConfig
    treatments: Mapping[Role, Treatment]
    phases: tuple[Phase, ...]
    loss_terms: tuple[LossTerm, ...]
    aggregation: Aggregation

    def __post_init__(self) -> None:
        if not math.isclose(sum(phase.share for phase in self.phases), 1.0):
            raise ValueError("the shares of a plan's phases do not sum to 1")
        for role, treatment in self.treatments.items():
            if treatment.sent and not treatment.trains:
                raise ValueError(f"{role.value} does not train, so that sending it says nothing")
            if not set(treatment.phases or ()) <= set(range(len(self.phases))):
                raise ValueError(f"{role.value} trains in a phase that the plan does not have")

    @property
    def trained(self) -> frozenset[Role]:
        """Return the roles whose parameters train."""
        return frozenset(role for role, treatment in self.treatments.items() if treatment.trains)

    @property
    def sent(self) -> frozenset[Role]:
        """Return the roles whose parameters leave the site."""
        return frozenset(role for role, treatment in self.treatments.items() if treatment.sent)

    @property
    def kept(self) -> frozenset[Role]:
        """Return the roles whose parameters are trained and stay at the site."""
        return self.trained - self.sent

    @property
    def renewed(self) -> frozenset[Role]:
        """Return the roles whose moments the optimizer forgets each round, because the server returns new factors."""
        return self.sent & GLOBAL if self.aggregation.new_factors else frozenset()

    def of_phase(self, index: int) -> frozenset[Role]:
        """Return the roles whose parameters train in a phase."""
        phases = {role: self.treatments[role].phases for role in self.trained}
        return frozenset(role for role, own in phases.items() if own is None or index in own)


@dataclass(frozen=True)
class Method:
    """One federated method.

    Args:
        name: as in the job configuration.
        summary: one line for help texts and reports.
        has_local_adapter: whether a site keeps an adapter of its own.
        always_sends_head: the method averages the head whatever the job's head policy says.
        global_a: what is done with the A factors of the global adapter.
        global_b: likewise with its B factors.
        local: likewise with both factors of the local adapter.
        phases: of a round, in their order.
        loss_terms: added to the classification loss.
        aggregation: the rule that is used where the job names none.
        always_keeps_head: the head stays at its site whatever the job's head policy says.
    """

    name: str
    summary: str
    has_local_adapter: bool
    always_sends_head: bool
    global_a: Treatment = SENT
    global_b: Treatment = SENT
    local: Treatment = KEPT
    phases: tuple[Phase, ...] = (Phase(),)
    loss_terms: tuple[LossTerm, ...] = ()
    aggregation: str = "factors"
    always_keeps_head: bool = False

    def plan(self, job: JobConfig) -> AdapterPlan:
        """Return the plan of a job.

        Raises:
            ConfigError: the aggregation is unknown, or needs factors that the method does not send.
        """
        lora = job.lora
        if not self.has_local_adapter:
            lora = replace(lora, rank_local=0)
        if self.always_sends_head:
            lora = replace(lora, head_policy="global")
        if self.always_keeps_head:
            lora = replace(lora, head_policy="local")
        treatments = {
            Role.GLOBAL_A: self.global_a,
            Role.GLOBAL_B: self.global_b,
            Role.LOCAL_A: self.local,
            Role.LOCAL_B: self.local,
            Role.HEAD: SENT if lora.head_policy == "global" else KEPT,
        }
        return AdapterPlan(lora, treatments, self.phases, self.loss_terms, self._aggregation(job))

    def _aggregation(self, job: JobConfig) -> Aggregation:
        name = job.aggregation or self.aggregation
        if name not in AGGREGATIONS:
            raise ConfigError.of("aggregation", name, AGGREGATION_NAMES.text)
        if AGGREGATIONS[name].needs_pairs and not (self.global_a.sent and self.global_b.sent):
            limit = f"a rule that does without pairs, because method {self.name} sends one factor of each"
            raise ConfigError.of("aggregation", name, limit)
        return AGGREGATIONS[name]


METHODS = {
    method.name: method
    for method in (
        Method("med-duallora", "global adapter sent and averaged, local adapter stays", True, False),
        Method("fedavg-lora", "one adapter and the head, both sent and averaged (FedIT)", False, True),
        Method(
            "fedsa-lora",
            "one adapter: A sent and averaged, B and head stay (FedSA-LoRA)",
            False,
            False,
            global_b=KEPT,
            always_keeps_head=True,
        ),
        Method(
            "ffa-lora", "one adapter: A fixed, B and head sent and averaged (FFA-LoRA)", False, True, global_a=FIXED
        ),
    )
}
METHOD_NAMES.stand_in(METHODS)


def method_of(job: JobConfig) -> Method:
    """Return the job's method.

    Raises:
        ConfigError: the method is unknown, or needs an adapter that the job gives rank 0.
    """
    if job.method not in METHODS:
        raise ConfigError.of("method", job.method, METHOD_NAMES.text)
    if job.lora.rank_global == 0:
        limit = f"above 0 for method {job.method}, which sends a global adapter"
        raise ConfigError.of("lora.rank_global", 0, limit)
    return METHODS[job.method]


def plan_of(job: JobConfig) -> AdapterPlan:
    """Return the plan of a job's method (ConfigError: see ``method_of`` and ``Method.plan``)."""
    return method_of(job).plan(job)
