"""``med-duallora predict``: the command around ``inference``."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.cli import main
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.kept_calibration import KeptCounts, keep, read_kept
from tests.unit.cohorts.dicomfiles import SPACING, cine
from tests.unit.inference.conftest import Trained, scans, trained

__all__ = ["scans", "trained"]


@pytest.fixture
def base(trained: Trained, tmp_path: Path) -> list[str]:
    checkpoint = ["--backbone-checkpoint", str(trained.checkpoint)]
    return ["predict", "--model", str(trained.experiment), *checkpoint, "--out", str(tmp_path / "out")]


def test_the_test_split_gets_the_evaluations_numbers(
    base: list[str], trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = trained.subjects[0].ed_path.parents[1]
    assert main([*base, "--data", str(cohort), "--split", "test"]) == 0
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"]
    assert {row["scan"]: row["probability"] for row in rows} == pytest.approx(trained.said, rel=0, abs=1e-6)
    said = capsys.readouterr().out
    assert f"{rows[0]['scan']}: probability of disease {rows[0]['probability']:.3f}" in said
    assert "2 predicted, 0 refused" in said
    assert said.endswith("Research use only, not for diagnosis.\n")
    assert main([*base, "--data", str(cohort), "--split", "test"]) == 0
    assert "2 predicted (2 of them earlier), 0 refused" in capsys.readouterr().out


def test_a_raw_pair_and_what_cannot_be_one(base: list[str], scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*base, "--scan", str(scans / "ed.nii.gz"), "--es", str(scans / "es.nii.gz")]) == 0
    assert "voxel size along x outside the training range: 1.8 mm, not 1 to 1 mm" in capsys.readouterr().out
    assert main([*base, "--scan", str(scans / "ed.nii.gz")]) == 2
    said = capsys.readouterr()
    assert "is one frame, but ED and ES are needed" in said.out
    assert "0 predicted, 1 refused" in said.out
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("scan", "sentence"),
    [
        (["long_axis.nii.gz", "--es", "long_axis_es.nii.gz"], "a heart needs 3 or more"),
        (["ed.nii.gz"], "is one frame, but ED and ES are needed"),
        (["nowhere.nii.gz"], "nowhere.nii.gz does not exist"),
        (["empty.nii.gz", "--es", "es.nii.gz"], "ED has no contrast"),
    ],
)
def test_what_is_not_a_short_axis_cine_is_refused_in_one_sentence(
    scan: list[str], sentence: str, base: list[str], scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(scans / "long_axis_es.nii.gz", cine()[:, :, 2:3, 7], np.diag([*SPACING, 1.0]))
    write_nifti(scans / "long_axis.nii.gz", cine()[:, :, 2:3, 2], np.diag([*SPACING, 1.0]))
    files = [str(scans / word) if word.endswith(".gz") else word for word in scan]
    assert main([*base, "--scan", *files]) == 2
    said = capsys.readouterr()
    (line,) = [line for line in said.out.splitlines() if ": refused: " in line]
    assert sentence in line
    assert "Traceback" not in said.err


def test_another_backbone_and_what_is_not_a_state_are_refused_in_one_sentence(
    base: list[str], trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    weights = build_classifier(BackboneConfig.preset("cinema-tiny"), seed=8).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, other)
    (tmp_path / "empty").mkdir()
    cases = {
        ("--backbone-checkpoint", str(other)): "the model was trained on the backbone checkpoint with the SHA-256",
        ("--model", str(tmp_path / "empty")): "holds no saved state of a site",
        ("--model", str(trained.checkpoint)): "global adapter is for `fit-head`, or for `predict --adapter`",
    }
    for more, sentence in cases.items():
        assert main([*base, *more, "--scan", str(trained.subjects[0].ed_path.parent)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert sentence in line
    assert not (tmp_path / "out").exists()


def test_the_site_configuration_tells_the_backbone(base: list[str], trained: Trained, tmp_path: Path) -> None:
    config = tmp_path / "site.json"
    config.write_text(json.dumps(asdict(trained.config), default=str))
    subject = str(trained.subjects[0].ed_path.parent)
    arguments = [item for item in base if item not in ("--backbone-checkpoint", str(trained.checkpoint))]
    assert main([*arguments, "--scan", subject]) == 2
    assert main([*arguments, "--scan", subject, "--site-config", str(config)]) == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ([], "give at least one --scan, or a prepared cohort with --data"),
        (["--scan", "a", "--scan", "b", "--es", "c"], "--es belongs to one --scan, and there are 2"),
        (["--scan", "a", "--split", "test"], "--split is of the cohort of --data, which is not given"),
        (["--data", "nowhere"], "nowhere"),
        (["--scan", "a", "--site-config", "nowhere.json"], "site configuration nowhere.json"),
        (["--scan", "a", "--model", "nowhere"], "nowhere does not exist; give a site's STATE_DIR/EXPERIMENT"),
    ],
)
def test_bad_usage_is_said(
    more: list[str], sentence: str, base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*base, *more]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_state_of_another_experiment_is_said(
    base: list[str], trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(trained.run, tmp_path / "other" / trained.run.name))
    facts = json.loads((run / "model.json").read_text())
    facts["job"]["lora"]["rank_global"] += 1
    (run / "model.json").write_text(json.dumps(facts))
    assert main([*base, "--model", str(run), "--scan", str(trained.subjects[0].ed_path.parent)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "state of another experiment, site or method" in line


@pytest.fixture
def failing(trained: Trained, tmp_path: Path) -> Path:
    """The run's folder of a site whose floor the model does not reach."""
    run = Path(shutil.copytree(trained.run, tmp_path / "failing" / trained.run.name))
    kept = read_kept(run)
    assert kept is not None
    keep(run, replace(kept, release=ReleaseFloors(min_specificity=0.6), test=KeptCounts(1, 1, 1, 2)))
    return run


