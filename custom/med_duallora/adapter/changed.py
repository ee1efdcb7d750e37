"""Frozen layers with a change of their own parameters, as they are and not as a low-rank product.

A change starts at zero, so that a new layer equals its frozen one bit for bit (x + 0 is x on any machine), and that a
server without the backbone's weights knows where it starts. The gradient of a change is that of the parameter itself:
training it is training the parameter. Only weight decay differs: it draws back to the frozen layer and not to zero.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from med_duallora.adapter.roles import Declared, Role, Start


class ChangedLinear(nn.Module):
    """A frozen ``nn.Linear`` with a change of its whole weight and bias: ``y = (W0 + D) x + b0 + d``.

    The sum is formed before the product, so that a step costs what full fine-tuning costs.

    Args:
        base: the frozen layer, with a bias; its parameters stop requiring gradients.
    """

    role = Role.WEIGHTS

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.active = True
        self.weight_change = nn.Parameter(torch.zeros_like(base.weight))
        self.bias_change = nn.Parameter(torch.zeros_like(base.bias))

    def declared(self) -> dict[str, Declared]:
        """Declare the changes (see ``roles``)."""
        return {name: Declared(self.role, Start.ZERO) for name in ("weight_change", "bias_change")}

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return weight (out, in) and bias (out,) as they act now."""
        if not self.active:
            return self.base.weight, self.base.bias
        return self.base.weight + self.weight_change, self.base.bias + self.bias_change

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        return functional.linear(x, *self.affine())


class ChangedNorm(nn.Module):
    """A frozen ``nn.LayerNorm`` with a change of its scale and shift.

    Source of the idea that a site keeps these for itself, for batch norms: FedBN (Li et al. 2021, arXiv 2102.07623).

    Args:
        base: the frozen layer, with scale and shift; its parameters stop requiring gradients.
    """

    role = Role.NORM

    def __init__(self, base: nn.LayerNorm) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.active = True
        self.scale_change = nn.Parameter(torch.zeros_like(base.weight))
        self.shift_change = nn.Parameter(torch.zeros_like(base.bias))

    def declared(self) -> dict[str, Declared]:
        """Declare the changes (see ``roles``)."""
        return {name: Declared(self.role, Start.ZERO) for name in ("scale_change", "shift_change")}

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift (dim,) as they act now."""
        if not self.active:
            return self.base.weight, self.base.bias
        return self.base.weight + self.scale_change, self.base.bias + self.shift_change

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (..., dim)."""
        return functional.layer_norm(x, self.base.normalized_shape, *self.affine(), self.base.eps)
