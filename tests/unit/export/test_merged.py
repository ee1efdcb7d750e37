"""A merged checkpoint says what the model with its adapters says, to whoever reads CineMA's format."""

import stat

import pytest
import torch
from safetensors import safe_open

from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.backbone import check_checkpoint, load_classifier
from med_duallora.export.merged import NORM_BIASES, merged_tensors, write_merged
from tests.unit.export.trained import JOBS, OTHER_JOBS, TINY, tiny_images, trained_model
from tests.unit.tiny import digest


@pytest.mark.parametrize("kind", [*JOBS, *OTHER_JOBS])
def test_the_packages_own_loader_gives_the_same_logits(kind: str, tmp_path) -> None:
    model, images, path = trained_model({**JOBS, **OTHER_JOBS}[kind]), tiny_images(3), tmp_path / "merged.safetensors"
    before = digest(model.state_dict())
    with torch.no_grad():
        expected = model(images)
        write_merged(path, model, {"intended_use": "tests"})
        found = load_classifier(path, TINY)(images)
    assert (found - expected).abs().max() < 1e-5
    assert expected.abs().max() > 0.1, "a model that says nothing proves nothing"
    assert digest(model.state_dict()) == before


def test_heads_read_centred_features(tmp_path) -> None:
    """A head that took the means off itself would subtract large numbers, and round away what subjects differ in."""
    model, images, path = trained_model(JOBS["med-duallora"]), tiny_images(4), tmp_path / "merged.safetensors"
    with torch.no_grad():
        for key in NORM_BIASES.values():
            model.classifier.get_parameter(key).add_(torch.linspace(-40, 40, TINY.embed_dim))
        model.head_norm.fit(model.summaries(model.trunk(images)))
        expected = model(images)
        write_merged(path, model, {})
        merged = load_classifier(path, TINY)
        cls, patches = merged.features(images)
        found = merged(images)
    assert model.head_norm.mean.abs().max() > 30
    for part in (cls[:, 0], patches.mean(dim=1)):
        assert part.mean(dim=0).abs().max() < 1e-4
    for name, head in merged.pred_head_dict.items():
        own = model.get_parameter(f"classifier.pred_head_dict.{name}.bias")
        assert (head.get_parameter("bias") - own).abs().max() < 1e-3
    assert (found - expected).abs().max() < 1e-3


def test_it_is_the_file_that_cinema_writes(tmp_path) -> None:
    path = tmp_path / "merged.safetensors"
    write_merged(path, trained_model(JOBS["med-duallora"]), {"intended_use": "tests"})
    check_checkpoint(path, "cinema-tiny")
    with safe_open(path, framework="pt") as stream:
        assert stream.metadata() == {"format": "pt", "intended_use": "tests"}
        names = set(stream.keys())
    assert "enc_down_dict.sax.pos_embed" in names
    assert not [name for name in names if ".base." in name or "_a" in name.rpartition(".")[2]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_both_adapters_are_in_it() -> None:
    model = trained_model(JOBS["med-duallora"])
    merged = merged_tensors(model)
    name = f"encoder.blocks.{model.cut}.attn.q"
    layer = model.classifier.get_submodule(name)
    assert isinstance(layer, DualLoRALinear)
    change = merged[f"{name}.weight"] - layer.base.weight
    factors = layer.factors()
    assert factors is not None
    torch.testing.assert_close(change, factors[1] @ factors[0], rtol=0, atol=1e-5)


def test_a_full_disk_leaves_nothing(tmp_path, full_disk) -> None:
    with pytest.raises(OSError, match="File too large"):
        write_merged(tmp_path / "merged.safetensors", trained_model(JOBS["med-duallora"]), {})
    assert list(tmp_path.iterdir()) == []
