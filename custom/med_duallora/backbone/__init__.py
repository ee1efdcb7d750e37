"""The CineMA backbone: its configuration, the classifier and its checkpoints."""

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
from med_duallora.backbone.config import BackboneConfig

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
