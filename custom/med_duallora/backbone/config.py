"""The shape of a CineMA backbone, and the presets this package knows."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from med_duallora.errors import ConfigError
from med_duallora.settings.config import BACKBONE_NAMES

N_AXES = 3


def _check(good: bool, name: str, value: object, limit: str) -> None:
    if not good:
        raise ConfigError.of(f"backbone.{name}", value, limit)


@dataclass(frozen=True)
class BackboneConfig:
    """Architecture of a CineMA classifier for the short-axis view (CineMA, arXiv 2506.00679).

    Args:
        image_size: input voxels along x, y, z; a multiple of the total reduction.
        n_frames: frames of one subject that are stacked as input channels (2: ED and ES).
        in_chans: channels of one frame.
        patch_size: kernel and stride of the first convolutional stage.
        scale_factor: kernel and stride of the later stages and of the token embedding.
        conv_chans: channels of the convolutional stages, one entry per stage.
        conv_n_blocks: residual convolution blocks per stage.
        embed_dim: token width.
        depth: transformer blocks.
        n_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: hidden width of a block's MLP over ``embed_dim``.
        in_plane_mm: in-plane input spacing; a whole number, because prepared volumes have 1 mm pixels
            and are pooled by it.

    Raises:
        ConfigError: a value is out of range; the message quotes it and the limit.
    """

    image_size: tuple[int, ...] = (192, 192, 16)
    n_frames: int = 2
    in_chans: int = 1
    patch_size: tuple[int, ...] = (4, 4, 1)
    scale_factor: tuple[int, ...] = (2, 2, 1)
    conv_chans: tuple[int, ...] = (64, 128)
    conv_n_blocks: int = 2
    embed_dim: int = 768
    depth: int = 12
    n_heads: int = 12
    mlp_ratio: int = 4
    in_plane_mm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size", "scale_factor"):
            value = getattr(self, name)
            _check(len(value) == N_AXES and all(n >= 1 for n in value), name, value, "three numbers of at least 1")
        for name in ("n_frames", "in_chans", "conv_n_blocks", "depth", "n_heads", "mlp_ratio"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        good = bool(self.conv_chans) and all(n >= 1 for n in self.conv_chans)
        _check(good, "conv_chans", self.conv_chans, "one positive number per convolutional stage")
        _check(self.embed_dim >= 2 * N_AXES, "embed_dim", self.embed_dim, "at least 6 (sine and cosine of three axes)")
        _check(self.embed_dim % self.n_heads == 0, "n_heads", self.n_heads, f"a divisor of embed_dim {self.embed_dim}")
        divides = all(size % step == 0 for size, step in zip(self.image_size, self.reduction, strict=True))
        _check(divides, "image_size", self.image_size, f"a multiple of the total reduction {self.reduction}")
        whole = self.in_plane_mm >= 1 and float(self.in_plane_mm).is_integer()
        _check(whole, "in_plane_mm", self.in_plane_mm, "a whole number of at least 1 (prepared pixels are 1 mm)")

    @property
    def reduction(self) -> tuple[int, ...]:
        """Input voxels per token along x, y, z."""
        n_scalings = len(self.conv_chans)
        return tuple(p * s**n_scalings for p, s in zip(self.patch_size, self.scale_factor, strict=True))

    @property
    def grid_size(self) -> tuple[int, ...]:
        """Tokens along x, y, z."""
        return tuple(size // step for size, step in zip(self.image_size, self.reduction, strict=True))

    @property
    def n_tokens(self) -> int:
        """Patch tokens of one subject, without the cls token."""
        return math.prod(self.grid_size)

    @property
    def n_input_channels(self) -> int:
        """Input channels: frames times channels of a frame."""
        return self.n_frames * self.in_chans

    @classmethod
    def preset(cls, name: str) -> "BackboneConfig":
        """Return a preset by name; ConfigError lists the known ones."""
        if name not in PRESETS:
            raise ConfigError.of("backbone", name, BACKBONE_NAMES.text)
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


PRESETS = {
    # the published CineMA model
    "cinema-base": BackboneConfig(),
    # the same architecture on 2 mm pixels, small enough for a laptop; shipped pre-trained
    "cinema-mini": BackboneConfig(
        image_size=(64, 64, 14), conv_chans=(16, 32), embed_dim=192, depth=6, n_heads=6, in_plane_mm=2.0
    ),
    # milliseconds per forward pass: for tests of everything around the backbone
    "cinema-tiny": BackboneConfig(
        image_size=(32, 32, 4), conv_chans=(4, 8), conv_n_blocks=1, embed_dim=24, depth=3, n_heads=3, in_plane_mm=6.0
    ),
}
BACKBONE_NAMES.stand_in(PRESETS)
