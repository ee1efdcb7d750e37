from dataclasses import replace

import numpy as np
import pytest
import torch

from med_duallora.errors import ConfigError, UnfitError
from med_duallora.settings.config import SiteConfig
from med_duallora.support.devices import resolve_device
from tests.conftest import write_tiny_cohort
from tests.unit.refused import refused
from tests.unit.tiny_site import JOB, START, cohort_with, runtime_of


@pytest.fixture
def config(tiny_sites) -> SiteConfig:
    return tiny_sites["siemens"]


@pytest.mark.parametrize(
    ("label", "message", "reason"),
    [
        (
            "1",
            r"training needs both classes, and its train split has 0 normal \(NOR\) and 6 diseased",
            "no normal subject",
        ),
        ("0", r"6 normal \(NOR\) and 0 diseased.*into the column split of cohort\.csv", "no diseased subject"),
    ],
)
def test_a_cohort_of_one_class_is_refused(config, tmp_path, label, message, reason):
    folder = write_tiny_cohort(tmp_path / "cohort", "siemens", 0)
    cohort_with(folder, lambda row: {**row, "label": label if row["split"] == "train" else row["label"]})
    with pytest.raises(UnfitError, match=message):
        runtime_of(replace(config, data_dir=folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone_checkpoint": "missing.safetensors"}, "missing.safetensors', but it is not a readable file"),
        ({"backbone_checkpoint": ""}, "but it is not a readable file"),
        ({"backbone_checkpoint": None}, "no checkpoint is shipped for backbone 'cinema-tiny'"),
        ({"data_dir": "nowhere"}, "nowhere', but there is no such folder"),
    ],
)
def test_unusable_site_settings_are_refused(config, tmp_path, change, message):
    change = {name: tmp_path / value if isinstance(value, str) else value for name, value in change.items()}
    with pytest.raises(UnfitError, match=message):
        runtime_of(replace(config, **change))


def test_another_backbone_than_the_job_s_is_refused(config):
    with pytest.raises(UnfitError, match=f"the job pins the checkpoint {'a' * 64}, but backbone_checkpoint"):
        runtime_of(config, JOB.with_overrides([f"backbone_sha256={'a' * 64}"]))


def test_pinning_the_backbone_keeps_the_state(config):
    runtime = runtime_of(config)
    pinned = runtime_of(config, JOB.with_overrides([f"backbone_sha256={runtime.model.backbone_sha256}"]))
    runtime.train_round(START, 0)
    assert pinned.model.store.latest(before_round=1) is not None


def test_unusable_jobs_are_refused(config):
    with refused("lora.n_blocks", 9, "at most 3"):
        runtime_of(config, JOB.with_overrides(["lora.n_blocks=9"]))


@pytest.mark.parametrize(
    ("incoming", "message", "reason"),
    [
        (lambda s: {**s, "extra": np.zeros(1)}, "extra is unexpected", "an extra tensor"),
        (lambda s: dict(list(s.items())[1:]), "is missing", "a missing tensor"),
    ],
)
def test_a_global_state_that_does_not_fit_is_refused(config, incoming, message, reason):
    with pytest.raises(ValueError, match=message):
        runtime_of(config).train_round(incoming(START), 0)


@pytest.mark.parametrize(
    ("name", "n_devices", "expected", "reason"),
    [
        ("cpu", 0, "cpu", "as said"),
        ("cpu", 1, "cpu", "also where a GPU is"),
        ("auto", 0, "cpu", "no GPU"),
        ("auto", 1, "cuda", "the GPU"),
        ("cuda", 1, "cuda", "as said"),
        ("cuda:1", 2, "cuda:1", "the second of two"),
    ],
)
def test_devices(monkeypatch, name, n_devices, expected, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    assert resolve_device(name) == torch.device(expected), reason


@pytest.mark.parametrize(
    ("name", "n_devices", "message"),
    [
        ("cuda", 0, "device = 'cuda', but this machine has no usable CUDA device; use cpu or auto"),
        ("cuda:0", 0, "device = 'cuda:0', but this machine has no usable CUDA device"),
        ("cuda:2", 2, r"device = 'cuda:2', but this machine has 2 CUDA device\(s\)"),
    ],
)
def test_devices_that_are_not_there_are_refused_and_not_replaced(monkeypatch, config, name, n_devices, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    with pytest.raises(ConfigError, match=message):
        resolve_device(name)
    with pytest.raises(UnfitError, match=message.partition(";")[0]):
        runtime_of(replace(config, device=name))
