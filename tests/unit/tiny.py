"""Small models, inputs and states for the tests of the core."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch

from med_duallora.adapter.methods import METHODS
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.roles import GLOBAL, LOCAL, Role
from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.boundary.contract import EgressContract
from med_duallora.settings.config import JobConfig, LoRAConfig, TrainConfig

TINY = BackboneConfig.preset("cinema-tiny")
TRAINED = (*sorted(GLOBAL), *sorted(LOCAL), Role.HEAD)


def tiny_job(lora: LoRAConfig | None = None, seed: int = 0, method: str = "med-duallora") -> JobConfig:
    return JobConfig(method=method, backbone="cinema-tiny", lora=lora or LoRAConfig(), train=TrainConfig(seed=seed))


def tiny_model(lora: LoRAConfig | None = None, seed: int = 0, drop_path: float = 0.0) -> DualLoRAModel:
    """A fresh tiny model of the main method in evaluation mode, as it starts: every B is zero."""
    return model_of(tiny_job(lora, seed), drop_path)


def model_of(job: JobConfig, drop_path: float = 0.0) -> DualLoRAModel:
    """A fresh tiny model of a job in evaluation mode; the job may be one that no federation would run."""
    classifier = build_classifier(TINY, drop_path=drop_path, seed=7)
    return DualLoRAModel(classifier, METHODS[job.method].plan(job), job.train.seed).eval()


def shake(model: DualLoRAModel, roles: Iterable[Role] = TRAINED, seed: int = 0) -> None:
    """Fill parameters with noise, so that both adapters act."""
    rng = np.random.default_rng(seed)
    values = {name: 0.3 * rng.standard_normal(value.shape) for name, value in model.values(roles).items()}
    model.load_values(roles, {name: value.astype(np.float32) for name, value in values.items()})


def tiny_images(n: int = 2, seed: int = 0) -> torch.Tensor:
    """(n, 2, 32, 32, 4) in [0, 1]."""
    return torch.rand(n, TINY.n_input_channels, *TINY.image_size, generator=torch.Generator().manual_seed(seed))


def random_payload(contract: EgressContract, seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Tensors that fit a contract."""
    rng = np.random.default_rng(seed)
    return {
        name: (scale * rng.standard_normal(spec.shape)).astype(np.float32) for name, spec in contract.tensors.items()
    }


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether two dicts of arrays agree in names, types, shapes and every bit."""
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """A hash of names and bytes."""
    found = hashlib.sha256()
    for name, value in tensors.items():
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
