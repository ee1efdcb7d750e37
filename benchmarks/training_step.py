"""What a training step costs, on a CPU or a GPU, beside other ways to train and beside the least that it could cost.

    python -m benchmarks.training_step --device cpu [--backbones cinema-mini cinema-base] [--repetitions 5] [--out FILE]

A step is forward, backward and AdamW's update of one batch of random input. The variants take turns, so that what else
the machine does meets all of them; a ratio is the median, with the quartiles, of one variant's time over that of
``floor`` in the same turn.

- ours: two adapters on the last two blocks, from trunk features that are in memory, as in a round after the first;
- peft: Hugging Face PEFT with two adapters on the same layers, on the whole network (needs the package ``peft``);
- full: all weights of the whole network;
- floor: forward and backward through two plain blocks, frozen, for the gradient of their input;
- projections: forward of q and kv of the first adapted block, the part of a step of ours that a cache could keep;
- trunk: the frozen part of the network, which a site runs once per view.

Precision is fp32, and on a CUDA device with bf16 that as well.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from med_duallora.adapter.methods import plan_of
from med_duallora.adapter.model import N_CLASSES, DualLoRAModel
from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.settings.config import JobConfig
from med_duallora.support.devices import autocast, use_threads
from med_duallora.support.files import write_json

FLOOR = "floor"
ALL = ("ours", "peft", "full", FLOOR, "projections", "trunk")
Work = Callable[[], object]


class Variants:
    """One piece of work per variant, on one device.

    Args:
        backbone: its preset.
        batch_size: volumes per step.
        device: where everything is.
        precision: fp32 or bf16.
    """

    def __init__(self, backbone: str, batch_size: int, device: torch.device, precision: str) -> None:
        # PEFT has no shared head: with a plain one, both train the same number of values
        self.job = JobConfig(backbone=backbone).with_overrides(["lora.head_policy=local"])
        self.config = BackboneConfig.preset(backbone)
        self.device, self.precision = device, precision
        shape = (batch_size, self.config.n_input_channels, *self.config.image_size)
        self.x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
        self.labels = (torch.arange(batch_size) % N_CLASSES).to(device)
        network = DualLoRAModel(build_classifier(self.config, seed=0), plan_of(self.job), self.job.train.seed)
        # with one volume in a batch there is nothing to standardise by; these have no part in a step's time
        self.network = network.to(device).eval()
        self.features = self.network.trunk(self.x)
        self.blocks = nn.Sequential(*list(build_classifier(self.config, seed=0).blocks)[self.network.cut :])
        self.blocks.to(device).requires_grad_(False)

    def works(self, names: Sequence[str]) -> dict[str, Work]:
        """Return what each variant does in a repetition."""
        made: dict[str, Callable[[], Work]] = {
            "ours": lambda: self._step(self.network, lambda: self.network.tail(self.features)),
            "peft": self._peft,
            "full": self._full,
            FLOOR: lambda: self._floor,
            "projections": lambda: self._projections,
            "trunk": lambda: self._trunk,
        }
        return {name: made[name]() for name in names}

    def _step(self, network: nn.Module, logits: Callable[[], Tensor]) -> Work:
        optimizer = torch.optim.AdamW([value for value in network.parameters() if value.requires_grad])

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with autocast(self.device, self.precision):
                loss = nn.functional.cross_entropy(logits(), self.labels)
            loss.backward()
            optimizer.step()

        return step

    def _full(self) -> Work:
        network = build_classifier(self.config, seed=0).to(self.device)
        return self._step(network, lambda: network(self.x))

    def _peft(self) -> Work:
        from peft import LoraConfig, get_peft_model

        lora, last = self.job.lora, range(self.network.cut, self.config.depth)
        layers = [f"encoder.blocks.{i}.attn.{name}" for i in last for name in lora.targets]
        first = LoraConfig(r=lora.rank_global, lora_alpha=int(lora.alpha_global), target_modules=layers)
        second = LoraConfig(r=lora.rank_local, lora_alpha=int(lora.alpha_local), target_modules=layers)
        network = get_peft_model(build_classifier(self.config, seed=0).to(self.device), first)
        network.add_adapter("local", second)
        both: Any = network.base_model
        both.set_adapter(["default", "local"])
        for name, value in network.named_parameters():
            value.requires_grad_("lora_" in name or "pred_head_dict" in name)
        return self._step(network, lambda: network(self.x))

    def _floor(self) -> None:
        tokens = self.features.tokens.detach().requires_grad_()
        with autocast(self.device, self.precision):
            value = self.blocks(tokens).float().sum()
        value.backward()

    @torch.no_grad()
    def _projections(self) -> None:
        block: Any = self.blocks[0]
        with autocast(self.device, self.precision):
            x = block.norm1(self.features.tokens)
            block.attn.q(x)
            block.attn.kv(x)

    def _trunk(self) -> None:
        with autocast(self.device, self.precision):
            self.network.trunk(self.x)


def seconds(work: Work, device: torch.device) -> float:
    """Return how long it takes: seconds of the processor, or with a GPU of the clock."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


