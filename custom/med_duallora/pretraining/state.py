"""A pre-training run on disk: weights, optimizer moments, loss curve, recipe; safetensors, never pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from med_duallora.errors import ArtifactError
from med_duallora.support.files import atomic_path, parsed_json
from med_duallora.support.private import PRIVATE_FILE

MOMENTS = ("exp_avg", "exp_avg_sq")
KEPT: Mapping[str, type | tuple[type, ...]] = {
    "step": int,
    "curve": list,
    "seconds": (int, float),
    "recipe": dict,
    "data": str,
}
"""What is kept beside the tensors, and its kind."""


@dataclass
class RunState:
    """How far a run is.

    Args:
        step: optimizer steps done.
        curve: log points: step, lr, loss, held_out_loss.
        seconds: time spent training.
        recipe: the run's configuration as plain values.
        data: hash of the volumes' sources.
        weights: the model's tensors, once the run has ended.
    """

    step: int
    curve: list[dict[str, float]]
    seconds: float
    recipe: dict[str, Any]
    data: str
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


def save_state(path: Path, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the run atomically, mode 0600."""
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        moments = optimizer.state[parameter]
        tensors |= {f"{moment}.{name}": moments[moment].contiguous() for moment in MOMENTS}
    kept = {"step": state.step, "curve": state.curve, "seconds": state.seconds}
    kept |= {"recipe": state.recipe, "data": state.data}
    with atomic_path(path, PRIVATE_FILE) as partial:
        save_file(tensors, partial, metadata={"run": json.dumps(kept)})


def load_state(path: Path, fresh: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> RunState:
    """Load a run into ``model`` and ``optimizer``.

    Args:
        path: what ``save_state`` wrote.
        fresh: the run as it would start now; recipe and data must be the same.
        model: receives the weights.
        optimizer: receives the moments.

    Raises:
        ArtifactError: the file is missing or damaged, or holds a run of another recipe or other data.
    """
    kept, tensors = _read(path)
    if kept["recipe"] != fresh.recipe:
        differs = ", ".join(_differences(kept["recipe"], fresh.recipe))
        raise ArtifactError(f"{path} holds a run with another recipe: {differs}; give the same one, or start anew")
    if kept["data"] != fresh.data:
        raise ArtifactError(
            f"{path} holds a run on other data: other subjects, volumes, values or label maps; give the same ones, or "
            "start anew"
        )
    if not 0 <= kept["step"] <= kept["recipe"]["n_steps"]:
        raise _damaged(path, f"step {kept['step']} of {kept['recipe']['n_steps']}")
    try:
        _restore(tensors, kept["step"], model, optimizer)
    except (KeyError, RuntimeError) as error:
        raise _damaged(path, str(error)) from error
    return RunState(kept["step"], kept["curve"], kept["seconds"], fresh.recipe, fresh.data)


def planned_steps(path: Path) -> int:
    """Return the length of the run kept at ``path``; raises ArtifactError as ``load_state`` does."""
    return int(_read(path)[0]["recipe"]["n_steps"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise ArtifactError(f"there is no run to resume at {path}; start without resume")
    try:
        with safe_open(path, framework="pt") as stream:
            kept = parsed_json((stream.metadata() or {})["run"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(kept, dict) or any(not isinstance(kept.get(name), kind) for name, kind in KEPT.items()):
        raise _damaged(path, "it does not say what it is of")
    if not isinstance(kept["recipe"].get("n_steps"), int):
        raise _damaged(path, "its recipe has no length")
    return kept, tensors


def _damaged(path: Path, why: str) -> ArtifactError:
    return ArtifactError(f"{path} is not a pre-training run or is damaged ({why}); start without resume")


def _differences(kept: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two recipes, such as "lr 0.001, now 0.002"."""
    return [
        f"{name} {kept.get(name, 'not given')}, now {now.get(name, 'not given')}"
        for name in sorted(kept.keys() | now.keys())
        if kept.get(name) != now.get(name)
    ]


def _restore(tensors: dict[str, torch.Tensor], step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    for name, parameter in model.named_parameters():
        moments = {moment: tensors[f"{moment}.{name}"] for moment in MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
