from pathlib import Path

import numpy as np
import pytest
import torch

from med_duallora.backbone import BackboneConfig
from med_duallora.pretraining.data import VolumePool
from med_duallora.pretraining.mae import DECODERS, MaskedAutoencoder
from tests.unit.truths import with_label_maps

TINY = BackboneConfig.preset("cinema-tiny")


@pytest.fixture
def mae() -> MaskedAutoencoder:
    return MaskedAutoencoder(TINY, DECODERS["cinema-tiny"], seed=1)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 1, *TINY.image_size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pool() -> VolumePool:
    """Six subjects with a bright disc that is smaller in the second frame."""
    rng = np.random.default_rng(0)
    x, y = np.mgrid[:32, :32]
    volumes = []
    for _ in range(6):
        cx, cy = rng.integers(10, 22, 2)
        frames = [np.where(np.hypot(x - cx, y - cy) < radius, 200, 30) for radius in (8, 5)]
        volumes.append(np.stack([np.repeat(f[..., None], 5, 2) for f in frames]).astype(np.uint8))
    return VolumePool(tuple(volumes), TINY.image_size, "0" * 64)


@pytest.fixture
def mapped_cohort(tiny_cohorts, tmp_path) -> Path:
    """A prepared cohort with label maps beside its volumes."""
    return with_label_maps(tiny_cohorts["siemens"], tmp_path / "mapped")
