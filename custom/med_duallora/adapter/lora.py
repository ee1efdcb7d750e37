"""The dual-LoRA linear layer and the shared head: mathematics only.

Source: Med-DualLoRA (arXiv 2603.10967), additive decomposition of the weight update into a global and a
local low-rank term; LoRA (arXiv 2106.09685) for initialisation and scaling.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from med_duallora.adapter.roles import Declared, Role, Start


class DualLoRALinear(nn.Module):
    """A frozen linear layer with a global and a local low-rank adapter.

    Computes ``y = W0 x + b0 + (alpha_g / r_g) B_g A_g x + (alpha_l / r_l) B_l A_l x`` with both paths fused into
    one pair of matrix products of rank ``r_g + r_l``. A (rank, in) shall start random and B (out, rank) at zero, so
    that a new layer equals its frozen layer bit for bit (x + 0 is x on any machine); the model draws the first values
    (see ``roles``), here all are zero. An adapter of rank 0 has no parameters.

    Args:
        base: the frozen layer; its parameters stop requiring gradients.
        rank_global: r_g.
        alpha_global: alpha_g.
        rank_local: r_l.
        alpha_local: alpha_l.
        mix: shares with which the global and the local path act where both are active; one alone acts whole.
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
        mix: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.mix = mix
        self.base = base.requires_grad_(False)
        self.global_active = True
        self.local_active = True
        self.scale_global = alpha_global / rank_global if rank_global else 0.0
        self.scale_local = alpha_local / rank_local if rank_local else 0.0
        self._add_pair("global", rank_global)
        self._add_pair("local", rank_local)
        self._held: tuple[Tensor, Tensor] | None = None

    def _add_pair(self, adapter: str, rank: int) -> None:
        like = self.base.weight
        a = b = None
        if rank:
            a = nn.Parameter(torch.zeros(rank, self.base.in_features, device=like.device, dtype=like.dtype))
            b = nn.Parameter(torch.zeros(self.base.out_features, rank, device=like.device, dtype=like.dtype))
        self.register_parameter(f"{adapter}_a", a)
        self.register_parameter(f"{adapter}_b", b)

    def declared(self) -> dict[str, Declared]:
        """Declare the adapters (see ``roles``)."""
        declared = {
            "global_a": Declared(Role.GLOBAL_A, Start.RANDOM),
            "global_b": Declared(Role.GLOBAL_B, Start.ZERO),
            "local_a": Declared(Role.LOCAL_A, Start.RANDOM),
            "local_b": Declared(Role.LOCAL_B, Start.ZERO),
        }
        return {name: said for name, said in declared.items() if getattr(self, name) is not None}

    def hold(self, n_first: int) -> None:
        """Let only the first components of the global adapter train; the others act on as they are, until ``release``.

        They are kept beside the parameters, which are zero there in both factors. Where B and A are both zero, so are
        their gradients: neither training nor decay moves them, and clipping does not see them.

        Args:
            n_first: how many components train; those of a pair that has no more than these all do.
        """
        a, b = self.global_a, self.global_b
        if a is None or b is None or n_first >= len(a):
            return
        self._held = (a.detach()[n_first:].clone(), b.detach()[:, n_first:].clone())
        a.data[n_first:] = 0
        b.data[:, n_first:] = 0

    def release(self) -> None:
        """Put what ``hold`` kept back into the parameters, unchanged."""
        if self._held is None or self.global_a is None or self.global_b is None:
            return
        n_held = len(self._held[0])
        self.global_a.data[-n_held:], self.global_b.data[:, -n_held:] = self._held
        self._held = None

    def scales(self) -> tuple[float, float]:
        """Return by what the products of the global and of the local path are multiplied now; 0: it does not act."""
        scale_global = self.scale_global if self.global_active else 0.0
        scale_local = self.scale_local if self.local_active else 0.0
        share_global, share_local = self.mix if scale_global and scale_local else (1.0, 1.0)
        return scale_global * share_global, scale_local * share_local

    def factors(self) -> tuple[Tensor, Tensor] | None:
        """Return the active adapters as one pair: A (rank, in) and B (out, rank) with the scales folded into B."""
        scale_global, scale_local = self.scales()
        pairs: list[tuple[Tensor, Tensor]] = []
        if scale_global and self.global_a is not None and self.global_b is not None:
            pairs.append((self.global_a, self.global_b * scale_global))
            if self._held is not None:
                pairs.append((self._held[0], self._held[1] * scale_global))
        if scale_local and self.local_a is not None and self.local_b is not None:
            pairs.append((self.local_a, self.local_b * scale_local))
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


class SharedHead(nn.Module):
    """A classification head that the sites learn together: its weights are a global adapter, its bias stays.

    Computes ``y = b + (alpha_g / r) B_g A_g x`` with r one less than the number of classes, more than which a softmax
    does not see. A (r, in) starts at zero and B (n_classes, r) with the contrasts to the last class, so that the first
    steps move all weights of the head; behind a random A they would see a few random directions of x.

    Args:
        n_features: length of x.
        n_classes: number of logits, at least 2.
        scale: alpha_g / r_g of the job's global adapter.
    """

    def __init__(self, n_features: int, n_classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.global_a = nn.Parameter(torch.zeros(n_classes - 1, n_features))
        self.global_b = nn.Parameter(torch.zeros(n_classes, n_classes - 1))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def declared(self) -> dict[str, Declared]:
        """Declare the factors as a part of the global adapter, and the bias as the head (see ``roles``)."""
        return {
            "global_a": Declared(Role.GLOBAL_A, Start.ZERO),
            "global_b": Declared(Role.GLOBAL_B, Start.CONTRASTS),
            "bias": Declared(Role.HEAD, Start.ZERO),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., n_features) to logits (..., n_classes)."""
        return functional.linear(functional.linear(x, self.global_a), self.global_b * self.scale, self.bias)
