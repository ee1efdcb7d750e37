"""The checkpoint that is shipped, and its manifest."""

import json

import numpy as np
import pytest
import torch

from med_duallora.backbone import BackboneConfig, agreed_sha256, check_agreed, load_classifier, packaged_checkpoint
from med_duallora.backbone.inputs import to_input
from med_duallora.errors import CheckpointError
from med_duallora.support.files import sha256_of_file

MINI = BackboneConfig.preset("cinema-mini")


@pytest.fixture(scope="module")
def manifest():
    return json.loads(packaged_checkpoint("cinema-mini").with_suffix(".json").read_text())


def test_shipped_checkpoint_loads_is_small_and_matches_its_manifest(manifest):
    path = packaged_checkpoint("cinema-mini")
    model = load_classifier(path, MINI)
    assert path.stat().st_size <= 8e6
    assert manifest["sha256"] == sha256_of_file(path)
    assert manifest["preset"] == "cinema-mini"
    assert manifest["architecture"] == MINI.to_dict()
    # made from pairs of frames, so no convolution is repeated and the counts are the same
    encoder = sum(p.numel() for name, p in model.named_parameters() if name.startswith("enc"))
    assert manifest["n_parameters"]["encoder"] == encoder


def runs_of(manifest):
    """The runs that led to the checkpoint, the last one first."""
    runs = [manifest]
    while "init" in runs[-1]:
        runs.append(runs[-1]["init"])
    return runs


def test_manifest_tells_how_to_repeat_the_runs_and_holds_no_path(manifest):
    *anatomy, first = runs_of(manifest)
    assert len(anatomy) == 2
    for run in anatomy:
        assert run["command"].startswith("med-duallora pretrain --data DATA --out OUT --truth TRUTH --init INIT")
        assert "med-duallora phantom --preset study --seed 501" in run["data"]["recipe"]
        assert "label maps" in run["objective"]
    assert first["command"].startswith("med-duallora pretrain --data DATA --out OUT --backbone cinema-mini")
    assert "med-duallora phantom --preset pretrain" in first["data"]["recipe"]
    assert "--mask-ratio 0.75" in first["command"]
    assert manifest["recipe"]["init_sha256"] == manifest["init"]["sha256"]
    assert {"torch", "numpy", "python", "med_duallora"} <= set(manifest["versions"])
    assert not [text for text in ("/tmp", "/home", "/work", "/root") if text in json.dumps(manifest)]


def test_shipped_checkpoint_learned_anatomy(manifest):
    first, last = manifest["loss_curve"][0], manifest["loss_curve"][-1]
    assert last["held_out_loss"] < first["held_out_loss"]
    assert last["maps"] < 0.3
    assert min(value for name, value in last.items() if name.startswith("R2")) > 0.6


PIN, OTHER = "a" * 64, "b" * 64


def test_a_job_is_about_one_checkpoint(manifest):
    assert agreed_sha256("cinema-mini", "") == manifest["sha256"]
    assert agreed_sha256("cinema-mini", PIN) == PIN
    assert agreed_sha256("cinema-base", "") is None, "nothing is shipped and nothing pinned: any will do"
    check_agreed("cinema-mini", "", manifest["sha256"])
    check_agreed("cinema-base", PIN, PIN)
    check_agreed("cinema-base", "", OTHER)


@pytest.mark.parametrize(("preset", "pinned"), [("cinema-mini", ""), ("cinema-mini", PIN), ("cinema-base", PIN)])
def test_another_checkpoint_is_refused(preset, pinned):
    with pytest.raises(CheckpointError, match=rf"the job (pins|is about) .*this site has the SHA-256 {OTHER}: use the"):
        check_agreed(preset, pinned, OTHER)


@pytest.mark.parametrize("name", ["acdc", "mnms", "mnms2"])
def test_real_subjects_give_finite_logits(shared, name):
    import nibabel as nib

    frames = [np.asarray(nib.load(shared / "real_cmr" / f"{name}_sax_{f}.nii.gz").dataobj) for f in ("ed", "es")]
    x = torch.from_numpy(to_input(np.stack(frames), MINI)).unsqueeze(0)
    with torch.inference_mode():
        logits = load_classifier(packaged_checkpoint("cinema-mini"), MINI)(x)
    assert logits.shape == (1, 2)
    assert bool(logits.isfinite().all())
