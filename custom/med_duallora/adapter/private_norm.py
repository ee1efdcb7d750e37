"""A frozen layer norm whose scale and shift a site corrects for itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from med_duallora.adapter.roles import Declared, Role, Start


class PrivateNorm(nn.Module):
    """A frozen ``nn.LayerNorm`` with a correction of its scale and shift.

    Both corrections start at zero, so that a new layer equals its frozen one bit for bit (x + 0 is x on any machine);
    weight decay draws it back there. Source of the idea, for batch norms: FedBN (Li et al. 2021, arXiv 2102.07623).

    Args:
        base: the frozen layer, with scale and shift; its parameters stop requiring gradients.
    """

    def __init__(self, base: nn.LayerNorm) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.active = True
        self.scale_change = nn.Parameter(torch.zeros_like(base.weight))
        self.shift_change = nn.Parameter(torch.zeros_like(base.bias))

    def declared(self) -> dict[str, Declared]:
        """Declare the corrections (see ``roles``)."""
        return {name: Declared(Role.NORM, Start.ZERO) for name in ("scale_change", "shift_change")}

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift (dim,) as they act now."""
        if not self.active:
            return self.base.weight, self.base.bias
        return self.base.weight + self.scale_change, self.base.bias + self.shift_change

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., dim)."""
        return functional.layer_norm(x, self.base.normalized_shape, *self.affine(), self.base.eps)
