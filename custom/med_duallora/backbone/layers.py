"""Layers of the CineMA transformer and its convolutional stem, channels last throughout.

Convolutions whose kernel equals their stride, and 1 x 1 x 1 convolutions, are matrix products over the last axis;
that is several times faster on a CPU than a general convolution and lets the masked autoencoder run them on the
visible patches alone. Parameters keep the shapes of ``nn.Conv3d``, so published checkpoints load unchanged.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

CONV_NORM_EPS = 1e-6
VIT_NORM_EPS = 1e-5

# applies a depth-wise convolution to a channels-last tensor; the masked autoencoder passes its own
Mixer = Callable[[nn.Conv3d, torch.Tensor], torch.Tensor]


def patchify(x: torch.Tensor, patch_size: tuple[int, ...]) -> torch.Tensor:
    """Cut (batch, X, Y, Z, chans) into (batch, x, y, z, px*py*pz*chans) patches, channel fastest."""
    (batch, *size, chans), (px, py, pz) = x.shape, patch_size
    nx, ny, nz = (n // p for n, p in zip(size, patch_size, strict=True))
    x = x.reshape(batch, nx, px, ny, py, nz, pz, chans)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, nx, ny, nz, px * py * pz * chans)


def mix_dense(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
    """Apply a depth-wise convolution to a whole (batch, X, Y, Z, chans) grid."""
    # the permuted view is torch's channels_last_3d layout, for which the CPU and CUDA kernels are fastest
    weight = conv.weight.contiguous(memory_format=torch.channels_last_3d)
    mixed = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, conv.bias, padding="same", groups=conv.groups)
    return mixed.permute(0, 2, 3, 4, 1)


class PointConv(nn.Conv3d):
    """1 x 1 x 1 convolution over the last axis of (..., chans)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., n_in) to (..., n_out)."""
        return F.linear(x, self.weight.flatten(1), self.bias)


class PatchConv(nn.Conv3d):
    """Convolution with kernel = stride on (batch, X, Y, Z, chans)."""

    def __init__(self, n_in: int, n_out: int, patch_size: tuple[int, ...]) -> None:
        super().__init__(n_in, n_out, kernel_size=patch_size, stride=patch_size)  # type: ignore[arg-type]
        self.patch_size = patch_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, X, Y, Z, n_in) to (batch, X/px, Y/py, Z/pz, n_out)."""
        weight = self.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return F.linear(patchify(x, self.patch_size), weight, self.bias)


class ConvMlp(nn.Module):
    """Point-wise MLP of a convolution block."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = PointConv(dim, hidden)
        self.fc2 = PointConv(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., dim) to (..., dim)."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class ConvBlock(nn.Module):
    """Residual block of the stem: 5 x 5 x 5 depth-wise mixing, then a point-wise MLP, both pre-normed."""

    def __init__(self, dim: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.norm1 = nn.LayerNorm(dim, eps=CONV_NORM_EPS)
        self.norm2 = nn.LayerNorm(dim, eps=CONV_NORM_EPS)
        self.conv1 = PointConv(dim, dim)
        self.dw_conv = nn.Conv3d(dim, dim, kernel_size=5, padding="same", groups=dim)
        self.conv2 = PointConv(dim, dim)
        self.mlp = ConvMlp(dim, dim * mlp_ratio)

    def forward(self, x: torch.Tensor, mix: Mixer = mix_dense) -> torch.Tensor:
        """Map (batch, X, Y, Z, dim) to the same shape; ``mix`` applies the depth-wise convolution."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, mix, use_reentrant=False)  # type: ignore[no-any-return]
        return self._forward(x, mix)

    def _forward(self, x: torch.Tensor, mix: Mixer) -> torch.Tensor:
        x = x + self.conv2(mix(self.dw_conv, self.conv1(self.norm1(x))))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class ConvStage(nn.Module):
    """Stage of the stem: strided convolution, norm and GELU, then residual blocks."""

    def __init__(self, n_in: int, n_out: int, patch_size: tuple[int, ...], n_blocks: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict(
            {"conv": PatchConv(n_in, n_out, patch_size), "norm": nn.LayerNorm(n_out, eps=CONV_NORM_EPS)}
        )
        self.conv = nn.ModuleList(ConvBlock(n_out) for _ in range(n_blocks))

    def forward(self, x: torch.Tensor, mix: Mixer = mix_dense) -> torch.Tensor:
        """Map (batch, X, Y, Z, n_in) to (batch, X/px, Y/py, Z/pz, n_out)."""
        x = F.gelu(self.patch_embed["norm"](self.patch_embed["conv"](x)))
        for block in self.conv:
            x = block(x, mix)
        return x


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention over (batch, heads, tokens, head dim)."""
    if q.device.type != "cpu" or q.dtype == torch.float32:
        return F.scaled_dot_product_attention(q, k, v)
    # on CPUs the reduced-precision kernel's backward pass takes three times as long as the float32 one
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with separate query and joint key-value projections."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Attend from x (batch, n, dim) to ``context`` (batch, m, dim), or to x itself."""
        (batch, n, dim), heads = x.shape, self.n_heads
        q = self.q(x).reshape(batch, n, heads, dim // heads).transpose(1, 2)
        kv = self.kv(x if context is None else context).reshape(batch, -1, 2, heads, dim // heads)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, n, dim))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two-layer perceptron with exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., dim) to (..., dim)."""
        return self.fc2(F.gelu(self.fc1(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block; with ``context`` it attends across instead of to itself (no norm on the context).

    Args:
        dim: token width.
        n_heads: attention heads.
        mlp_ratio: hidden width over ``dim``.
        drop_path: probability that a sample skips a residual branch in training (stochastic depth).
    """

    def __init__(self, dim: int, n_heads: int, mlp_ratio: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.gradient_checkpointing = False
        self.norm1 = nn.LayerNorm(dim, eps=VIT_NORM_EPS)
        self.attn = Attention(dim, n_heads)
        self.norm2 = nn.LayerNorm(dim, eps=VIT_NORM_EPS)
        self.mlp = Mlp(dim, dim * mlp_ratio)

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map tokens (batch, n, dim) to the same shape."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, context, use_reentrant=False)  # type: ignore[no-any-return]
        return self._forward(x, context)

    def _forward(self, x: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        x = x + self._drop(self.attn(self.norm1(x), context))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        mask = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep)
        return branch * mask / keep


def initialise(module: nn.Module, seed: int) -> None:
    """Fill every parameter in place from ``seed`` alone; the global random state is neither read nor changed.

    Linear weights are Xavier uniform, convolutions uniform by fan-in, tokens normal (sd 0.02), biases 0, norms 1.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                _fill(owner, name, parameter, generator)


def _fill(owner: nn.Module, name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    if name == "bias":
        parameter.zero_()
    elif isinstance(owner, nn.LayerNorm):
        parameter.fill_(1)
    elif isinstance(owner, nn.Linear):
        nn.init.xavier_uniform_(parameter, generator=generator)
    elif isinstance(owner, nn.Conv3d):
        bound = parameter[0].numel() ** -0.5
        parameter.uniform_(-bound, bound, generator=generator)
    else:
        parameter.normal_(0, 0.02, generator=generator)
