"""CineMA checkpoints on disk: classifier files, what pre-training left, and the ones shipped with this package."""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from med_duallora.backbone.classifier import VIEW, CineMAClassifier
from med_duallora.backbone.config import PRESETS, BackboneConfig
from med_duallora.backbone.layers import initialise
from med_duallora.errors import CheckpointError
from med_duallora.support.files import sha256_of_file

WEIGHTS = Path(__file__).parent / "weights"
HEAD_SEED = 0
HEAD_STD = 0.02
FIRST_CONV = f"enc_down_dict.{VIEW}.conv_blocks.0.patch_embed.conv.weight"
POSITION = f"enc_down_dict.{VIEW}.pos_embed"
MAX_KEYS_SHOWN = 8

# what a file of either pre-training holds beside the short-axis encoder; anything else in it is unexpected
_PRETRAINED_MARKS = ("dec_linear.", "anatomy_head.", "anatomy_maps.")
_PRETRAINED_DROPPED = re.compile(
    r"(dec_linear|decoder|dec_embed_dict|pred_head_dict|anatomy_head|anatomy_maps)\..+|enc_(down|fusion)_dict\.lax_[234]c\..+"
    rf"|{re.escape(POSITION)}"
)


def packaged_checkpoint(preset: str) -> Path:
    """Return the checkpoint that is shipped for ``preset``.

    Raises:
        CheckpointError: none is shipped; the message says what to do.
    """
    path = WEIGHTS / f"{preset}.safetensors"
    if not path.is_file():
        shipped = sorted(p.stem for p in WEIGHTS.glob("*.safetensors") if p.stem in PRESETS)
        raise CheckpointError(
            f"no checkpoint is shipped for backbone {preset!r} (shipped: {', '.join(shipped) or 'none'}); give the "
            "path of a safetensors file: CineMA's published weights for cinema-base, or pretrain output"
        )
    return path


def agreed_sha256(preset: str, pinned: str) -> str | None:
    """Return the hash of the only checkpoint that the sites of a job may train with; None where any will do.

    Adapters of different backbones cannot be averaged, so a job is about one checkpoint.

    Args:
        preset: of the job's backbone.
        pinned: what the job pins; empty: the checkpoint that is shipped for the preset, where there is one.
    """
    return pinned or _shipped_sha256(preset)


def check_agreed(preset: str, pinned: str, found: str) -> None:
    """Refuse to train with another checkpoint than the job is about.

    Args:
        preset: see ``agreed_sha256``.
        pinned: likewise.
        found: hash of the checkpoint that the site has.

    Raises:
        CheckpointError: names both hashes, and what to do.
    """
    agreed = agreed_sha256(preset, pinned)
    if agreed not in (None, found):
        which = "pins the checkpoint" if pinned else "is about the checkpoint that this package ships,"
        raise CheckpointError(
            f"the job {which} {agreed}, but backbone_checkpoint of this site has the SHA-256 {found}: use the agreed "
            "file (null: the shipped one), or pin backbone_sha256 in the job"
        )


@lru_cache(maxsize=8)
def _shipped_sha256(preset: str) -> str | None:
    path = WEIGHTS / f"{preset}.safetensors"
    return sha256_of_file(path) if path.is_file() else None


def build_classifier(
    config: BackboneConfig, n_classes: int = 2, drop_path: float = 0.0, seed: int = 0
) -> CineMAClassifier:
    """Return a classifier with random weights from ``seed``; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        model = CineMAClassifier(config, n_classes, drop_path)
    initialise(model, seed)
    initialise_head(model)
    return model


def initialise_head(model: CineMAClassifier, seed: int = HEAD_SEED) -> None:
    """Fill the heads in place with a small normal (sd 0.02) from ``seed`` alone."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in model.pred_head_dict.values():
            for parameter in head.parameters():
                parameter.normal_(0, HEAD_STD, generator=generator)


def load_classifier(
    path: Path | str, config: BackboneConfig, n_classes: int = 2, drop_path: float = 0.0
) -> CineMAClassifier:
    """Load a CineMA classifier in float32 and evaluation mode.

    A file of a pre-training (masked autoencoder or anatomy) gives everything but the head, which is then initialised
    from a fixed seed. Where a masked autoencoder was made from single frames, its first convolution is repeated over
    the frames without division, as CineMA does. A classifier file gives all.

    Args:
        path: safetensors file; float16 and bfloat16 tensors are widened.
        config: the architecture the file must fit.
        n_classes: classes of the head.
        drop_path: stochastic depth of the transformer blocks in training.

    Raises:
        CheckpointError: the file is missing, unreadable or damaged, or its tensors do not fit; the message names the
            missing, unexpected and mis-shaped keys.
    """
    path = Path(path)
    tensors = _read(path)
    model = build_classifier(config, n_classes, drop_path)
    tensors, expected = _matched(tensors, model, config)
    differences = _differences(tensors, expected)
    if differences:
        raise CheckpointError(f"backbone checkpoint {path} does not fit the architecture. {differences}")
    # the position embedding is a formula of the configuration; a stored copy is checked for its shape and left
    tensors.pop(POSITION, None)
    model.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=False)
    return model.eval()


