"""How much memory this process has used at most."""

import resource
import sys

import torch


def peak_memory_mb(device: torch.device) -> float:
    """Return the highest memory use so far in MiB: what torch took on a CUDA device, else that of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB on Linux
