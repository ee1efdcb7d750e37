"""A model from disk: it predicts what the evaluation said, from a run, an experiment or one file; damage is said."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from med_duallora import load_model, save_model
from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.errors import ArtifactError, CheckpointError, InputError
from med_duallora.inference.scan import ScanSource
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import tempered
from med_duallora.site.kept_calibration import KeptCounts, keep, read_kept
from med_duallora.support.digest import content_digest
from tests.unit.inference.conftest import Trained


def chances(trained: Trained, place: Path) -> dict[str, float]:
    model = load_model(place, backbone_checkpoint=trained.checkpoint, device="cpu")
    return {subject.subject: model.predict(subject.ed_path.parent).probability for subject in trained.subjects}


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the run's folder, to be damaged."""
    return Path(shutil.copytree(trained.run, tmp_path / "experiment" / trained.run.name))


@pytest.fixture
def file(trained: Trained, tmp_path: Path) -> Path:
    model = load_model(trained.run, backbone_checkpoint=trained.checkpoint, device="cpu")
    return save_model(model.saved, tmp_path / "model.safetensors")


def test_it_says_what_the_evaluation_said(trained: Trained, file: Path) -> None:
    for place in (trained.run, trained.experiment, trained.run / "state.safetensors", file):
        assert chances(trained, place) == pytest.approx(trained.said, rel=0, abs=1e-6)
    assert len(set(trained.said.values())) == len(trained.said)


def test_of_several_runs_the_one_saved_last_counts(trained: Trained, run: Path) -> None:
    model = load_model(run.parent, backbone_checkpoint=trained.checkpoint)
    older = run.rename(run.with_name("f" * 32))
    shutil.copytree(older, run)
    state = run / "state.safetensors"
    newer = (older / "state.safetensors").stat().st_mtime_ns + 10**9
    os.utime(state, ns=(newer, newer))
    (older / "model.json").unlink()  # it is not looked at
    assert load_model(run.parent, backbone_checkpoint=trained.checkpoint).saved.sha256 == model.saved.sha256


def test_a_model_file_holds_all_that_a_reader_must_know_and_no_place(trained: Trained, file: Path) -> None:
    assert file.stat().st_mode & 0o777 == 0o600
    with safe_open(file, framework="numpy") as stream:
        facts = json.loads(stream.metadata()["med_duallora_model"])
    assert facts["intended_use"] == "Research use only, not for diagnosis."
    assert facts["site"] == "siemens"
    assert facts["lineage"][-1][0] == trained.run.name
    assert set(facts["versions"]) == {"med_duallora", "python", "numpy", "torch"}
    assert str(trained.run.parents[1]) not in json.dumps(facts)
    assert not [name for name in load_file(file) if name.startswith("moments/")]


def test_the_gate_goes_along_in_a_model_file(trained: Trained, run: Path, tmp_path: Path) -> None:
    kept = read_kept(run)
    assert kept is not None
    keep(run, replace(kept, release=ReleaseFloors(min_sensitivity=0.5), test=KeptCounts(0, 1, 1, 1)))
    model = load_model(run, backbone_checkpoint=trained.checkpoint)
    assert not model.saved.gate.passed
    assert model.saved.to_dict()["released"] is False
    again = load_model(save_model(model.saved, tmp_path / "m.safetensors"), backbone_checkpoint=trained.checkpoint)
    assert again.saved.gate == model.saved.gate
    assert again.saved.sha256 == model.saved.sha256


def test_a_model_that_was_never_evaluated_or_was_trained_on_since_is_not_released(trained: Trained, run: Path) -> None:
    kept = read_kept(run)
    assert kept is not None
    assert load_model(run, backbone_checkpoint=trained.checkpoint).saved.gate.passed, "no floor is set"
    keep(run, replace(kept, state="0" * 64, calibration=replace(kept.calibration, threshold=0.9)))
    stale = load_model(run, backbone_checkpoint=trained.checkpoint).saved
    assert "another state" in stale.gate.sentence
    assert stale.calibration.threshold == 0.5, "of another state's threshold nothing is known"
    (run / "calibration.json").unlink()
    assert "never evaluated" in load_model(run, backbone_checkpoint=trained.checkpoint).saved.gate.sentence


