"""Strong random changes of a volume that leave the heart's measures as they are.

A network that must tell volumes and walls under any turn, contrast, coil and noise cannot learn them from what a
phantom's renderer happens to paint. ED and ES are changed alike; only their noise differs.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from med_duallora.pretraining.loop import check

FIELD_KNOTS = 4
BEND_KNOTS = 8
TEXTURE_STEP = 4
"""Voxels between the knots of the texture: 8 mm with `cinema-mini`, about a papillary muscle's thickness."""
MAX_BLUR = 4.0


@dataclass(frozen=True)
class AppearanceConfig:
    """How much a volume is changed when it is drawn.

    Args:
        rotation_degrees: largest turn in plane; slices and image axes are flipped as well where it is not 0.
        shift: largest shift in plane, in voxels of the backbone.
        gamma: standard deviation of the logarithm of the intensity exponent.
        field: standard deviation of the logarithm of the smooth multiplicative field.
        noise: largest standard deviation of the noise, where white is 1.
        blur: largest standard deviation of the Gaussian blur in plane, in voxels; half of the draws are not blurred.
        bend: largest standard deviation of a smooth displacement in plane, in voxels, alike in all slices and frames.
        texture: largest standard deviation of the logarithm of a fine multiplicative texture, another one in each
            slice and frame. With ``bend`` it stands for what no phantom has: the ragged inside of a real ventricle.
        tissue: standard deviation of the logarithm by which what lies under each map becomes brighter, alike in all
            frames that show it: what a phantom's renderer paints alike, blood left and right, no scanner does.
    """

    rotation_degrees: float = 180.0
    shift: float = 8.0
    gamma: float = 0.45
    field: float = 0.3
    noise: float = 0.06
    blur: float = 1.0
    bend: float = 1.5
    texture: float = 0.4
    tissue: float = 0.3

    def __post_init__(self) -> None:
        limits = {"rotation_degrees": 180.0, "shift": 64.0, "gamma": 3.0, "field": 3.0, "noise": 1.0}
        limits |= {"blur": MAX_BLUR, "bend": 8.0, "texture": 3.0, "tissue": 3.0}
        for name, most in limits.items():
            value = getattr(self, name)
            check(0 <= value <= most, f"appearance.{name}", value, f"between 0 and {most:g}")


