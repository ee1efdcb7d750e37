"""The CineMA backbone: its configuration, the classifier and its checkpoints."""

from med_duallora.backbone.checkpoint import (
    build_classifier,
    checkpoint_sha256,
    initialise_head,
    load_classifier,
    packaged_checkpoint,
)
from med_duallora.backbone.classifier import CineMAClassifier
from med_duallora.backbone.config import BackboneConfig

__all__ = [
    "BackboneConfig",
    "CineMAClassifier",
    "build_classifier",
    "checkpoint_sha256",
    "initialise_head",
    "load_classifier",
    "packaged_checkpoint",
]
