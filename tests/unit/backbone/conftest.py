from pathlib import Path

import pytest
from safetensors.torch import save_file

from med_duallora.backbone import BackboneConfig, CineMAClassifier, build_classifier
from med_duallora.pretraining.mae import DECODERS, MaskedAutoencoder


@pytest.fixture(scope="session")
def tiny() -> BackboneConfig:
    return BackboneConfig.preset("cinema-tiny")


@pytest.fixture
def model(tiny) -> CineMAClassifier:
    return build_classifier(tiny, seed=3).eval()


@pytest.fixture
def classifier_file(model, tmp_path) -> Path:
    path = tmp_path / "classifier.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture
def mae_file(tiny, tmp_path) -> Path:
    path = tmp_path / "mae.safetensors"
    save_file(MaskedAutoencoder(tiny, DECODERS["cinema-tiny"], seed=3).state_dict(), path)
    return path
