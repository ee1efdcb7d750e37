"""The masked autoencoder of CineMA (arXiv 2506.00679) for the short-axis view.

A quarter of the patches is visible. The encoder sees nothing else: the stem's convolutions mix over a grid whose
masked places are zero. A small decoder queries the encoded visible patches from every masked place (cross-attention)
and a linear head predicts the voxels there. Only masked patches enter the loss.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from med_duallora.backbone.classifier import VIEW, Backbone, position_embedding
from med_duallora.backbone.config import BackboneConfig
from med_duallora.backbone.layers import VIT_NORM_EPS, Attention, Block, initialise, patchify
from med_duallora.errors import ConfigError
from med_duallora.pretraining.depthwise import depthwise_conv

NORM_EPS = 1e-6


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder, which is thrown away after pre-training.

    Args:
        embed_dim: token width.
        depth: cross-attention blocks.
        n_heads: attention heads; divides ``embed_dim``.
    """

    embed_dim: int
    depth: int
    n_heads: int

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.depth, self.n_heads) < 1 or self.embed_dim % self.n_heads:
            raise ConfigError(f"{self}: all must be positive and n_heads must divide embed_dim")


DECODERS = {
    "cinema-base": DecoderConfig(512, 8, 16),
    "cinema-mini": DecoderConfig(96, 2, 4),
    "cinema-tiny": DecoderConfig(12, 1, 2),
}


@dataclass(frozen=True)
class PatchMask:
    """Which patches the encoder sees.

    Args:
        visible: sorted indices of visible patches (batch, n_visible).
        masked: sorted indices of the others (batch, n_masked).
    """

    visible: torch.Tensor
    masked: torch.Tensor

    @classmethod
    def draw(cls, n_samples: int, n_patches: int, mask_ratio: float, generator: torch.Generator) -> "PatchMask":
        """Mask each sample at random; ``int(n_patches * (1 - mask_ratio))`` patches stay visible.

        Raises:
            ConfigError: no patch would be visible, or none masked.
        """
        n_visible = int(n_patches * (1 - mask_ratio))
        if not 0 < n_visible < n_patches:
            raise ConfigError(f"mask_ratio = {mask_ratio} leaves {n_visible} of {n_patches} patches visible")
        order = torch.rand(n_samples, n_patches, generator=generator).argsort(1)
        return cls(order[:, :n_visible].sort(1).values, order[:, n_visible:].sort(1).values)


def take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Pick rows: values (batch or 1, n, dim) at index (batch, k) give (batch, k, dim)."""
    values = values.expand(index.shape[0], -1, -1)
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


class VisibleMixer:
    """Depth-wise convolution of visible patches only: the masked places of the grid are zero.

    The stem then runs on the visible patches as a batch of small images, a quarter of the work.

    Args:
        visible: (batch, n_visible) indices into the token grid.
        grid_size: tokens along x, y, z.
    """

    def __init__(self, visible: torch.Tensor, grid_size: tuple[int, ...]) -> None:
        self.visible = visible
        self.grid_size = grid_size

    def __call__(self, conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
        """Map (batch*n_visible, vx, vy, vz, chans) to the same shape."""
        (n_samples, n_visible), (gx, gy, gz) = self.visible.shape, self.grid_size
        _, vx, vy, vz, chans = x.shape
        rows = x.reshape(n_samples, n_visible, -1)
        index = self.visible.unsqueeze(-1).expand_as(rows)
        cubes = rows.new_zeros(n_samples, gx * gy * gz, rows.shape[-1]).scatter(1, index, rows)
        grid = cubes.reshape(n_samples, gx, gy, gz, vx, vy, vz, chans).permute(0, 1, 4, 2, 5, 3, 6, 7)
        mixed = depthwise_conv(conv, grid.reshape(n_samples, gx * vx, gy * vy, gz * vz, chans))
        mixed = mixed.reshape(n_samples, gx, vx, gy, vy, gz, vz, chans).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return mixed.reshape(n_samples, gx * gy * gz, -1).gather(1, index).reshape(x.shape)


class DecoderTokens(nn.Module):
    """The mask token and the decoder's fixed position embedding."""

    pos_embed: torch.Tensor

    def __init__(self, dim: int, grid_size: tuple[int, ...]) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("pos_embed", position_embedding(dim, grid_size), persistent=False)