def measured(works: dict[str, Work], device: torch.device, repetitions: int, warm_up: int) -> dict[str, Any]:
    """Return seconds by variant, and ratios to the floor within a turn, as (first quartile, median, third)."""
    turns = []
    for _ in range(warm_up + repetitions):
        turns.append({name: seconds(work, device) for name, work in works.items()})
    turns = turns[warm_up:]
    quartiles = (25, 50, 75)
    return {
        name: {
            "seconds": np.percentile([turn[name] for turn in turns], quartiles).tolist(),
            "ratios": np.percentile([turn[name] / turn[FLOOR] for turn in turns], quartiles).tolist(),
        }
        for name in works
    }


def table(found: dict[str, Any], batch_size: int) -> str:
    """Return the variants of one backbone and precision as a Markdown table."""
    lines = ["| variant | seconds | of the floor | quartiles |", "|---|---|---|---|"]
    for name, of in found.items():
        low, middle, high = of["ratios"]
        lines.append(f"| {name} | {of['seconds'][1]:.4g} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    if "trunk" in found:
        lines.append(f"\ntrunk: {batch_size / found['trunk']['seconds'][1]:.3g} views a second")
    if {"projections", "ours"} <= set(found):
        share = found["projections"]["seconds"][1] / found["ours"]["seconds"][1]
        lines.append(f"projections of the first adapted block: {100 * share:.1f} % of a step of ours")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print one table per backbone and precision, and keep the figures."""
    options = _parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this machine has no usable CUDA device; use --device cpu.")
    names = [name for name in ALL if name in {*options.variants, FLOOR}]
    if "peft" in names and find_spec("peft") is None:
        print("peft is not installed, so its variant is left out; pip install peft brings it")
        names.remove("peft")
    device = torch.device(options.device)
    use_threads(options.threads)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    results: dict[str, Any] = {}
    for backbone in options.backbones:
        for precision in ("fp32", "bf16") if has_bf16 else ("fp32",):
            works = Variants(backbone, options.batch_size, device, precision).works(names)
            found = measured(works, device, options.repetitions, options.warm_up)
            results[f"{backbone} {precision}"] = found
            print(
                f"\n{backbone}, {precision}, batch {options.batch_size}, {card}\n\n{table(found, options.batch_size)}"
            )
    if options.out:
        facts = {"device": card, "threads": options.threads, "batch_size": options.batch_size}
        write_json(options.out, {**facts, "torch": str(torch.__version__), "quartiles": results})


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure")
    parser.add_argument("--backbones", nargs="+", default=["cinema-mini", "cinema-base"], help="presets")
    parser.add_argument("--variants", nargs="+", choices=ALL, default=list(ALL), help="what to measure, beside floor")
    parser.add_argument("--batch-size", type=int, default=1, help="volumes per step")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--repetitions", type=int, default=5, help="turns that count")
    parser.add_argument("--warm-up", type=int, default=1, help="turns before these")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
