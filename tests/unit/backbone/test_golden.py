"""Parity with the reference implementation's activations (../shared/golden/cinema_small, made from random weights)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from med_duallora.backbone import BackboneConfig, CineMAClassifier, load_classifier

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden" / "cinema_small"
TOLERANCE = 1e-5

pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden CineMA data is not beside this checkout")


def golden_config() -> BackboneConfig:
    values = json.loads((GOLDEN / "config.json").read_text())
    known = {key: values[key] for key in BackboneConfig.__dataclass_fields__ if key in values}
    return BackboneConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in known.items()})


@torch.no_grad()
def activations(model: CineMAClassifier, x: torch.Tensor) -> dict[str, torch.Tensor]:
    tokens, skips = model.embed(x)
    found = {"tokens": tokens}
    hidden = model.with_cls(tokens)
    for i, block in enumerate(model.blocks):
        hidden = block(hidden)
        found[f"block_{i}"] = hidden
    found["features_cls"], found["features_sax"] = model.finish(hidden, model.fusion_term(skips))
    return found | {f"logits_{reduce}": model(x, reduce=reduce) for reduce in ("all", "patch", "cls")}


@pytest.mark.parametrize("kind", ["classifier", "mae"])
def test_every_activation_matches_the_reference(kind):
    expected = load_file(GOLDEN / "expected.safetensors")
    found = activations(load_classifier(GOLDEN / f"{kind}.safetensors", golden_config()), expected["input"])
    # the reference's head was set after loading, so the autoencoder file has no logits to compare
    names = set(expected) - {"input"} - ({n for n in expected if n.startswith("logits")} if kind == "mae" else set())
    errors = {name: float((found[name] - expected[name]).abs().max()) for name in names}
    assert len(errors) == (10 if kind == "classifier" else 7)
    assert max(errors.values()) <= TOLERANCE, errors


def test_autoencoder_with_the_classifiers_head_gives_its_logits():
    expected = load_file(GOLDEN / "expected.safetensors")
    model = load_classifier(GOLDEN / "mae.safetensors", golden_config())
    tensors = load_file(GOLDEN / "classifier.safetensors")
    heads = {k.removeprefix("pred_head_dict."): v for k, v in tensors.items() if k.startswith("pred_head_dict.")}
    model.pred_head_dict.load_state_dict(heads)
    with torch.no_grad():
        assert torch.allclose(model(expected["input"]), expected["logits_all"], rtol=0, atol=TOLERANCE)


def test_computed_position_embedding_is_the_stored_one():
    model = load_classifier(GOLDEN / "classifier.safetensors", golden_config())
    stored = load_file(GOLDEN / "classifier.safetensors")["enc_down_dict.sax.pos_embed"]
    assert torch.allclose(model.token_embedding.pos_embed, stored, rtol=0, atol=1e-6)