def check_checkpoint(path: Path, preset: str | None = None) -> None:
    """Find out by names and shapes whether a checkpoint can be loaded, without reading its numbers.

    Args:
        path: safetensors file.
        preset: of the backbone that it is for; None: any of the known ones.

    Raises:
        CheckpointError: as ``load_classifier``; where it fits another preset, the message names that one.
    """
    shapes = _read(path, shapes_only=True)
    fitting = [name for name, config in PRESETS.items() if not _misfits(shapes, config)]
    if preset is None and not fitting:
        raise CheckpointError(
            f"backbone checkpoint {path} fits none of the backbones {', '.join(PRESETS)}: give CineMA's published "
            "weights for cinema-base, or what pretrain wrote"
        )
    problems = "" if preset is None else _misfits(shapes, BackboneConfig.preset(preset))
    if problems:
        hint = f"It fits the backbone {fitting[0]}: write --set backbone={fitting[0]}" if fitting else problems
        raise CheckpointError(f"backbone checkpoint {path} does not fit the backbone {preset}. {hint}")


def _misfits(tensors: dict[str, torch.Tensor], config: BackboneConfig) -> str:
    """Return what in a file does not fit an architecture; empty: it fits."""
    tensors, expected = _matched(tensors, _shapes(config), config)
    return _differences(tensors, expected)


@lru_cache(maxsize=8)
def _shapes(config: BackboneConfig) -> CineMAClassifier:
    """Return a classifier without numbers; it takes a tenth of a second to build, and nobody changes it."""
    with torch.device("meta"):
        return CineMAClassifier(config, n_classes=2)


def _matched(
    tensors: dict[str, torch.Tensor], model: CineMAClassifier, config: BackboneConfig
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return a file's tensors as the classifier takes them, and those that it expects of a file of this kind."""
    expected = model.state_dict()
    if any(key.startswith(_PRETRAINED_MARKS) for key in tensors):
        tensors = _encoder_of(tensors, config)
        return tensors, {key: value for key, value in expected.items() if not key.startswith("pred_head_dict.")}
    return dict(tensors), {**expected, POSITION: model.token_embedding.pos_embed}


def _read(path: Path, shapes_only: bool = False) -> dict[str, torch.Tensor]:
    if not path.exists():
        raise CheckpointError(f"backbone checkpoint {path} does not exist")
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "a pipe or device"
        raise CheckpointError(f"backbone checkpoint {path} is {kind}; give the path of a safetensors file")
    try:
        if not shapes_only:
            return load_file(path)
        with safe_open(path, framework="pt") as stream:
            parts = {key: stream.get_slice(key) for key in stream.keys()}  # noqa: SIM118
            return {key: _empty(part.get_shape(), part.get_dtype()) for key, part in parts.items()}
    except OSError as error:
        raise CheckpointError(f"backbone checkpoint {path} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"backbone checkpoint {path} is not a safetensors file or is cut off ({error}); get it again or convert it"
        ) from error


def _empty(shape: list[int], dtype: str) -> torch.Tensor:
    """Return a tensor without numbers; ``dtype`` as safetensors writes it, such as ``BF16`` or ``I8``."""
    is_float = dtype.startswith(("F", "BF"))
    return torch.empty(shape, device="meta", dtype=torch.float32 if is_float else torch.int8)


def _encoder_of(tensors: dict[str, torch.Tensor], config: BackboneConfig) -> dict[str, torch.Tensor]:
    """Take the short-axis encoder out of a pre-training file and widen a masked autoencoder's first convolution."""
    kept = {key: value for key, value in tensors.items() if not _PRETRAINED_DROPPED.fullmatch(key)}
    first = kept.get(FIRST_CONV)
    if first is not None and first.ndim == 5 and first.shape[1] == config.in_chans:
        kept[FIRST_CONV] = first.repeat(1, config.n_frames, 1, 1, 1)
    return kept


def _differences(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str:
    """Compare names, shapes and, where there are any, numbers; the text names every kind of difference."""
    misfits = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(set(found) & set(expected))
        if found[key].shape != expected[key].shape
    ]
    problems = {
        "missing": sorted(set(expected) - set(found) - {POSITION}),
        "unexpected": sorted(set(found) - set(expected)),
        "mis-shaped": misfits,
        "not finite numbers": sorted(key for key in set(found) & set(expected) if not _is_numeric(found[key])),
    }
    return "; ".join(f"{len(keys)} {kind}: {_shown(keys)}" for kind, keys in problems.items() if keys)


def _is_numeric(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and (tensor.is_meta or math.isfinite(float(tensor.float().sum())))


def _shown(keys: list[str]) -> str:
    rest = len(keys) - MAX_KEYS_SHOWN
    return ", ".join(keys[:MAX_KEYS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def checkpoint_sha256(path: Path) -> str:
    """Return the hash of a checkpoint file (CheckpointError where it cannot be read)."""
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"backbone checkpoint {path} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, changed_ns: int) -> str:  # noqa: ARG001  a changed file is another entry
    """Return the hash of a file as it is now; several checks ask for that of some hundred MB."""
    return sha256_of_file(path)
