"""The dual-LoRA linear layer: mathematics only.

Source: Med-DualLoRA (arXiv 2603.10967), additive decomposition of the weight update into a global and a
local low-rank term; LoRA (arXiv 2106.09685) for initialisation and scaling.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from med_duallora.names import Role


class DualLoRALinear(nn.Module):
    """A frozen linear layer with a global and a local low-rank adapter.

    Computes ``y = W0 x + b0 + (alpha_g / r_g) B_g A_g x + (alpha_l / r_l) B_l A_l x`` with both paths fused into
    one pair of matrix products of rank ``r_g + r_l``. One factor starts at zero, so that a new layer equals its frozen
    layer bit for bit. An adapter of rank 0 has no parameters.

    Args:
        base: the frozen layer; its parameters stop requiring gradients.
        rank_global: r_g.
        alpha_global: alpha_g.
        rank_local: r_l.
        alpha_local: alpha_l.
        zero: which factor starts at zero. ``b``: B (out, rank) does and A (rank, in) starts random, as LoRA does.
            ``a``: A does and B starts as the identity, for a layer with hardly more outputs than ranks: behind a random
            A its first steps would see a few random directions of the input only.
    """

    global_a: nn.Parameter | None
    global_b: nn.Parameter | None
    local_a: nn.Parameter | None
    local_b: nn.Parameter | None

    def __init__(
        self,
        base: nn.Linear,
        rank_global: int,
        alpha_global: float,
        rank_local: int,
        alpha_local: float,
        *,
        zero: str = "b",
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.zero = zero
        self.global_active = True
        self.local_active = True
        self.scale_global = alpha_global / rank_global if rank_global else 0.0
        self.scale_local = alpha_local / rank_local if rank_local else 0.0
        self._add_pair("global", rank_global)
        self._add_pair("local", rank_local)

    def _add_pair(self, adapter: str, rank: int) -> None:
        like = self.base.weight
        a = b = None
        if rank:
            a = nn.Parameter(torch.empty(rank, self.base.in_features, device=like.device, dtype=like.dtype))
            b = nn.Parameter(torch.empty(self.base.out_features, rank, device=like.device, dtype=like.dtype))
        for name, factor in ((f"{adapter}_a", a), (f"{adapter}_b", b)):
            self.register_parameter(name, factor)
            if factor is not None:
                factor.data.copy_(self.first_value(name))

    def first_value(self, name: str, generator: torch.Generator | None = None) -> Tensor:
        """Return the value that a factor starts with; a random one is uniform within +-1/sqrt(fan-in).

        The bound is the one of LoRA's A factor (Kaiming-uniform with a = sqrt(5)).

        Args:
            name: of the factor: ``global_a`` and so on.
            generator: of the random numbers.
        """
        shape = tuple(self.get_parameter(name).shape)
        if name.endswith(f"_{self.zero}"):
            return torch.zeros(shape)
        if self.zero == "a":
            return torch.eye(*shape)
        bound = shape[-1] ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    def declared_roles(self) -> dict[str, Role]:
        """Declare the adapters' roles (see ``names``)."""
        roles = {"global_a": Role.GLOBAL, "global_b": Role.GLOBAL, "local_a": Role.LOCAL, "local_b": Role.LOCAL}
        return {name: role for name, role in roles.items() if getattr(self, name) is not None}

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Return the active adapters as one pair: A (rank, in) and B (out, rank) with the scales folded into B."""
        pairs: list[tuple[Tensor, Tensor]] = []
        if self.global_active and self.global_a is not None and self.global_b is not None:
            pairs.append((self.global_a, self.global_b * self.scale_global))
        if self.local_active and self.local_a is not None and self.local_b is not None:
            pairs.append((self.local_a, self.local_b * self.scale_local))
        if not pairs:
            return None
        return torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        y: Tensor = self.base(x)
        factors = self.factors()
        if factors is None:
            return y
        a, b = factors
        return y + functional.linear(functional.linear(x, a), b)
