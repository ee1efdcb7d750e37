"""A CineMA classifier with everything that was trained folded into its weights, in CineMA's own file format.

Both adapters are sums of products, changes of whole weights are sums, and the statistics before the head are a shift
and a scale: all of it is linear, so that a plain CineMA classifier with other numbers computes the same logits.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from med_duallora.adapter.changed import ChangedLinear, ChangedNorm
from med_duallora.adapter.lora import DualLoRALinear, SharedHead
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.backbone.checkpoint import POSITION
from med_duallora.backbone.classifier import VIEW
from med_duallora.support.files import atomic_path

HEADS = ("cls", VIEW)
"""The heads in the order in which their summaries stand behind each other, see ``DualLoRAModel.summaries``."""
NORM_BIASES = {"cls": "encoder.norm.bias", VIEW: f"enc_fusion_dict.{VIEW}.norm.bias"}
"""The last bias before each head; only the first one's norm is also on the way to the second head."""
FUSION_BIAS = f"enc_fusion_dict.{VIEW}.down_convs.0.bias"
"""Added to the patch tokens between the two norms."""


Adapted = DualLoRALinear | ChangedLinear | ChangedNorm


def merged_tensors(network: DualLoRAModel) -> dict[str, Tensor]:
    """Return a CineMA classifier's tensors by CineMA's names, float32, with adapters, head and statistics folded in.

    Sums are taken in float64, and every tensor is rounded once. The network is left as it is.
    """
    classifier = network.classifier
    adapted: dict[str, Adapted] = {
        name: module for name, module in classifier.named_modules() if isinstance(module, Adapted)
    }
    found = {
        name.replace(".base.", ".") if _owner(name, adapted) else name: value.detach().cpu().float().clone()
        for name, value in classifier.state_dict().items()
        if not name.startswith("pred_head_dict.") and not _is_factor(name, adapted)
    }
    for name, layer in adapted.items():
        if isinstance(layer, DualLoRALinear):
            found[f"{name}.weight"] = _summed(layer)
        else:
            found[f"{name}.weight"], found[f"{name}.bias"] = (part.detach().cpu().float() for part in layer.affine())
    found[POSITION] = classifier.token_embedding.pos_embed.detach().cpu().float().clone()
    offsets = _centre(found, network)
    return {**found, **head_tensors(network, offsets)}


def _centre(found: dict[str, Tensor], network: DualLoRAModel) -> dict[str, Tensor]:
    """Take the statistics' means off in the last norms, and return what of them is then still to be taken off.

    A head that took them off in its bias would subtract large numbers from each other: features differ little from
    subject to subject beside their mean, and what is left would be rounded to a hundred-thousandth. The patch tokens
    pass both norms, so what the first one takes off of them is put back between the two.
    """
    means = dict(zip(HEADS, network.head_norm.mean.detach().cpu().double().chunk(2), strict=True))
    left = {}
    for name, key in NORM_BIASES.items():
        before = found[key].double()
        found[key] = (before - means[name]).float()
        taken = before - found[key].double()
        left[name] = means[name] - taken
        if name == "cls":
            found[FUSION_BIAS] = (found[FUSION_BIAS].double() + taken).float()
    return left


def head_tensors(network: DualLoRAModel, means: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Return both heads by CineMA's names, float32, with the statistics before them folded in.

    Args:
        network: whose heads.
        means: what the biases take off by head, where it is not the statistics' mean.
    """
    norm = network.head_norm
    if means is None:
        means = dict(zip(HEADS, norm.mean.detach().cpu().double().chunk(2), strict=True))
    found = {}
    for name, scale in zip(HEADS, norm.scale.detach().cpu().double().chunk(2), strict=True):
        weight, bias = _linear(network.classifier.pred_head_dict[name])
        weight = weight / scale
        found[f"pred_head_dict.{name}.weight"] = weight.float()
        found[f"pred_head_dict.{name}.bias"] = (bias - weight @ means[name]).float()
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


def _owner(name: str, adapted: Mapping[str, Adapted]) -> bool:
    """Return whether a parameter is the frozen one of an adapted layer."""
    prefix, base, _ = name.rpartition(".base.")
    return bool(base) and prefix in adapted


def _is_factor(name: str, adapted: Mapping[str, Adapted]) -> bool:
    prefix, _, parameter = name.rpartition(".")
    return prefix in adapted and parameter in adapted[prefix].declared()


def _summed(layer: DualLoRALinear) -> Tensor:
    """Return the weight (out, in) of one linear layer that computes what the frozen one and its adapters do."""
    weight = layer.base.weight.detach().cpu().double()
    scale_global, scale_local = layer.scales()
    for a, b, scale in (
        (layer.global_a, layer.global_b, scale_global),
        (layer.local_a, layer.local_b, scale_local),
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
