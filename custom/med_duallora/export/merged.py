"""A CineMA classifier with everything that was trained folded into its weights, in CineMA's own file format.

Both adapters are sums of products, and the statistics before the head are a shift and a scale: all of it is linear, so
that a plain CineMA classifier with other numbers computes the same logits.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from med_duallora.adapter.lora import DualLoRALinear, SharedHead
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.backbone.checkpoint import POSITION
from med_duallora.support.files import atomic_path

HEADS = ("cls", "sax")
"""The heads in the order in which their summaries stand behind each other, see ``DualLoRAModel.summaries``."""


def merged_tensors(network: DualLoRAModel) -> dict[str, Tensor]:
    """Return a CineMA classifier's tensors by CineMA's names, float32, with adapters, head and statistics folded in.

    Sums are taken in float64, and every tensor is rounded once. The network is left as it is.
    """
    classifier = network.classifier
    adapted = {name: module for name, module in classifier.named_modules() if isinstance(module, DualLoRALinear)}
    found = {
        name.replace(".base.", ".") if _owner(name, adapted) else name: value.detach().cpu().float().clone()
        for name, value in classifier.state_dict().items()
        if not name.startswith("pred_head_dict.") and not _is_factor(name, adapted)
    }
    for name, layer in adapted.items():
        found[f"{name}.weight"] = _summed(layer)
    found[POSITION] = classifier.token_embedding.pos_embed.detach().cpu().float().clone()
    return {**found, **head_tensors(network)}


def head_tensors(network: DualLoRAModel) -> dict[str, Tensor]:
    """Return both heads by CineMA's names, float32, with the statistics before them folded in."""
    norm = network.head_norm
    means, scales = norm.mean.detach().cpu().double().chunk(2), norm.scale.detach().cpu().double().chunk(2)
    found = {}
    for name, mean, scale in zip(HEADS, means, scales, strict=True):
        weight, bias = _linear(network.classifier.pred_head_dict[name])
        weight = weight / scale
        found[f"pred_head_dict.{name}.weight"] = weight.float()
        found[f"pred_head_dict.{name}.bias"] = (bias - weight @ mean).float()
    return found


def write_merged(path: Path, network: DualLoRAModel, facts: Mapping[str, str]) -> None:
    """Write a merged checkpoint, readable by this account alone.

    Args:
        path: of the safetensors file.
        network: see ``merged_tensors``.
        facts: kept in the file's header; a reader of CineMA's format passes over them.

    Raises:
        OSError: the place cannot be written; nothing is left there.
    """
    tensors = {name: value.contiguous() for name, value in merged_tensors(network).items()}
    with atomic_path(path, mode=0o600) as partial:
        save_file(tensors, partial, metadata={"format": "pt", **facts})


def _owner(name: str, adapted: Mapping[str, DualLoRALinear]) -> bool:
    """Return whether a parameter is the frozen one of an adapted layer."""
    prefix, base, _ = name.rpartition(".base.")
    return bool(base) and prefix in adapted


def _is_factor(name: str, adapted: Mapping[str, DualLoRALinear]) -> bool:
    prefix, _, parameter = name.rpartition(".")
    return prefix in adapted and parameter in adapted[prefix].declared()


def _summed(layer: DualLoRALinear) -> Tensor:
    """Return the weight (out, in) of one linear layer that computes what the frozen one and its adapters do."""
    weight = layer.base.weight.detach().cpu().double()
    for a, b, scale in (
        (layer.global_a, layer.global_b, layer.scale_global),
        (layer.local_a, layer.local_b, layer.scale_local),
    ):
        if a is not None and b is not None:
            weight = weight + scale * (b.detach().cpu().double() @ a.detach().cpu().double())
    return weight.float()


def _linear(head: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (n_classes, dim) and bias (n_classes,) of a head, float64."""
    if isinstance(head, SharedHead):
        weight = head.scale * head.global_b.detach().cpu().double() @ head.global_a.detach().cpu().double()
        return weight, head.bias.detach().cpu().double()
    if not isinstance(head, nn.Linear):
        raise TypeError(f"a head is a {type(head).__name__}, expected an nn.Linear or a SharedHead")
    return head.weight.detach().cpu().double(), head.bias.detach().cpu().double()