def test_further_floors_raise_the_gate_and_cannot_lower_it(trained: Trained, run: Path) -> None:
    kept = read_kept(run)
    assert kept is not None
    keep(run, replace(kept, release=ReleaseFloors(min_specificity=0.9), test=KeptCounts(1, 1, 1, 2)))
    saved = load_model(run, backbone_checkpoint=trained.checkpoint).saved
    assert not saved.gate.passed
    assert not saved.under(ReleaseFloors(min_specificity=0.1)).gate.passed
    keep(run, replace(kept, test=KeptCounts(1, 1, 1, 2)))
    saved = load_model(run, backbone_checkpoint=trained.checkpoint).saved
    assert saved.gate.passed
    assert not saved.under(ReleaseFloors(min_specificity=0.6)).gate.passed


def test_a_calibrated_probability_stands_beside_the_models_own(trained: Trained, run: Path) -> None:
    kept = read_kept(run)
    assert kept is not None
    keep(run, replace(kept, calibration=replace(kept.calibration, temperature=2.0)))
    model = load_model(run, backbone_checkpoint=trained.checkpoint)
    found = model.predict(trained.subjects[0].ed_path.parent)
    assert found.probability == pytest.approx(trained.said[trained.subjects[0].subject], rel=0, abs=1e-6)
    assert found.calibrated == pytest.approx(float(tempered(found.probability, 2.0)))
    assert found.calibrated != found.probability


def set_threshold(run: Path, threshold: float) -> None:
    """As if the evaluation had fitted another one."""
    kept = read_kept(run)
    assert kept is not None
    keep(run, replace(kept, calibration=replace(kept.calibration, threshold=float(threshold))))


def test_where_a_threshold_was_fitted_it_decides(trained: Trained, run: Path, tmp_path: Path) -> None:
    before = load_model(run, backbone_checkpoint=trained.checkpoint)
    chance = before.predict(trained.subjects[0].ed_path.parent).probability
    set_threshold(run, chance)
    low = load_model(run, backbone_checkpoint=trained.checkpoint)
    assert low.predict(trained.subjects[0].ed_path.parent).decision == "disease"
    set_threshold(run, np.nextafter(chance, 1))
    high = load_model(run, backbone_checkpoint=trained.checkpoint)
    assert high.predict(trained.subjects[0].ed_path.parent).decision == "normal"
    assert len({model.saved.sha256 for model in (before, low, high)}) == 3
    again = load_model(save_model(high.saved, tmp_path / "m.safetensors"), backbone_checkpoint=trained.checkpoint)
    assert again.saved.calibration == high.saved.calibration


def _cut(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:-100])

    return change


def _flip(run: Path) -> None:
    content = bytearray((run / "state.safetensors").read_bytes())
    content[-3] ^= 1
    (run / "state.safetensors").write_bytes(content)


def _job(**changes: object) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        facts = json.loads((run / "model.json").read_text())
        (run / "model.json").write_text(json.dumps({**facts, **changes}))

    return change


