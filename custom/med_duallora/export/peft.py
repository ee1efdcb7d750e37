"""Adapters in the files of Hugging Face PEFT: the global one as ``default``, a site's local one below it in ``local/``.

PEFT keeps one folder per adapter, ``adapter_config.json`` and ``adapter_model.safetensors``, and finds the layers by
name in the model that it wraps; here that is the CineMA classifier of ``backbone.load_classifier``. It computes
``W0 x + (alpha / r) B A x`` per active adapter, which is what a dual-LoRA layer computes. A site's head, with the
statistics before it folded in, lies beside its local adapter under CineMA's names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.adapter.model import DualLoRAModel, skeleton
from med_duallora.adapter.plan import WHOLE, AdapterPlan
from med_duallora.adapter.roles import GLOBAL, Role
from med_duallora.errors import ArtifactError
from med_duallora.export.merged import head_tensors
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import atomic_path, write_json, write_text

CONFIG_FILE, TENSORS_FILE, HEAD_FILE, README_FILE = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "head.safetensors",
    "README.md",
)
LOCAL = "local"
"""The adapter's name, and its folder below that of the global one."""
ADAPTERS = {"global": "default", "local": LOCAL}
PREFIX = "base_model.model"
"""PEFT's own name for the model that it wraps."""
Pairs = dict[str, tuple[Tensor, Tensor]]


def adapter_pairs(network: DualLoRAModel, adapter: str) -> Pairs:
    """Return A (rank, in) and B (out, rank) of the ``global`` or ``local`` adapter by the adapted layer's name."""
    found: Pairs = {}
    for name, layer in network.classifier.named_modules():
        if isinstance(layer, DualLoRALinear):
            a, b = getattr(layer, f"{adapter}_a"), getattr(layer, f"{adapter}_b")
            if a is not None and b is not None:
                found[name] = (a.detach().cpu().float(), b.detach().cpu().float())
    return found


def global_pairs(job: JobConfig, tensors: Mapping[str, Any]) -> Pairs:
    """Return the pairs of a global adapter as the server keeps it; needs no backbone weights.

    Args:
        job: the job that trained it.
        tensors: what the sites sent, averaged, by parameter name.

    Raises:
        ArtifactError: the tensors are not of this job or no low-rank adapter, or a part of it stays at the sites.
    """
    model = skeleton(job)
    plan = model.plan
    _check_is_low_rank(job, plan)
    hidden = [role for role in GLOBAL if role in plan.kept]
    if hidden:
        raise ArtifactError(
            f"method {job.method}: {hidden[0].value} stays at each site, so the server's file is not a whole adapter; "
            "export it at a site, from its state"
        )
    _check(tensors, model)
    fixed = model.first_values(GLOBAL - plan.sent, job.train.seed)
    values = {**fixed, **{name: torch.from_numpy(value.copy()) for name, value in tensors.items()}}
    layers = [name for name, layer in model.classifier.named_modules() if isinstance(layer, DualLoRALinear)]
    return {name: (values[f"classifier.{name}.global_a"], values[f"classifier.{name}.global_b"]) for name in layers}


def _check_is_low_rank(job: JobConfig, plan: AdapterPlan) -> None:
    if Role.WEIGHTS in plan.trained:
        raise ArtifactError(
            f"method {job.method} trains whole weights, which a PEFT adapter does not hold; at a site, export the "
            "model as a checkpoint instead"
        )


def _check(tensors: Mapping[str, Any], model: DualLoRAModel) -> None:
    expected = model.of_roles(model.plan.sent)
    differing = sorted(set(tensors) ^ set(expected))
    if differing:
        what = "is missing from the adapter" if differing[0] in expected else "is not a part of the job's adapter"
        raise ArtifactError(f"{differing[0]} {what}: the file and the job in its manifest do not belong together")
    for name, value in tensors.items():
        shape, wanted = tuple(value.shape), tuple(expected[name].shape)
        if shape != wanted:
            raise ArtifactError(f"{name} has shape {shape}, but the job in the adapter's manifest has {wanted}")


def write_global(folder: Path, job: JobConfig, pairs: Pairs, about: str) -> None:
    """Write the global adapter as PEFT's ``default``.

    Args:
        folder: for the files.
        job: its alpha is written.
        pairs: by layer.
        about: what the README says of the model, Markdown.

    Raises:
        OSError: the place cannot be written.
    """
    _write_adapter(folder, pairs, job.lora.alpha_global, mode=None)
    write_text(folder / README_FILE, _readme(about, has_local=False))


