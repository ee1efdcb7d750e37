"""What becomes of every adapter factor and of the head in one job: the vocabulary in which methods are written."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from med_duallora.adapter.aggregations import Aggregation
from med_duallora.adapter.roles import GLOBAL, LOCAL, Role, Start
from med_duallora.settings.config import LoRAConfig

if TYPE_CHECKING:
    from torch import Tensor

    from med_duallora.adapter.model import DualLoRAModel

LossTerm = Callable[["DualLoRAModel", "Mapping[str, Tensor]"], "Tensor"]
"""A scalar to add to the loss, from the model and from what its trained parameters were at the round's start."""


WHOLE = (1.0, 1.0)
"""The mix of two adapters that simply add up."""


@dataclass(frozen=True)
class Treatment:
    """What a method does with the parameters of one role.

    Args:
        trains: whether they are optimised at a site.
        sent: whether they leave the site; what trains and is not sent stays in the site's state.
        phases: in which of the plan's phases they train, counted from 0; None: in all; none of them: only after the
            rounds, see ``AdapterPlan``.
        start: how they start; None: as the layer declares.
        as_twin: whether the factors of a local adapter start with the values of the global one beside them.
    """

    trains: bool = True
    sent: bool = False
    phases: tuple[int, ...] | None = None
    start: Start | None = None
    as_twin: bool = False


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
        mix: the shares with which the global and the local adapter act where both of them act, in training and in
            predictions alike; one that acts alone acts whole. Each is from 0 to 1.
        after: whether what stays is trained once more, from its start, beside each global adapter that is evaluated:
            nothing of that can be in a payload.

    Raises:
        ValueError: the plan contradicts itself.
    """

    lora: LoRAConfig
    treatments: Mapping[Role, Treatment]
    phases: tuple[Phase, ...]
    loss_terms: tuple[LossTerm, ...]
    aggregation: Aggregation
    mix: tuple[float, float] = WHOLE
    after: bool = False

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.mix):
            raise ValueError("a share of a plan's mix is not from 0 to 1")
        if not math.isclose(sum(phase.share for phase in self.phases), 1.0):
            raise ValueError("the shares of a plan's phases do not sum to 1")
        if Role.WEIGHTS in self.trained and self.trained & (GLOBAL | LOCAL):
            raise ValueError("whole weights train, so that factors beside them in the same layers have nothing to add")
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

    def resting(self, round_index: int) -> frozenset[Role]:
        """Return the roles that do not train in a round, whatever the phase: one factor, where the rule wants turns.

        B trains first, because it starts at zero and A cannot learn before it moved. Behind a shared head it is the
        other way round: there A starts at zero, and without a head nothing learns.
        """
        if not self.aggregation.in_turns:
            return frozenset()
        a_first = self.lora.head_policy == "shared"
        return frozenset({Role.GLOBAL_B if (round_index % 2 == 0) is a_first else Role.GLOBAL_A})

    def of_phase(self, index: int) -> frozenset[Role]:
        """Return the roles whose parameters train in a phase."""
        phases = {role: self.treatments[role].phases for role in self.trained}
        return frozenset(role for role, own in phases.items() if own is None or index in own)