class Decoder(nn.Module):
    """Cross-attention blocks and the final norm."""

    def __init__(self, config: DecoderConfig, mlp_ratio: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.embed_dim, config.n_heads, mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=VIT_NORM_EPS)

    def forward(self, queries: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Let queries (batch, n, dim) attend to context (batch, m, dim)."""
        for block in self.blocks:
            queries = block(queries, context)
        return self.norm(queries)  # type: ignore[no-any-return]


def _align_attention(module: nn.Module) -> None:
    """Start every key projection as a copy of its query projection.

    Attention then begins as similarity: places attend to near places, because their position embeddings are alike
    (the idea of mimetic initialisation, Trockman and Kolter 2023). Short runs would otherwise be spent on finding it.
    """
    with torch.no_grad():
        for attention in (part for part in module.modules() if isinstance(part, Attention)):
            attention.kv.weight[: len(attention.q.weight)] = attention.q.weight


class MaskedAutoencoder(Backbone):
    """CineMA's masked autoencoder with one view; parameter names are those of its published checkpoint.

    Args:
        config: the backbone.
        decoder: shape of the decoder.
        seed: of the initial weights; the global random state is left alone.
        n_frames: frames that are seen and reconstructed together, as channels: 1 as CineMA does (a classifier then
            repeats the first convolution), or the backbone's ``n_frames``.
    """

    def __init__(self, config: BackboneConfig, decoder: DecoderConfig, seed: int = 0, n_frames: int = 1) -> None:
        with torch.random.fork_rng(devices=[]):
            n_channels = n_frames * config.in_chans
            super().__init__(config, n_channels)
            self.n_channels, dim = n_channels, decoder.embed_dim
            n_values = n_channels * math.prod(config.reduction)
            self.dec_linear = nn.Linear(config.embed_dim, dim)
            self.dec_embed_dict = nn.ModuleDict({VIEW: DecoderTokens(dim, config.grid_size)})
            self.decoder = Decoder(decoder, config.mlp_ratio)
            self.pred_head_dict = nn.ModuleDict({VIEW: nn.Linear(dim, n_values)})
        initialise(self, seed)
        _align_attention(self)

    def patches(self, image: torch.Tensor) -> torch.Tensor:
        """Cut (batch, chans, X, Y, Z) into token patches (batch, n, voxels*chans), channel fastest.

        Raises:
            ConfigError: the image is not of the configured size.
        """
        expected = (self.n_channels, *self.config.image_size)
        if tuple(image.shape[1:]) != expected:
            raise ConfigError(f"image of shape {tuple(image.shape)}, but it must be (batch, {expected})")
        return patchify(image.permute(0, 2, 3, 4, 1), self.config.reduction).flatten(1, 3)

    def encode(self, patches: torch.Tensor, mask: PatchMask) -> torch.Tensor:
        """Encode the visible patches: (batch, 1+n_visible, dim), cls first, patches fused with the stem's stages."""
        n_samples, n_visible = mask.visible.shape
        cubes = take(patches, mask.visible).reshape(-1, *self.config.reduction, self.n_channels)
        mixer = VisibleMixer(mask.visible, self.config.grid_size)
        tokens, skips = self.token_embedding.stem(cubes, mixer)
        dim = tokens.shape[-1]
        hidden = tokens.reshape(n_samples, n_visible, dim) + take(self.token_embedding.pos_embed, mask.visible)
        hidden = self.with_cls(hidden)
        for block in self.blocks:
            hidden = block(hidden)
        features = self.finish(hidden, self.fusion_term(skips).reshape(n_samples, n_visible, dim))
        return torch.cat(features, dim=1)

    def decode(self, encoded: torch.Tensor, mask: PatchMask) -> torch.Tensor:
        """Predict the masked patches (batch, n_masked, values) from (batch, 1+n_visible, dim)."""
        embedding: DecoderTokens = self.dec_embed_dict[VIEW]  # type: ignore[assignment]
        tokens = self.dec_linear(encoded)
        # the cls token is part of the context, so that it learns to sum the volume up, as in the original MAE
        context = torch.cat([tokens[:, :1], tokens[:, 1:] + take(embedding.pos_embed, mask.visible)], dim=1)
        queries = embedding.mask_token + take(embedding.pos_embed, mask.masked)
        return self.pred_head_dict[VIEW](self.decoder(queries, context))  # type: ignore[no-any-return]

    def forward(
        self, image: torch.Tensor, mask: PatchMask, norm_target: bool = False, motion_weight: float = 1.0
    ) -> torch.Tensor:
        """Return the mean squared error on the masked patches.

        Args:
            image: what is masked and reconstructed (batch, chans, X, Y, Z).
            mask: which patches are visible.
            norm_target: compare with patches of mean 0 and standard deviation 1.
            motion_weight: weight of the frames' deviations from their mean; 1 is the plain squared error. What
                moves between ED and ES is a small part of the image, and what a classifier needs.
        """
        patches = self.patches(image)
        target = take(patches, mask.masked)
        if norm_target:
            target = (target - target.mean(-1, keepdim=True)) / (target.std(-1, keepdim=True) + NORM_EPS)
        error = self.decode(self.encode(patches, mask), mask).float() - target
        # channel runs fastest, frames are the slower part of it
        n_frames = self.n_channels // self.config.in_chans
        frames = error.reshape(*error.shape[:-1], -1, n_frames, self.config.in_chans)
        common = frames.mean(-2, keepdim=True)
        motion = (frames - common).square().mean()
        return common.square().mean() + motion_weight * motion
