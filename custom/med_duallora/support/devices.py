"""Where a site computes: the device that its configuration names, or an error; never another one silently."""

from contextlib import AbstractContextManager

import torch

from med_duallora.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Return the torch device of a site configuration's ``device`` (ConfigError where it is not there)."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise _absent(name, "no usable CUDA device; use cpu or auto")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise _absent(name, f"{torch.cuda.device_count()} CUDA device(s)")
    return device


def use_threads(n_threads: int) -> None:
    """Let this process compute with so many CPU threads; whoever starts a process decides, no object in it does."""
    torch.set_num_threads(n_threads)


def _absent(name: str, there: str) -> ConfigError:
    message = f"device = {name!r}, but this machine has {there}"
    return ConfigError(message, key="device", value=name, limit="a device of this machine")


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Return the autocast context of a precision setting; ``auto`` is bf16 on CUDA devices that have it."""
    if precision == "auto":
        # older devices emulate bf16, which is slower than fp32
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "fp32"
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")
