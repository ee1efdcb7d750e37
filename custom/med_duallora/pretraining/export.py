"""What a pre-training run leaves: a float16 checkpoint with CineMA's names, its manifest and the loss curve."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from med_duallora import __version__
from med_duallora.cohorts.phantom.truth import TARGETS
from med_duallora.errors import TrainingDiverged
from med_duallora.pretraining.anatomy import AnatomyConfig
from med_duallora.pretraining.anatomy_pool import AnatomyPool
from med_duallora.pretraining.data import VolumePool
from med_duallora.pretraining.run import PretrainConfig
from med_duallora.pretraining.state import RunState
from med_duallora.support.files import atomic_path, parsed_json, sha256_of_file, write_json

Config = PretrainConfig | AnatomyConfig
INHERITED = ("objective", "sha256", "command", "data")


def export(
    out: Path,
    config: Config,
    pool: VolumePool | AnatomyPool,
    state: RunState,
    recipe: str,
    *,
    init: Path | None = None,
) -> dict[str, Any]:
    """Write ``out``, ``out`` with suffix .json (manifest) and .png (loss curve), each atomically.

    The checkpoint appears last: where it is, the others are, and a run whose export was interrupted can be resumed.

    Args:
        out: the checkpoint's path.
        config: recipe of the run.
        pool: what it saw.
        state: the finished run.
        recipe: how the data were made, in the user's words.
        init: the checkpoint it started from; what its own manifest says of it is taken over.

    Returns:
        The manifest. It holds no path of this machine.

    Raises:
        TrainingDiverged: a weight is not finite in float16; nothing was written.
        OSError: a file cannot be written.
    """
    weights = {name: tensor.half().contiguous() for name, tensor in state.weights.items()}
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise TrainingDiverged("a trained weight is not a finite float16 number: lower the learning rate")
    with atomic_path(out) as partial:
        save_file(weights, partial)
        manifest = _manifest(sha256_of_file(partial), config, pool, state, recipe)
        if init:
            manifest["init"] = _origin(init)
        plot_curve(out.with_suffix(".png"), config.preset, state.curve, _error(config))
        write_json(out.with_suffix(".json"), manifest)
    return manifest


def _manifest(
    sha256: str, config: Config, pool: VolumePool | AnatomyPool, state: RunState, recipe: str
) -> dict[str, Any]:
    return {
        "preset": config.preset,
        "architecture": config.backbone.to_dict(),
        "objective": _objective(config),
        "n_parameters": _n_parameters(state.weights),
        "dtype": "float16",
        "sha256": sha256,
        "command": command_of(config),
        "recipe": config.to_dict(),
        "data": {"recipe": recipe, "n_subjects": len(pool.volumes), "sha256_of_sources": pool.content},
        "versions": _versions(),
        "seconds": round(state.seconds, 1),
        "loss_curve": state.curve,
    }


def command_of(config: Config) -> str:
    """Return the command that repeats the run, with DATA, TRUTH, INIT and OUT instead of paths."""
    words = ["med-duallora pretrain --data DATA --out OUT"]
    if isinstance(config, AnatomyConfig):
        words += ["--truth TRUTH", *(["--init INIT"] if config.init_sha256 else [])]
        words += [f"--map-weight {config.map_weight:g}"]
    words += [f"--backbone {config.preset}", f"--steps {config.n_steps}"]
    words += [f"--batch-size {config.batch_size}", f"--lr {config.lr:g}"]
    if isinstance(config, PretrainConfig):
        words += [f"--mask-ratio {config.mask_ratio:g}"]
        words += [f"--frames {config.views.frames}", f"--motion-weight {config.motion_weight:g}"]
    words += [f"--precision {config.precision}", f"--seed {config.seed}"]
    return " ".join(words + (["--norm-target"] if isinstance(config, PretrainConfig) and config.norm_target else []))


def _error(config: Config) -> str:
    """Return what the curves of a run show."""
    if not isinstance(config, AnatomyConfig):
        return "squared error on masked patches"
    return "squared error of values" + (" (training: and label maps)" if config.map_weight else "")


def _objective(config: Config) -> str:
    if isinstance(config, AnatomyConfig):
        maps = ", label maps of ED and ES" if config.map_weight else ""
        return f"anatomy ({', '.join(TARGETS)}{maps}), short-axis view"
    return "masked autoencoder (CineMA), short-axis view"


def _origin(init: Path) -> dict[str, Any]:
    """Return the hash of the checkpoint that a run started from, and what the manifest beside it says of its own."""
    origin: dict[str, Any] = {"sha256": sha256_of_file(init)}
    try:
        manifest = parsed_json(init.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return origin  # a checkpoint from elsewhere has none
    if not isinstance(manifest, dict) or manifest.get("sha256") != origin["sha256"]:
        return origin
    return {key: manifest[key] for key in (*INHERITED, "init") if key in manifest}


def plot_curve(path: Path, title: str, curve: list[dict[str, float]], error: str) -> None:
    """Draw the loss on training and held-out volumes over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    steps = [point["step"] for point in curve]
    axes.plot(steps, [point["loss"] for point in curve], label="training views")
    axes.plot(steps, [point["held_out_loss"] for point in curve], label="held-out subjects")
    axes.set(xlabel="step", ylabel=error, yscale="log", title=f"{title}: pre-training")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def _n_parameters(weights: dict[str, torch.Tensor]) -> dict[str, int]:
    encoder = sum(tensor.numel() for name, tensor in weights.items() if name.startswith("enc"))
    return {"encoder": encoder, "with_decoder": sum(tensor.numel() for tensor in weights.values())}


def _versions() -> dict[str, str]:
    python = platform.python_version()
    return {"med_duallora": __version__, "python": python, "torch": torch.__version__, "numpy": np.__version__}
