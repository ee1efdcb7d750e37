"""Where a site computes: the device that its configuration names, or an error; never another one silently."""

from pathlib import Path

import torch

from med_duallora.errors import ConfigError


def check_device(name: str, source: Path) -> None:
    """Find out at a job's start whether the ``device`` of a site configuration is there.

    Raises:
        ConfigError: it is not; names the file, the setting and what to write instead.
    """
    try:
        resolve_device(name)
    except ConfigError as error:
        raise error.within(f"site configuration {source.name} in {source.parent}") from error


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


def _absent(name: str, there: str) -> ConfigError:
    message = f"device = {name!r}, but this machine has {there}"
    return ConfigError(message, key="device", value=name, limit="a device of this machine")