def _other_experiment(run: Path) -> None:
    facts = json.loads((run / "model.json").read_text())
    facts["job"]["experiment"] = "other"
    (run / "model.json").write_text(json.dumps(facts))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut state": (_cut("state.safetensors"), "state.safetensors cannot be used: the file is damaged"),
    "flipped bit": (_flip, "its bytes are not those that were written"),
    "cut settings": (_cut("model.json"), "model.json cannot be read: it is not JSON"),
    "no settings": (lambda run: (run / "model.json").unlink(), "has no model.json"),
    "no state": (lambda run: (run / "state.safetensors").unlink(), "has not finished a round"),
    "state of another site": (_job(site="philips"), "state of another experiment, site or method"),
    "state of another experiment": (_other_experiment, "state of another experiment, site or method"),
    "settings of another version": (_job(job={"new": 1}), "does not hold the settings of a job of this version"),
    "no lineage": (_job(lineage=3), "does not hold the settings of a job of this version"),
    "threshold": (
        lambda run: (run / "calibration.json").write_text('{"threshold": 0.5}'),
        "calibration.json is damaged or of another version",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_cannot_be_used_is_said_in_a_sentence_and_left_as_it_is(name: str, run: Path, trained: Trained) -> None:
    damage, sentence = DAMAGES[name]
    damage(run)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ArtifactError) as caught:
        load_model(run, backbone_checkpoint=trained.checkpoint)
    assert sentence in str(caught.value)
    assert str(run) in str(caught.value)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_damaged_model_file_is_said(file: Path, trained: Trained, tmp_path: Path) -> None:
    content = file.read_bytes()
    with safe_open(file, framework="numpy") as stream:
        metadata = stream.metadata()
    tensors = load_file(file)
    cases = {"cut": content[:-10], "flipped": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}
    for name, damaged in cases.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ArtifactError, match="damaged"):
            load_model(tmp_path / name, backbone_checkpoint=trained.checkpoint)
    changes: list[dict[str, object]] = [{name: None} for name in ("site", "round", "model_version", "job")]
    changes += [{"evaluation": 3}, {"evaluation": {"calibration": {"threshold": 2}}}]
    for change in changes:
        facts = json.loads(metadata["med_duallora_model"])
        text = json.dumps({**facts, **change})
        checksum = content_digest(tensors, {"med_duallora_model": text})
        save_file(tensors, tmp_path / "odd", metadata={"med_duallora_model": text, "checksum": checksum})
        with pytest.raises(ArtifactError):
            load_model(tmp_path / "odd", backbone_checkpoint=trained.checkpoint)


def test_another_backbone_is_refused_with_both_hashes(trained: Trained, tmp_path: Path) -> None:
    other = build_classifier(BackboneConfig.preset("cinema-tiny"), seed=8)
    path = tmp_path / "other.safetensors"
    save_torch({name: value.contiguous() for name, value in other.state_dict().items()}, path)
    with pytest.raises(CheckpointError, match=r"trained on the backbone checkpoint with the SHA-256 .*give the former"):
        load_model(trained.run, backbone_checkpoint=path)
    with pytest.raises(CheckpointError, match="no checkpoint is shipped for backbone 'cinema-tiny'"):
        load_model(trained.run)


@pytest.mark.parametrize(
    ("below", "sentence"),
    [("nowhere", "does not exist"), (".", "holds no saved state of a site"), ("text.txt", "not a safetensors file")],
)
def test_what_is_not_a_model_is_said(below: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("nothing")
    with pytest.raises(InputError, match=sentence):
        load_model(tmp_path / below)


def test_the_folder_above_the_experiments_names_them(trained: Trained) -> None:
    with pytest.raises(ArtifactError, match=f"give one of its experiments, such as .*{trained.experiment.name}"):
        load_model(trained.experiment.parent)


def test_a_result_holds_what_a_page_shows(trained: Trained) -> None:
    model = load_model(trained.run, backbone_checkpoint=trained.checkpoint)
    subject = trained.subjects[0]
    result = model.predict(ScanSource(subject.ed_path.parent, subject=subject))
    assert result.scan.mid_slices.shape == (2, 192, 192)
    assert result.scan.n_slices == 4
    assert result.decision == ("disease" if result.probability >= 0.5 else "normal")
    assert result.distance is not None
    assert result.distance.n_subjects == 6


def test_a_site_that_only_evaluates_has_no_model_and_reads_what_helps(tmp_path: Path) -> None:
    run = tmp_path / "experiment" / ("ab" * 16)
    run.mkdir(parents=True)
    (run / "predictions.json").write_text("{}")
    for place in (run, run.parent):
        with pytest.raises(
            ArtifactError, match=r"a site that only evaluates keeps none\. `med-duallora fit-head` makes"
        ):
            load_model(place)
