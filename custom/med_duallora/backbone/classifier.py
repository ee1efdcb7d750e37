"""The CineMA classifier for the short-axis view (CineMA, arXiv 2506.00679), in pieces that can be run apart.

The pieces exist because the trunk is frozen: ``embed``, ``fusion_term`` and the first blocks are computed once per
volume and cached, and only the last blocks, ``finish`` and ``head`` run in training.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from med_duallora.backbone.config import BackboneConfig
from med_duallora.backbone.layers import (
    VIT_NORM_EPS,
    Block,
    ConvBlock,
    ConvStage,
    Mixer,
    PatchConv,
    mix_dense,
    patchify,
)
from med_duallora.errors import ConfigError

VIEW = "sax"
REDUCTIONS = ("all", "patch", "cls")


def position_embedding(dim: int, grid_size: tuple[int, ...]) -> torch.Tensor:
    """Return the fixed sine-cosine position embedding (1, n_tokens, dim).

    The grid is enumerated by numpy's default "xy" meshgrid, as the published weights expect.
    """
    per_axis = dim // len(grid_size) // 2 * 2
    omega = np.exp(-np.log(10000) * np.arange(per_axis // 2, dtype=np.float32) / (per_axis // 2))
    positions = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grid_size))
    angles = [position.reshape(-1, 1) * omega for position in positions]
    parts = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    embedding = np.concatenate(parts, axis=1)
    padded = np.pad(embedding, ((0, 0), (0, dim - embedding.shape[1])))
    return torch.from_numpy(padded).float().unsqueeze(0)


class TokenEmbedding(nn.Module):
    """Convolutional stem and token embedding: the image becomes tokens with their position.

    Args:
        config: the architecture.
        n_input_channels: channels of the input image.
    """

    pos_embed: torch.Tensor

    def __init__(self, config: BackboneConfig, n_input_channels: int) -> None:
        super().__init__()
        self.grid_size = config.grid_size
        self.reduction = config.reduction
        self.scale_factor = config.scale_factor
        chans = (n_input_channels, *config.conv_chans)
        self.conv_blocks = nn.ModuleList(
            ConvStage(chans[i], chans[i + 1], config.scale_factor if i else config.patch_size, config.conv_n_blocks)
            for i in range(len(config.conv_chans))
        )
        n_values = int(np.prod(config.scale_factor)) * chans[-1]
        self.patch_embed = nn.ModuleDict({"proj": nn.Linear(n_values, config.embed_dim)})
        self.linear = nn.Linear(config.embed_dim, config.embed_dim)
        position = position_embedding(config.embed_dim, config.grid_size)
        self.register_buffer("pos_embed", position, persistent=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Embed an image (batch, chans, X, Y, Z).

        Returns:
            Tokens with position (batch, n_tokens, dim), x-major, then y, then z; and the output of each stage,
            channels last (batch, x, y, z, chans).

        Raises:
            ConfigError: the image size is not a multiple of the total reduction.
        """
        size = tuple(image.shape[2:])
        if any(n % step for n, step in zip(size, self.reduction, strict=True)):
            raise ConfigError(f"input of {size} voxels, but each axis must be a multiple of {self.reduction}")
        tokens, skips = self.stem(image.permute(0, 2, 3, 4, 1))
        grid = tuple(n // step for n, step in zip(size, self.reduction, strict=True))
        return tokens.flatten(1, 3) + self.position(grid), skips

    def stem(self, x: torch.Tensor, mix: Mixer = mix_dense) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run the stages on (batch, X, Y, Z, chans); tokens (batch, x, y, z, dim) come without position."""
        skips = []
        for stage in self.conv_blocks:
            x = stage(x, mix)
            skips.append(x)
        return self.linear(self.patch_embed["proj"](patchify(x, self.scale_factor))), skips

    def position(self, grid: tuple[int, ...]) -> torch.Tensor:
        """Return the position embedding (1, n_tokens, dim), interpolated where ``grid`` is not the configured one."""
        if grid == self.grid_size:
            return self.pos_embed
        volume = self.pos_embed.reshape(1, *self.grid_size, -1).permute(0, 4, 1, 2, 3)
        resized = F.interpolate(volume, size=list(grid), mode="trilinear")
        return resized.permute(0, 2, 3, 4, 1).flatten(1, 3)


class SkipFusion(nn.Module):
    """Adds the stem's stages, brought to the token grid, to the encoded tokens."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.down_convs = nn.ModuleList()
        kernel = config.reduction
        for i, n_chans in enumerate(config.conv_chans):
            step = config.scale_factor if i else config.patch_size
            kernel = tuple(k // s for k, s in zip(kernel, step, strict=True))
            self.down_convs.append(PatchConv(n_chans, config.embed_dim, kernel))
        self.norm = nn.LayerNorm(config.embed_dim, eps=VIT_NORM_EPS)

    def term(self, skips: list[torch.Tensor]) -> torch.Tensor:
        """Sum the stages on the token grid: (batch, n_tokens, dim)."""
        terms = [conv(skip).flatten(1, 3) for conv, skip in zip(self.down_convs, skips, strict=True)]
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]


class Encoder(nn.Module):
    """The transformer: cls token, blocks and the final norm."""

    def __init__(self, config: BackboneConfig, drop_path: float) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.n_heads, config.mlp_ratio, drop_path) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=VIT_NORM_EPS)


