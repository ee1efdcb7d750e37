from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from med_duallora.backbone import BackboneConfig, CineMAClassifier, build_classifier


@pytest.fixture(autouse=True)
def one_thread():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


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