def test_a_model_that_failed_its_gate_predicts_only_ungated(
    base: list[str], failing: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*base, "--model", str(failing), "--scan", str(trained.subjects[0].ed_path.parent)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("med-duallora predict: Release gate failed: specificity 0.50 (95 % ")
    assert said.endswith("floor 0.6: it is used only with --ungated.\n")
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--ungated"]) == 0
    assert "This model is not released. Release gate failed" in capsys.readouterr().out
    model = json.loads((tmp_path / "out" / "predictions.json").read_text())["model"]
    assert model["released"] is False
    assert "specificity 0.50" in model["gate"]


def test_floors_of_the_command_and_of_the_site_count_as_well(
    base: list[str], trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = ["--scan", str(trained.subjects[0].ed_path.parent)]
    assert main([*base, *scan, "--min-sensitivity", "1", "--min-specificity", "1"]) == 2
    assert "Release gate failed" in capsys.readouterr().err, "one of two test subjects is wrong"
    config = tmp_path / "site.json"
    stricter = replace(trained.config, release=ReleaseFloors(min_balanced_accuracy=1.0))
    config.write_text(json.dumps(asdict(stricter), default=str))
    assert main([*base, *scan, "--site-config", str(config)]) == 2
    assert "balanced accuracy" in capsys.readouterr().err


def test_the_page_shows_what_was_predicted_and_why_the_rest_was_not(
    base: list[str], trained: Trained, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.subjects[0].ed_path.parent
    arguments = [*base, "--scan", str(folder), "--scan", str(scans / "damaged.nii.gz"), "--page"]
    for _ in range(2):  # the second time, the prediction is an earlier one and is drawn all the same
        assert main(arguments) == 2
        page = tmp_path / "out" / "predictions.html"
        assert f"page (with images of the scans; keep it at the site): {page}" in capsys.readouterr().out
        assert page.stat().st_mode & 0o777 == 0o600
        text = page.read_text()
        assert "must not leave the site. Research use, not for diagnosis." in text
        assert "The parts whose blanking changes most" in text
        assert "damaged.nii.gz cannot be predicted" in text
        page.unlink()
    assert main([*base, "--scan", str(scans / "damaged.nii.gz"), "--page"]) == 2
    assert not page.exists(), "nothing was predicted"
