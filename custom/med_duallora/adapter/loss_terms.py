"""Terms that methods add to the classification loss, each made from the job."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from med_duallora.adapter.plan import LossTerm
from med_duallora.settings.config import JobConfig

if TYPE_CHECKING:
    from torch import Tensor

    from med_duallora.adapter.model import DualLoRAModel


def to_the_rounds_start(job: JobConfig) -> LossTerm:
    """Pull all that is sent towards what came in: ``mu / 2 |w - w_t|^2``.

    Source: FedProx (Li et al. 2020, arXiv 1812.06127).
    """
    strength = job.train.proximal / 2

    def term(model: "DualLoRAModel", incoming: "Mapping[str, Tensor]") -> "Tensor":
        sent = model.of_roles(model.plan.sent)
        distance: Tensor = sum((value - incoming[name]).square().sum() for name, value in sent.items())  # type: ignore[assignment]
        return strength * distance

    return term
