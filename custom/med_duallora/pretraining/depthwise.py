"""Depth-wise 3D convolution with a backward pass that is quick on CPUs.

torch's own input gradient of a depth-wise convolution takes ten times its forward pass there. The input gradient is
itself a depth-wise convolution with the mirrored kernel, so it is computed by the forward code.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

SPATIAL = (2, 3, 4)


def depthwise_conv(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """Apply a depth-wise "same" convolution of odd kernel to x (batch, X, Y, Z, chans)."""
    # always in float32: under autocast the CPU's bfloat16 kernel for the weight gradient is the slower one
    with torch.autocast(x.device.type, enabled=False):
        mixed = _DepthwiseConv.apply(x.float().permute(0, 4, 1, 2, 3), conv.weight, conv.bias)  # type: ignore[no-untyped-call]
    return mixed.permute(0, 2, 3, 4, 1).to(x.dtype)  # type: ignore[no-any-return]


class _DepthwiseConv(torch.autograd.Function):
    """Channels-first (batch, chans, X, Y, Z) in any memory order."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        weight = weight.contiguous(memory_format=torch.channels_last_3d)
        ctx.save_for_backward(x, weight)
        return F.conv3d(x, weight, bias, padding=_padding(weight), groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        mirrored = weight.flip(SPATIAL).contiguous(memory_format=torch.channels_last_3d)
        of_x = F.conv3d(gradient, mirrored, None, padding=_padding(weight), groups=len(weight))
        of_weight = torch.nn.grad.conv3d_weight(  # type: ignore[attr-defined]
            x, weight.shape, gradient, padding=_padding(weight), groups=len(weight)
        )
        return of_x, of_weight, gradient.sum((0, *SPATIAL))


def _padding(weight: torch.Tensor) -> tuple[int, ...]:
    return tuple(n // 2 for n in weight.shape[2:])
