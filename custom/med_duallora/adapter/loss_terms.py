"""Terms that methods add to the classification loss, each made from the job."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from med_duallora.adapter.plan import LossTerm
from med_duallora.adapter.roles import twins
from med_duallora.settings.config import JobConfig

if TYPE_CHECKING:
    from torch import Tensor

    from med_duallora.adapter.model import DualLoRAModel


def to_the_global_twin(job: JobConfig) -> LossTerm:
    """Pull the local adapter, while it trains, towards the global one that came in: ``lambda / 2 |v - w_t|^2``.

    Source: Ditto (Li et al. 2021, arXiv 2012.04221), Algorithm 1.
    """
    strength = job.train.proximal / 2

    def term(model: "DualLoRAModel", incoming: "Mapping[str, Tensor]") -> "Tensor":
        beside = twins(model)
        pairs = [(model.get_parameter(name), incoming[twin]) for name, twin in beside.items()]
        return strength * _distance(pair for pair in pairs if pair[0].requires_grad)

    return term


def to_the_rounds_start(job: JobConfig) -> LossTerm:
    """Pull all that is sent towards what came in: ``mu / 2 |w - w_t|^2``.

    Source: FedProx (Li et al. 2020, arXiv 1812.06127).
    """
    strength = job.train.proximal / 2

    def term(model: "DualLoRAModel", incoming: "Mapping[str, Tensor]") -> "Tensor":
        sent = model.of_roles(model.plan.sent)
        return strength * _distance((value, incoming[name]) for name, value in sent.items())

    return term


def _distance(pairs: "Iterable[tuple[Tensor, Tensor]]") -> "Tensor":
    import torch  # only here: what methods there are can be listed without it

    squares = [(one - other).square().sum() for one, other in pairs]
    return torch.stack(squares).sum() if squares else torch.zeros(())
