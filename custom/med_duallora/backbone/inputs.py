"""Prepared volumes become what a backbone reads: intensity scale, in-plane pooling, cropping and padding.

Random changes (``augment``) happen on the prepared 1 mm volume, before anything else, so that one recipe serves every
backbone. Both functions are pure; a random change depends on its arguments and its generator alone.
"""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from med_duallora.backbone.config import BackboneConfig
from med_duallora.errors import CohortError
from med_duallora.settings.config import AugmentConfig

Volume = npt.NDArray[Any]
FloatVolume = npt.NDArray[np.float32]

# part of the address of cached features: raise it when the numbers that these functions return change
INPUTS_VERSION = 1


def to_unit_range(volume: Volume) -> FloatVolume:
    """Return float32 in [0, 1]: uint8 is divided by 255, floating-point values are taken to be there already.

    Raises:
        CohortError: another type, or a floating-point value outside [0, 1].
    """
    if volume.dtype == np.uint8:
        scaled: FloatVolume = volume.astype(np.float32) / np.float32(255)
        return scaled
    if volume.dtype.kind != "f":
        raise CohortError(f"volume of type {volume.dtype}, but it must be uint8 or floating point in [0, 1]")
    if volume.size and not (volume.min() >= 0 and volume.max() <= 1):
        raise CohortError(f"volume with values from {volume.min()} to {volume.max()}, but they must be in [0, 1]")
    return volume.astype(np.float32, copy=False)


def fit_length(volume: Volume, axis: int, size: int) -> Volume:
    """Crop ``axis`` around its centre or pad it with zeros at its end, to ``size`` voxels."""
    n = volume.shape[axis]
    if n > size:
        lower = (n - size) // 2
        return volume.take(range(lower, lower + size), axis=axis)
    widths = [(0, 0)] * volume.ndim
    widths[axis] = (0, size - n)
    return np.pad(volume, widths) if n < size else volume


def to_input(volume: Volume, config: BackboneConfig) -> FloatVolume:
    """Turn a prepared volume into a backbone's input.

    x and y are cropped around the centre or zero-padded at the end to the backbone's field of view and pooled by
    ``in_plane_mm`` (mean); z is cropped around its centre or zero-padded at its end.

    Args:
        volume: (channels, X, Y, Z) on 1 x 1 x 10 mm; uint8, or floating point in [0, 1].
        config: the backbone; channels must be its ``n_input_channels`` (ED and ES).

    Returns:
        (channels, *image_size), float32 in [0, 1].

    Raises:
        CohortError: wrong axes, channels, type or range.
    """
    n_channels = config.n_input_channels
    if volume.ndim != 4 or volume.shape[0] != n_channels or 0 in volume.shape:
        raise CohortError(f"volume of shape {volume.shape}, but it must be ({n_channels}, X, Y, Z) and not empty")
    return pool_to_grid(to_unit_range(volume), config)


def pool_to_grid(volume: FloatVolume, config: BackboneConfig) -> FloatVolume:
    """Crop, pad and pool float32 (channels, X, Y, Z) on 1 mm pixels to (channels, *image_size)."""
    (nx, ny, nz), step = config.image_size, int(config.in_plane_mm)
    for axis, size in ((1, nx * step), (2, ny * step), (3, nz)):
        volume = fit_length(volume, axis, size)
    if step == 1:
        return np.ascontiguousarray(volume)
    pooled = volume.reshape(len(volume), nx, step, ny, step, nz).mean(axis=(2, 4), dtype=np.float32)
    return np.ascontiguousarray(pooled)


def augment(volume: Volume, config: AugmentConfig, rng: np.random.Generator) -> FloatVolume:
    """Change a prepared volume at random, ED and ES alike: gamma, then rotation about z, shift and zoom in plane.

    Args:
        volume: (channels, X, Y, Z) on 1 mm pixels; uint8, or floating point in [0, 1].
        config: ranges and probabilities.
        rng: the only source of randomness; the same number of draws is taken whatever happens.

    Returns:
        float32 in [0, 1] of the same shape; where the image moved out, it is 0.

    Raises:
        CohortError: wrong type or range.
    """
    with_gamma, with_affine = rng.random(2) < config.probability
    gamma = rng.uniform(config.gamma[0], config.gamma[-1])
    angle = np.deg2rad(rng.uniform(-config.rotation_degrees, config.rotation_degrees))
    shift = rng.uniform(-config.shift_mm, config.shift_mm, size=2)
    zoom = rng.uniform(1 - config.scale, 1 + config.scale)
    changed = to_unit_range(volume)
    if with_gamma:
        changed = _adjust_contrast(changed, gamma)
    if with_affine:
        changed = _move(changed, angle, shift, zoom)
    clipped: FloatVolume = np.clip(changed, 0, 1)
    return clipped


def _adjust_contrast(volume: FloatVolume, gamma: float) -> FloatVolume:
    """Raise intensities, scaled to [0, 1] over the whole volume, to the power of ``gamma``."""
    image = torch.from_numpy(np.ascontiguousarray(volume))  # the order of the voxels decides the last bit of later sums
    lowest = image.min()
    extent = image.max() - lowest
    changed = ((image - lowest) / float(extent + 1e-7)) ** gamma * extent + lowest
    return cast(FloatVolume, changed.numpy())


def _move(volume: FloatVolume, angle: float, shift_mm: npt.NDArray[np.float64], zoom: float) -> FloatVolume:
    """Rotate, shift and zoom every slice alike: slices become channels, which spares interpolation along z.

    What MONAI's ``Affine`` gives, to the last bit where the tests compare them; a process that trains does without
    MONAI, which takes several seconds to load.
    """
    n_channels, nx, ny, nz = volume.shape
    slices = torch.from_numpy(volume.transpose(0, 3, 1, 2).reshape(1, n_channels * nz, nx, ny))
    places = torch.meshgrid(*(torch.linspace(-(n - 1) / 2, (n - 1) / 2, n) for n in (nx, ny)), indexing="ij")
    about_centre = torch.stack([*places, torch.ones(nx, ny)]).view(3, -1)
    x, y, _ = (_affine(angle, shift_mm, zoom) @ about_centre).view(3, nx, ny)
    # grid_sample counts axes from the last one
    sampled = torch.stack([y * (2 / max(2, ny)), x * (2 / max(2, nx))], dim=-1)[None]
    moved = functional.grid_sample(slices, sampled, mode="bilinear", padding_mode="zeros", align_corners=False)
    return cast(FloatVolume, moved.numpy().reshape(n_channels, nz, nx, ny).transpose(0, 2, 3, 1))


def _affine(angle: float, shift: npt.NDArray[np.float64], zoom: float) -> torch.Tensor:
    """Return where a voxel of the result is taken from (3, 3): zoomed, then shifted, then turned about the centre."""
    cosine, sine = torch.cos(torch.tensor(float(angle))), torch.sin(torch.tensor(float(angle)))
    turned, shifted = torch.eye(3), torch.eye(3)
    turned[:2, :2] = torch.stack([torch.stack([cosine, -sine]), torch.stack([sine, cosine])])
    shifted[:2, 2] = torch.from_numpy(shift)
    return turned @ shifted @ torch.diag(torch.tensor([zoom, zoom, 1.0]))
