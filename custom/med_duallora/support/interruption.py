"""Stopping in the middle of a step: on a CPU, one step of a large backbone can take a minute."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from med_duallora.errors import TrainingAborted


@contextmanager
def interruptible(model: nn.Module, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Ask ``should_stop`` before every layer inside the block, forward and backward; no number changes by it.

    Raises:
        TrainingAborted: ``should_stop`` said so; the model's parameters are as they were before the step.
    """

    def check(*_: object) -> None:
        if should_stop():
            raise TrainingAborted("stopped in the middle of a step")

    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv3d)]
    handles = [layer.register_forward_pre_hook(check) for layer in layers]
    handles += [layer.register_full_backward_pre_hook(check) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
