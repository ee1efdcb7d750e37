"""Label maps as targets: how much of each small cell is right ventricle, wall or left ventricle, at ED and ES.

A value per subject does not say where in the image it comes from. A label map does, at each place: every token learns
what lies under it, and volumes follow as sums over tokens.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from med_duallora.backbone.config import BackboneConfig
from med_duallora.backbone.inputs import Volume, fit_length
from med_duallora.backbone.layers import patchify
from med_duallora.cohorts.prepared import PreparedSubject, label_path, load_pair
from med_duallora.cohorts.volume import LV, MYO, RV
from med_duallora.errors import CohortError

LABELS = (RV, MYO, LV)
NAMES = {RV: "right ventricle", MYO: "wall", LV: "left ventricle"}
N_FRAMES = 2
N_MAPS = N_FRAMES * len(LABELS)
CELL = 2
"""Voxels of the backbone along a cell, in plane: 4 mm with `cinema-mini`, half of a healthy wall's thickness."""
START_LOGIT = -3.0
"""What an untrained map says everywhere: five percent, about what a heart takes up of the image."""


def small_label_maps(subject: PreparedSubject, shape: tuple[int, ...], config: BackboneConfig) -> Volume:
    """Return a subject's label maps as uint8 (2, X', Y', n_slices): the nearest label on the backbone's in-plane grid.

    Args:
        subject: whose maps they are.
        shape: of its volume (2, X, Y, n_slices).
        config: the backbone.

    Raises:
        CohortError: it has none, or one is damaged, not on the grid of the volume or not of a heart; names the file.
    """
    step = int(config.in_plane_mm)
    maps = _load(subject, shape)
    for axis in (1, 2):
        maps = fit_length(maps, axis, -(-maps.shape[axis] // step) * step)
    nearest: Volume = maps[:, step // 2 :: step, step // 2 :: step].astype(np.uint8)
    return nearest


def _load(subject: PreparedSubject, shape: tuple[int, ...]) -> Volume:
    """Return a subject's label maps, uint8 (2, X, Y, Z) on 1 mm pixels."""
    paths = [label_path(path) for path in (subject.ed_path, subject.es_path)]
    for path in paths:
        if not (path.exists() or path.is_symlink()):
            raise CohortError(
                f"{path} is not there: the subject was prepared without a segmentation; --map-weight 0 does without"
            )
    maps: Volume = load_pair(*paths)
    if maps.shape != shape:
        raise CohortError(f"{paths[0]} and {paths[1].name} have the shape {maps.shape[1:]}, their volume {shape[1:]}")
    if maps.max() > max(LABELS):
        raise CohortError(f"{paths[0]} or {paths[1].name} holds the label {maps.max()}; expected 0 to {max(LABELS)}")
    for path, frame in zip(paths, maps, strict=True):
        if missing := [NAMES[label] for label in LABELS if not (frame == label).any()]:
            raise CohortError(f"{path} holds no {' and no '.join(missing)}: it is not the label map of a whole heart")
    if (maps[1] == LV).sum() > (maps[0] == LV).sum():
        raise CohortError(f"{paths[1]} holds a larger left ventricle than {paths[0].name}: ED and ES are confused")
    return maps


def one_hot(maps: Volume) -> torch.Tensor:
    """Return label maps (2, X, Y, Z) as float32 (N_MAPS, X, Y, Z): ED, then ES, each in the order of ``LABELS``."""
    found = torch.from_numpy(maps)
    return torch.stack([found[frame] == label for frame in range(N_FRAMES) for label in LABELS]).float()


def in_cells(maps: torch.Tensor, config: BackboneConfig) -> torch.Tensor:
    """Return the share of each label in each cell of each token.

    Args:
        maps: float32 (batch, N_MAPS, *image_size) in [0, 1].
        config: the backbone.

    Returns:
        (batch, n_tokens, cells of a token * N_MAPS), the map fastest, as ``map_head`` predicts it.
    """
    n_samples, n_maps, nx, ny, nz = maps.shape
    slices = maps.permute(0, 1, 4, 2, 3).reshape(n_samples, n_maps * nz, nx, ny)
    cells = F.avg_pool2d(slices, CELL).reshape(n_samples, n_maps, nz, nx // CELL, ny // CELL)
    return patchify(cells.permute(0, 3, 4, 2, 1), _cells_of_token(config)).flatten(1, 3).clamp(0, 1)


def map_head(config: BackboneConfig) -> nn.Linear:
    """Return the linear layer that predicts ``in_cells`` as logits from a patch token; it says the same everywhere."""
    head = nn.Linear(config.embed_dim, math.prod(_cells_of_token(config)) * N_MAPS)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, START_LOGIT)
    return head


def entropy_of(shares: torch.Tensor) -> torch.Tensor:
    """Return the binary entropy (N_MAPS,) of mean shares (N_MAPS,): the error of whoever knows nothing else."""
    inside = shares.double().clamp(1e-6, 1 - 1e-6)
    return -(inside * inside.log() + (1 - inside) * (1 - inside).log()).float()


def map_error(logits: torch.Tensor, shares: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each map (N_MAPS,) over its ``entropy``: 1 is that of the mean share.

    Args:
        logits: (batch, n_tokens, cells * N_MAPS).
        shares: the same of the truth, in [0, 1].
        entropy: (N_MAPS,), see ``entropy_of``.
    """
    error = F.binary_cross_entropy_with_logits(logits, shares, reduction="none")
    return error.reshape(-1, N_MAPS).mean(0) / entropy


def _cells_of_token(config: BackboneConfig) -> tuple[int, ...]:
    rx, ry, rz = config.reduction
    return rx // CELL, ry // CELL, rz
