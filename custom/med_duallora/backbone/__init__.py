"""The CineMA backbone: its configuration, the classifier and its checkpoints.

What needs torch is imported when it is first asked for: the presets can be listed without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from med_duallora.backbone.config import BackboneConfig

if TYPE_CHECKING:
    from med_duallora.backbone.checkpoint import (
        agreed_sha256,
        build_classifier,
        check_agreed,
        check_checkpoint,
        checkpoint_sha256,
        initialise_head,
        load_classifier,
        packaged_checkpoint,
    )
    from med_duallora.backbone.classifier import CineMAClassifier

__all__ = [
    "BackboneConfig",
    "CineMAClassifier",
    "agreed_sha256",
    "build_classifier",
    "check_agreed",
    "check_checkpoint",
    "checkpoint_sha256",
    "initialise_head",
    "load_classifier",
    "packaged_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Return one of the names above from the module that has it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "classifier" if name == "CineMAClassifier" else "checkpoint"
    return getattr(import_module(f"{__name__}.{module}"), name)
