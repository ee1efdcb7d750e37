"""Federated methods as data: what trains, what is sent, what stays. Adding a peer is adding an entry.

A method yields, once per job, an ``AdapterPlan``. Model, training loop, contract and aggregation read the plan; none of
them knows a method's name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from med_duallora.adapter.aggregations import AGGREGATIONS, Aggregation
from med_duallora.adapter.roles import Role, Start
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
        phase: in which of the plan's phases they train, counted from 0.
        start: how they start; None: as the layer declares.
    """

    trains: bool = True
    sent: bool = False
    phase: int = 0
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
    """

    lora: LoRAConfig
    treatments: Mapping[Role, Treatment]
    phases: tuple[Phase, ...]
    loss_terms: tuple[LossTerm, ...]
    aggregation: Aggregation

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
    def resets_moments(self) -> bool:
        """Return whether the optimizer forgets its moments of what is sent, because the server returns new factors."""
        return self.aggregation.new_factors

    def of_phase(self, index: int) -> frozenset[Role]:
        """Return the roles whose parameters train in a phase."""
        return frozenset(role for role in self.trained if self.treatments[role].phase == index)


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
        Method("med-duallora", "global adapter sent and averaged, local adapter (and head) stay", True, False),
        Method("fedavg-lora", "one adapter and the head, both sent and averaged (FedIT)", False, True),
        Method(
            "fedsa-lora", "one adapter: A sent and averaged, B and head stay (FedSA-LoRA)", False, False, global_b=KEPT
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
