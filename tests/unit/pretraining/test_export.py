import json

import torch
from safetensors.torch import load_file

from med_duallora.backbone import BackboneConfig, load_classifier
from med_duallora.pretraining.export import export
from med_duallora.pretraining.run import PretrainConfig, pretrain
from med_duallora.support.files import sha256_of_file


def test_checkpoint_manifest_and_curve(pool, tmp_path):
    config = PretrainConfig(preset="cinema-tiny", n_steps=3, batch_size=2, norm_target=True, motion_weight=2.5)
    state = pretrain(config, pool, tmp_path / "run.safetensors", say=lambda _: None)
    out = tmp_path / "tiny.safetensors"
    manifest = export(out, config, pool, state, "phantoms of a test")
    assert json.loads(out.with_suffix(".json").read_text()) == manifest
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert manifest["sha256"] == sha256_of_file(out)
    assert manifest["data"]["recipe"] == "phantoms of a test"
    assert manifest["data"]["n_subjects"] == 6
    assert [point["step"] for point in manifest["loss_curve"]] == [1, 2, 3]
    assert "--steps 3 --batch-size 2" in manifest["command"]
    assert "--frames pair --motion-weight 2.5" in manifest["command"]
    assert manifest["command"].endswith("--seed 0 --norm-target")
    assert str(tmp_path) not in json.dumps(manifest)
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.float16}


def test_classifier_loads_what_was_exported(pool, tmp_path):
    config = PretrainConfig(preset="cinema-tiny", n_steps=2, batch_size=2)
    state = pretrain(config, pool, tmp_path / "run.safetensors", say=lambda _: None)
    out = tmp_path / "tiny.safetensors"
    export(out, config, pool, state, "phantoms of a test")
    model = load_classifier(out, BackboneConfig.preset("cinema-tiny"))
    assert torch.equal(model.encoder.cls_token, state.weights["encoder.cls_token"].half().float())
