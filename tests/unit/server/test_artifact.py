import json
import resource

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file

from med_duallora import __version__
from med_duallora.backbone import packaged_checkpoint
from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import ArtifactError
from med_duallora.server.artifact import INTENDED_USE, adapter_manifest, load_adapter, save_adapter
from med_duallora.settings.config import JobConfig
from med_duallora.support.files import sha256_of_file
from tests.unit.tiny import random_payload, same

JOB = JobConfig(backbone="cinema-tiny")
CONTRACT = EgressContract.for_job(JOB)


@pytest.fixture
def saved(tmp_path):
    manifest = adapter_manifest(JOB, CONTRACT, round=3, sites=["ge", "canon"])
    return save_adapter(tmp_path / "run", "adapter_best", random_payload(CONTRACT), manifest)


def test_an_adapter_comes_back_as_it_was(saved):
    tensors, manifest = load_adapter(saved)
    assert same(tensors, random_payload(CONTRACT))
    assert manifest["round"] == 3
    assert manifest["sites"] == ["ge", "canon"]
    assert sorted(path.name for path in saved.parent.iterdir()) == ["adapter_best.json", "adapter_best.safetensors"]


def test_the_manifest_says_what_a_reader_must_know(saved):
    _, manifest = load_adapter(saved)
    assert manifest["intended_use"] == INTENDED_USE
    assert "not for diagnosis" in INTENDED_USE
    assert manifest["contract_sha256"] == CONTRACT.sha256
    assert manifest["n_parameters"] == CONTRACT.n_parameters == sum(v.size for v in load_file(saved).values())
    assert (manifest["method"], manifest["backbone"]) == ("med-duallora", "cinema-tiny")
    assert manifest["lora"] == JOB.to_dict()["lora"]
    assert manifest["n_rounds_planned"] == JOB.train.n_rounds
    assert manifest["versions"]["med_duallora"] == __version__
    assert {"nvflare", "torch", "numpy", "python"} <= set(manifest["versions"])


@pytest.mark.parametrize(
    ("settings", "expected", "reason"),
    [
        (["backbone=cinema-tiny"], None, "nothing agreed"),
        (["backbone=cinema-tiny", f"backbone_sha256={'a' * 64}"], "a" * 64, "pinned by the job"),
        (["backbone=cinema-mini"], sha256_of_file(packaged_checkpoint("cinema-mini")), "the shipped one"),
    ],
)
def test_the_manifest_names_the_backbone_that_the_adapter_belongs_to(settings, expected, reason):
    job = JobConfig().with_overrides(settings)
    manifest = adapter_manifest(job, EgressContract.for_job(job))
    assert manifest["backbone_sha256"] == expected, reason


def test_any_memory_layout_is_stored_right(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = save_adapter(tmp_path, "a", {"t": value.T, "s": value[:, ::2]}, {})
    tensors, _ = load_adapter(path)
    assert np.array_equal(tensors["t"], value.T)
    assert np.array_equal(tensors["s"], value[:, ::2])


def test_a_later_adapter_replaces_an_earlier_one(saved):
    save_adapter(saved.parent, "adapter_best", random_payload(CONTRACT, 1), {"round": 4})
    tensors, manifest = load_adapter(saved)
    assert same(tensors, random_payload(CONTRACT, 1))
    assert manifest["round"] == 4


def test_a_write_that_the_kernel_refuses_leaves_the_older_adapter_whole(saved):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))  # as a full disk, with an error of its own
    try:
        with pytest.raises((SafetensorError, OSError)):
            save_adapter(saved.parent, "adapter_best", random_payload(CONTRACT, 1), {"round": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tensors, manifest = load_adapter(saved)
    assert same(tensors, random_payload(CONTRACT)) and manifest["round"] == 3
    assert sorted(path.name for path in saved.parent.iterdir()) == ["adapter_best.json", "adapter_best.safetensors"]


@pytest.mark.parametrize("n_replaced", [0, 1, 2])
def test_a_crash_at_any_step_leaves_the_older_or_the_newer_adapter_whole(saved, monkeypatch, n_replaced):
    """A save replaces the manifest, the tensors and the manifest again; it is broken off before each of them."""
    plain, done = type(saved).replace, []

    def crash_later(path, target):
        if len(done) == n_replaced:
            raise KeyboardInterrupt
        done.append(target)
        return plain(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(saved), "replace", crash_later)
        with pytest.raises(KeyboardInterrupt):
            save_adapter(saved.parent, "adapter_best", random_payload(CONTRACT, 1), {"round": 4})
    tensors, manifest = load_adapter(saved)
    expected = (1, 4) if n_replaced == 2 else (0, 3)
    assert same(tensors, random_payload(CONTRACT, expected[0]))
    assert manifest["round"] == expected[1]
    save_adapter(saved.parent, "adapter_best", random_payload(CONTRACT, 2), {"round": 5})
    assert json.loads(saved.with_suffix(".json").read_text()).keys() == {"round", "sha256"}
    assert load_adapter(saved)[1]["round"] == 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_manifest_is_strict_json(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_adapter(tmp_path, "a", random_payload(CONTRACT), {"residual": value})
    assert not (tmp_path / "a.json").exists()


def rewritten(path, text):
    path.with_suffix(".json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message", "reason"),
    [
        (lambda p: p.unlink(), "is missing; an adapter is", "no tensors"),
        (lambda p: p.with_suffix(".json").unlink(), r"adapter_best.json is missing", "no manifest"),
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), "is damaged", "tensors cut off"),
        (lambda p: p.write_bytes(b"zip"), "is damaged", "no tensors at all"),
        (lambda p: p.write_bytes(b""), "is damaged", "an empty file"),
        (lambda p: rewritten(p, "{"), "is damaged", "half a manifest"),
        (lambda p: p.with_suffix(".json").write_bytes(b"\xff\xfe"), "is damaged", "a manifest that is not text"),
        (lambda p: rewritten(p, "[]"), "is damaged: it must hold one JSON object", "a manifest that is not an object"),
        (lambda p: rewritten(p, '{"round": 3}'), "sha256 differs", "a manifest without a hash"),
        (
            lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x01"),
            "not the one its manifest adapter_best.json describes",
            "one byte of a number changed",
        ),
        (
            lambda p: rewritten(p, json.dumps({"sha256": "0" * 64})),
            "not the one its manifest adapter_best.json describes",
            "the manifest of another adapter",
        ),
    ],
)
def test_damaged_adapters_are_refused(saved, damage, message, reason):
    damage(saved)
    with pytest.raises(ArtifactError, match=message):
        load_adapter(saved)


def test_a_folder_is_no_adapter(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(ArtifactError):
        load_adapter(tmp_path / "a.safetensors")


def test_an_adapter_of_another_version_is_refused_with_what_to_do(saved):
    manifest = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps({**manifest, "manifest_version": "0"}))
    with pytest.raises(ArtifactError, match=r"written by another version .*'0', this one reads '1'\): use the version"):
        load_adapter(saved)