class Backbone(nn.Module):
    """Everything before the head; the classifier and the masked autoencoder share it.

    Args:
        config: the architecture.
        n_input_channels: channels of the input image.
        drop_path: stochastic depth of the transformer blocks in training.
    """

    def __init__(self, config: BackboneConfig, n_input_channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.enc_down_dict = nn.ModuleDict({VIEW: TokenEmbedding(config, n_input_channels)})
        self.enc_fusion_dict = nn.ModuleDict({VIEW: SkipFusion(config)})
        self.encoder = Encoder(config, drop_path)

    @property
    def token_embedding(self) -> TokenEmbedding:
        """The convolutional stem and token embedding."""
        return self.enc_down_dict[VIEW]  # type: ignore[return-value]

    @property
    def fusion(self) -> SkipFusion:
        """The skip fusion after the encoder."""
        return self.enc_fusion_dict[VIEW]  # type: ignore[return-value]

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks."""
        return self.encoder.blocks

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks recompute their activations in the backward pass: less memory, a second forward pass."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self._checkpointed())

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        for module in self._checkpointed():
            module.gradient_checkpointing = enable

    def _checkpointed(self) -> list[Block | ConvBlock]:
        return [module for module in self.modules() if isinstance(module, Block | ConvBlock)]

    def with_cls(self, tokens: torch.Tensor) -> torch.Tensor:
        """Prepend the cls token: (batch, n, dim) to (batch, 1+n, dim)."""
        return torch.cat([self.encoder.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def fusion_term(self, skips: list[torch.Tensor]) -> torch.Tensor:
        """Return what ``finish`` adds to the encoded patch tokens: (batch, n, dim)."""
        return self.fusion.term(skips)

    def finish(self, block_output: torch.Tensor, fusion_term: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm and fuse the last block's output.

        Args:
            block_output: (batch, 1+n, dim).
            fusion_term: (batch, n, dim) from ``fusion_term``.

        Returns:
            The cls feature (batch, 1, dim), which is not fused, and the patch features (batch, n, dim).
        """
        encoded = self.encoder.norm(block_output)
        return encoded[:, :1], self.fusion.norm(encoded[:, 1:] + fusion_term)


class CineMAClassifier(Backbone):
    """CineMA with a linear head on the cls token and one on the mean patch token.

    Args:
        config: the architecture.
        n_classes: number of classes.
        drop_path: stochastic depth of the transformer blocks in training.
    """

    def __init__(self, config: BackboneConfig, n_classes: int = 2, drop_path: float = 0.0) -> None:
        super().__init__(config, config.n_input_channels, drop_path)
        self.pred_head_dict = nn.ModuleDict(
            {VIEW: nn.Linear(config.embed_dim, n_classes), "cls": nn.Linear(config.embed_dim, n_classes)}
        )

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Turn x (batch, n_frames*in_chans, X, Y, Z) into tokens with position (batch, n, dim) and stage outputs.

        Raises:
            ConfigError: wrong number of channels or axes, or a size that is not a multiple of the total reduction.
        """
        expected = self.config.n_input_channels
        if x.ndim != 5 or x.shape[1] != expected:
            raise ConfigError(f"input of shape {tuple(x.shape)}, but it must be (batch, {expected}, X, Y, Z)")
        return self.token_embedding(x)  # type: ignore[no-any-return]

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cls feature (batch, 1, dim) and the fused patch features (batch, n, dim) of x."""
        tokens, skips = self.embed(x)
        hidden = self.with_cls(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.finish(hidden, self.fusion_term(skips))

    def head(self, features_cls: torch.Tensor, features_sax: torch.Tensor, reduce: str = "all") -> torch.Tensor:
        """Return logits (batch, n_classes); ``reduce``: mean of both heads (all), patch head or cls head alone.

        Raises:
            ConfigError: ``reduce`` is unknown.
        """
        if reduce not in REDUCTIONS:
            raise ConfigError.of("reduce", reduce, f"one of {', '.join(REDUCTIONS)}")
        logits = []
        if reduce != "cls":
            logits.append(self.pred_head_dict[VIEW](features_sax.mean(1)))
        if reduce != "patch":
            logits.append(self.pred_head_dict["cls"](features_cls[:, 0]))
        return torch.stack(logits).mean(0)

    def forward(self, x: torch.Tensor, reduce: str = "all") -> torch.Tensor:
        """Return logits (batch, n_classes) of x (batch, n_frames*in_chans, X, Y, Z)."""
        return self.head(*self.features(x), reduce)
