"""Adapters that Hugging Face PEFT loads, on the backbone of this package."""

import json
import stat
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.roles import Role
from med_duallora.backbone import CineMAClassifier, build_classifier
from med_duallora.errors import ArtifactError
from med_duallora.export.peft import adapter_pairs, global_pairs, write_global, write_site
from med_duallora.settings.config import JobConfig
from tests.unit.export.trained import JOBS, OTHER_JOBS, TINY, tiny_images, trained_model
from tests.unit.tiny import tiny_job

ABOUT = "# A model of tests"


def loaded(folder: Path, adapter: str = "default") -> Any:
    """PEFT's model on a backbone that was never adapted; its own warnings fail the test."""
    import peft

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected|not found).*")
        return peft.PeftModel.from_pretrained(build_classifier(TINY, seed=7).eval(), str(folder), adapter_name=adapter)


def features(model: CineMAClassifier, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([part.flatten() for part in model.features(images)])


def own_features(model: DualLoRAModel, images: torch.Tensor, *adapters: bool) -> torch.Tensor:
    with torch.no_grad(), model.using(*adapters):
        return torch.cat([part.flatten() for part in model.features(model.trunk(images))])


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-6 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize("kind", JOBS)
def test_peft_computes_what_the_site_computes(kind: str, tmp_path: Path) -> None:
    job, images = JOBS[kind], tiny_images(2)
    model = trained_model(job)
    write_site(tmp_path / "out", job, model, ABOUT)
    base = build_classifier(TINY, seed=7).eval()
    base.load_state_dict(load_file(tmp_path / "out" / "head.safetensors"), strict=False)
    import peft

    found: Any = peft.PeftModel.from_pretrained(base, str(tmp_path / "out"))
    assert alike(features(found.base_model.model, images), own_features(model, images, True, False))
    if (tmp_path / "out" / "local").is_dir():
        found.load_adapter(str(tmp_path / "out" / "local"), adapter_name="local")
        found.base_model.set_adapter(["default", "local"], inference_mode=True)
    with torch.no_grad():
        expected, logits = model(images), found(images)
    assert alike(features(found.base_model.model, images), own_features(model, images, True, True))
    assert (logits - expected).abs().max() < 1e-5, "the head's statistics are folded into its weights"
    assert (tmp_path / "out" / "local").is_dir() == bool(model.plan.lora.rank_local)


@pytest.mark.parametrize("kind", OTHER_JOBS)
def test_what_is_more_than_a_sum_of_adapters_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="export the model as a checkpoint instead"):
        write_site(tmp_path / "out", OTHER_JOBS[kind], trained_model(OTHER_JOBS[kind]), ABOUT)
    assert not (tmp_path / "out").exists()


def test_the_local_adapter_acts_by_itself_as_well(tmp_path: Path) -> None:
    job, images = JOBS["other scales"], tiny_images(2)
    model = trained_model(job)
    write_site(tmp_path / "out", job, model, ABOUT)
    found = loaded(tmp_path / "out" / "local", "local")
    assert alike(features(found.base_model.model, images), own_features(model, images, False, True))


def test_a_second_adapter_does_not_train_the_wrong_one(tmp_path: Path) -> None:
    """What the README warns of, and that what it tells to do instead holds."""
    model = trained_model(JOBS["med-duallora"])
    write_site(tmp_path / "out", JOBS["med-duallora"], model, ABOUT)
    found = loaded(tmp_path / "out")
    found.load_adapter(str(tmp_path / "out" / "local"), adapter_name="local")

    def trained() -> set[str]:
        return {name.split(".")[-2] for name, value in found.named_parameters() if value.requires_grad}

    assert trained() == set(), "nothing trains after loading"
    found.base_model.set_adapter(["default", "local"])
    assert trained() == {"default", "local"}, "the trap: the adapter of all sites would train"
    found.base_model.set_adapter(["default", "local"], inference_mode=True)
    assert trained() == set()
    for name, value in found.named_parameters():
        value.requires_grad_(".local." in name)
    assert trained() == {"local"}
    before = {name: value.detach().clone() for name, value in found.named_parameters()}
    optimizer = torch.optim.SGD([value for value in found.parameters() if value.requires_grad], lr=1.0)
    found(tiny_images(2)).sum().backward()
    optimizer.step()
    changed = {name for name, value in found.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert all(".local." in name for name in changed)


@pytest.mark.parametrize("kind", ["med-duallora", "shared head", "one adapter", "fixed A"])
def test_the_servers_adapter_is_the_default_one(kind: str, tmp_path: Path) -> None:
    job, images = JOBS[kind], tiny_images(2)
    model = trained_model(job)
    write_global(tmp_path / "out", job, global_pairs(job, model.values(model.plan.sent)), ABOUT)
    found = loaded(tmp_path / "out")
    assert alike(features(found.base_model.model, images), own_features(model, images, True, False))
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


def test_a_sites_files_are_its_own(tmp_path: Path) -> None:
    write_site(tmp_path / "out", JOBS["med-duallora"], trained_model(JOBS["med-duallora"]), ABOUT)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    readme = (tmp_path / "out" / "README.md").read_text()
    assert readme.startswith(ABOUT)
    assert "Before training on" in readme


def test_layers_are_named_whole(tmp_path: Path) -> None:
    """A short name such as ``q`` would adapt every block, also the frozen ones."""
    job = tiny_job().with_overrides(["lora.n_blocks=1"])
    model = trained_model(job)
    write_site(tmp_path / "out", job, model, ABOUT)
    targets = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]
    assert set(targets) == set(adapter_pairs(model, "global"))
    assert all(name.startswith(f"encoder.blocks.{model.cut}.") for name in targets)


@pytest.mark.parametrize(
    ("job", "change", "message"),
    [
        (JOBS["med-duallora"], lambda found: found.popitem(), "is missing from the adapter"),
        (JOBS["med-duallora"], lambda found: found.update(x=next(iter(found.values()))), "not a part of the job's"),
        (JOBS["med-duallora"], lambda found: found.update({next(iter(found)): next(iter(found.values())).T}), "shape"),
        (tiny_job(method="fedsa-lora"), dict.copy, "stays at each site"),
        (tiny_job(method="fedavg-full"), dict.copy, "trains whole weights, which a PEFT adapter does not hold"),
    ],
)
def test_an_adapter_of_another_job_is_refused(job: JobConfig, change: Any, message: str) -> None:
    model = trained_model(job)
    tensors = model.values(model.plan.sent)
    change(tensors)
    with pytest.raises(ArtifactError, match=message):
        global_pairs(job, tensors)


def test_a_hidden_factor_is_whole_at_its_site() -> None:
    model = trained_model(tiny_job(method="fedsa-lora"))
    assert Role.GLOBAL_B in model.plan.kept
    assert adapter_pairs(model, "global")
