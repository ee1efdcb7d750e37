"""``med-duallora predict``: the command around ``inference``."""

import json
import shutil
from pathlib import Path

import pytest

from med_duallora.cli import main
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


def test_the_site_configuration_tells_the_backbone(base: list[str], trained: Trained, tmp_path: Path) -> None:
    config = tmp_path / "site.json"
    places = {"data_dir": "x", "state_dir": "x", "cache_dir": "x", "device": "cpu"}
    config.write_text(json.dumps({**places, "backbone_checkpoint": str(trained.checkpoint)}))
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
    facts = json.loads((run / "job.json").read_text())
    facts["job"]["lora"]["rank_global"] += 1
    (run / "job.json").write_text(json.dumps(facts))
    assert main([*base, "--model", str(run), "--scan", str(trained.subjects[0].ed_path.parent)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "state of another experiment, site or method" in line