def random_view(
    volume: torch.Tensor, maps: torch.Tensor, size: tuple[int, int], config: AppearanceConfig, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a changed view from the middle of a volume, and maps of the volume that were turned and shifted alike.

    Args:
        volume: float32 (frames, X, Y, Z) in [0, 1]; larger in plane than the view, so that turns bring in no black.
        maps: float32 (frames * labels, X, Y, Z) in [0, 1] on the volume's voxels, those of the first frame first; their
            values are not changed. There may be none.
        size: voxels of the view in plane.
        config: ranges.
        rng: the only source of randomness.

    Returns:
        float32 (frames, *size, Z) and (maps, *size, Z), both in [0, 1].
    """
    slices = torch.cat([volume, maps]).permute(0, 3, 1, 2)
    if config.rotation_degrees and rng.random() < 0.5:
        slices = slices.flip(1)
    moved = _moved(slices, size, config, rng)
    view, maps = moved[: len(volume)], moved[len(volume) :]
    view = view * _texture(view.shape, config.texture * rng.random(), rng)
    if len(maps):
        view = view * _brightness(maps, len(view), config.tissue, rng)
    view = (view * _field(view.shape, config.field, rng)).clamp(0, 1)
    view = view ** math.exp(config.gamma * rng.standard_normal())
    view = _blurred(view, max(0.0, config.blur * rng.uniform(-1, 1)))
    noise = torch.from_numpy(rng.standard_normal(tuple(view.shape), dtype=np.float32))
    view = view + config.noise * rng.random() * noise
    return view.clamp(0, 1).permute(0, 2, 3, 1), maps.permute(0, 2, 3, 1)


def _moved(
    slices: torch.Tensor, size: tuple[int, int], config: AppearanceConfig, rng: np.random.Generator
) -> torch.Tensor:
    """Turn, mirror, shift and bend (frames, Z, X, Y) in plane; where nothing is drawn, the middle is cut out."""
    angle = math.radians(config.rotation_degrees * rng.uniform(-1, 1))
    mirror = -1.0 if rng.random() < 0.5 and config.rotation_degrees else 1.0
    shift = config.shift * rng.uniform(-1, 1, 2)
    (n_frames, n_slices, nx, ny), (out_x, out_y) = slices.shape, size
    cos, sin = math.cos(angle), math.sin(angle)
    # torch's coordinates: y of the last axis first, and 1 is the edge of either image
    matrix = [
        [mirror * cos * out_y / ny, -sin * out_x / ny, 2 * shift[1] / ny],
        [mirror * sin * out_y / nx, cos * out_x / nx, 2 * shift[0] / nx],
    ]
    grid = F.affine_grid(torch.tensor([matrix], dtype=torch.float32), [1, 1, out_x, out_y], align_corners=False)
    knots = config.bend * rng.random() * rng.standard_normal((1, 2, BEND_KNOTS, BEND_KNOTS))
    moved_by = torch.from_numpy((knots * np.array([2 / ny, 2 / nx])[:, None, None]).astype(np.float32))
    grid = grid + F.interpolate(moved_by, size=[out_x, out_y], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    flat = slices.reshape(1, n_frames * n_slices, nx, ny)
    moved = F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved.reshape(n_frames, n_slices, out_x, out_y)


def _field(shape: torch.Size, deviation: float, rng: np.random.Generator) -> torch.Tensor:
    """Return a smooth positive field of mean 1 for (frames, Z, X, Y): the same for all frames."""
    _, n_slices, nx, ny = shape
    knots = rng.standard_normal((1, 1, 2, FIELD_KNOTS, FIELD_KNOTS)).astype(np.float32)
    logarithm = F.interpolate(
        torch.from_numpy(deviation * knots), size=[n_slices, nx, ny], mode="trilinear", align_corners=True
    )
    field = logarithm[0].exp()
    return field / field.mean()


def _texture(shape: torch.Size, deviation: float, rng: np.random.Generator) -> torch.Tensor:
    """Return a fine positive field for (frames, Z, X, Y), drawn anew in every slice."""
    n_frames, n_slices, nx, ny = shape
    knots = rng.standard_normal((n_frames, n_slices, nx // TEXTURE_STEP + 1, ny // TEXTURE_STEP + 1), dtype=np.float32)
    logarithm = F.interpolate(torch.from_numpy(deviation * knots), size=[nx, ny], mode="bilinear", align_corners=True)
    return logarithm.exp()


def _brightness(maps: torch.Tensor, n_frames: int, deviation: float, rng: np.random.Generator) -> torch.Tensor:
    """Return by what (frames, Z, X, Y) are multiplied, from maps (frames * labels, Z, X, Y)."""
    by_frame = maps.unflatten(0, (n_frames, -1))  # type: ignore[no-untyped-call]
    logarithm = torch.from_numpy(deviation * rng.standard_normal(by_frame.shape[1])).float()
    brighter: torch.Tensor = (by_frame * logarithm.reshape(1, -1, 1, 1, 1)).sum(1).exp()
    return brighter


def _blurred(view: torch.Tensor, deviation: float) -> torch.Tensor:
    """Blur (frames, Z, X, Y) in plane; the edge is continued."""
    radius = math.ceil(3 * deviation)
    if not radius:
        return view
    places = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    images = view.reshape(-1, 1, *view.shape[2:])
    padded = F.pad(images, [radius] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.reshape(1, 1, -1, 1))
    return F.conv2d(rows, kernel.reshape(1, 1, 1, -1)).reshape(view.shape)