def write_site(folder: Path, job: JobConfig, network: DualLoRAModel, about: str) -> None:
    """Write a site's whole model: ``default``, ``local/`` where there is a local adapter, and the head.

    Everything is readable by this account alone.

    Raises:
        ArtifactError: the model is more than a global adapter and what adds up with it; nothing was written.
        OSError: the place cannot be written.
    """
    _check_is_a_sum(job, network)
    local = adapter_pairs(network, "local")
    _write_adapter(folder, adapter_pairs(network, "global"), job.lora.alpha_global, mode=0o600)
    if local:
        _write_adapter(folder / LOCAL, local, job.lora.alpha_local, mode=0o600)
    with atomic_path(folder / HEAD_FILE, mode=0o600) as partial:
        save_file({name: value.contiguous() for name, value in head_tensors(network).items()}, partial)
    write_text(folder / README_FILE, _readme(about, has_local=bool(local)), mode=0o600)


def _check_is_a_sum(job: JobConfig, network: DualLoRAModel) -> None:
    """Refuse a model that adapters which add up do not make; a merged checkpoint can hold any."""
    plan = network.plan
    _check_is_low_rank(job, plan)
    other = "does not add its adapters up, as PEFT does" if plan.mix != WHOLE else ""
    if not plan.lora.rank_global:
        other = "has no global adapter"
    layers = [module for module in network.modules() if isinstance(module, DualLoRALinear)]
    if not all(layer.global_active and layer.local_active for layer in layers):
        other = "is used with an adapter switched off at this site"
    if Role.NORM in plan.trained:
        other = "also trains the norms of the adapted blocks, which a PEFT adapter does not hold"
    if other:
        raise ArtifactError(f"method {job.method} {other}; export the model as a checkpoint instead")


def adapter_config(pairs: Pairs, alpha: float) -> dict[str, Any]:
    """Return ``adapter_config.json``: layers by their whole names, so that no other layer is taken for one of them."""
    rank = next(iter(pairs.values()))[0].shape[0]
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "target_modules": sorted(pairs),
        "modules_to_save": None,
    }


def _write_adapter(folder: Path, pairs: Pairs, alpha: float, mode: int | None) -> None:
    tensors = {}
    for name, (a, b) in pairs.items():
        tensors[f"{PREFIX}.{name}.lora_A.weight"] = a.contiguous()
        tensors[f"{PREFIX}.{name}.lora_B.weight"] = b.contiguous()
    with atomic_path(folder / TENSORS_FILE, mode=mode) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, adapter_config(pairs, alpha), mode)


def _readme(about: str, has_local: bool) -> str:
    parts = [about.rstrip(), "## Loading it with PEFT", _LOAD]
    if has_local:
        parts += [_LOAD_LOCAL, _WARNING]
    return "\n\n".join(parts) + "\n"


_LOAD = """```python
from med_duallora.backbone import BackboneConfig, load_classifier
from peft import PeftModel

base = load_classifier(CHECKPOINT, BackboneConfig.preset(PRESET))
model = PeftModel.from_pretrained(base, FOLDER)  # the global adapter, as "default"
```"""

_LOAD_LOCAL = """With the site's own head and its local adapter; both adapters act:

```python
from safetensors.torch import load_file

base.load_state_dict(load_file(f"{FOLDER}/head.safetensors"), strict=False)  # before PEFT wraps the model
model = PeftModel.from_pretrained(base, FOLDER)
model.load_adapter(f"{FOLDER}/local", adapter_name="local")
model.base_model.set_adapter(["default", "local"], inference_mode=True)
logits = model(x)  # x: (batch, 2, X, Y, Z), ED and ES
```"""

_WARNING = """**Before training on:** loading a second adapter, or making adapters active, changes what trains.
`set_adapter` without `inference_mode=True` makes the parameters of every active adapter trainable, so the global
adapter of all sites would be trained at one of them. Name what shall train, and look:

```python
model.base_model.set_adapter(["default", "local"], inference_mode=True)
for name, value in model.named_parameters():
    value.requires_grad_(".local." in name)
print({name.split(".")[-2] for name, value in model.named_parameters() if value.requires_grad})  # {'local'}
```"""
