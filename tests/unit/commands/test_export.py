"""``med-duallora export``: every form from its own source, and one clear sentence where something is missing."""

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from med_duallora.adapter.model import initial_global_state
from med_duallora.backbone import load_classifier
from med_duallora.backbone.inputs import to_input
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.ledger_audit import read_lines, verify
from med_duallora.cli import main
from med_duallora.cohorts.prepared import load_volume
from med_duallora.server.artifact import adapter_manifest, save_adapter
from tests.unit.cohorts.dicomfiles import write_study
from tests.unit.inference.conftest import Trained, trained
from tests.unit.tiny import TINY
from tests.unit.tiny_site import JOB

__all__ = ["trained"]


@pytest.fixture
def site_config(trained: Trained, tmp_path: Path) -> Path:
    """The trained site's configuration, with a ledger of this test's own."""
    config = replace(trained.config, ledger=tmp_path / "ledger" / "egress_ledger.jsonl", state_dir=tmp_path / "marker")
    values = {name: str(getattr(config, name)) for name in ("data_dir", "state_dir", "cache_dir", "ledger")}
    values |= {"backbone_checkpoint": str(config.backbone_checkpoint), "device": "cpu"}
    path = tmp_path / "site.json"
    path.write_text(json.dumps({**values, "policy": asdict(config.policy)}))
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A global adapter as the server keeps it."""
    facts = {"round": 2, "sites": ["ge", "siemens"], "n_rounds_by_site": {"ge": 3, "siemens": 3}}
    manifest = adapter_manifest(JOB, EgressContract.for_job(JOB), **facts)
    return save_adapter(tmp_path / "server", "adapter_best", initial_global_state(JOB), manifest)


def export(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def own(trained: Trained, site_config: Path) -> list[object]:
    return ["--model", trained.run, "--site-config", site_config]


def probabilities(path: Path, trained: Trained) -> dict[str, float]:
    """What a plain CineMA classifier says of the test subjects."""
    network, found = load_classifier(path, TINY), {}
    for subject in trained.subjects:
        with torch.no_grad():
            logits = network(torch.from_numpy(to_input(load_volume(subject), TINY))[None])
        found[subject.subject] = float(torch.softmax(logits, dim=1)[0, 1])
    return found


def test_a_merged_checkpoint_says_what_the_evaluation_said(
    trained: Trained, site_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged.safetensors"
    assert export("--merged", out, *own(trained, site_config), "--stays-at-site") == 0
    found = probabilities(out, trained)
    assert found == {name: pytest.approx(value, abs=1e-5) for name, value in trained.said.items()}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "not for diagnosis" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["--merged", "--peft", "--monai-bundle"])
def test_a_sites_model_needs_the_sites_word_and_leaves_a_line(
    form: str, trained: Trained, site_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert export(form, out, *own(trained, site_config)) == 2
    said = capsys.readouterr().err
    assert "--stays-at-site" in said
    assert "policy.model_leaves" in said
    assert not out.exists()
    assert export(form, out, *own(trained, site_config), "--stays-at-site") == 0
    ledger = tmp_path / "ledger" / "egress_ledger.jsonl"
    assert [line["verdict"] for line in read_lines(ledger)] == ["blocked", "allowed"]
    assert {line["site"] for line in read_lines(ledger)} == {"siemens"}
    assert verify(ledger).problems == ()


def test_a_bundle_s_card_has_the_sites_scores(trained: Trained, site_config: Path, tmp_path: Path) -> None:
    assert export("--monai-bundle", tmp_path / "b", *own(trained, site_config), "--stays-at-site") == 0
    scores = json.loads((tmp_path / "b/docs/model_card.json").read_text())["site_scores"]
    assert scores["site"] == "siemens"
    assert scores["sensitivity"]["n_subjects"] + scores["specificity"]["n_subjects"] == len(trained.said)


def test_the_sites_policy_can_allow_it(trained: Trained, site_config: Path, tmp_path: Path) -> None:
    values = json.loads(site_config.read_text())
    values["policy"]["model_leaves"] = True
    site_config.write_text(json.dumps(values))
    assert export("--merged", tmp_path / "m.safetensors", *own(trained, site_config)) == 0


def test_the_servers_adapter_needs_no_sites_word(adapter: Path, tmp_path: Path) -> None:
    assert export("--peft", tmp_path / "peft", "--adapter", adapter) == 0
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["r"] == JOB.lora.rank_global
    assert not (tmp_path / "peft" / "local").exists()
    assert "round: 3 of 3" in (tmp_path / "peft" / "README.md").read_text()


def test_a_card_from_a_run_and_from_an_adapter(server: Path, adapter: Path, tmp_path: Path) -> None:
    assert export("--card", tmp_path / "one", "--run-dir", server) == 0
    assert "0.88 (0.60 to 0.96)" in (tmp_path / "one" / "model_card.md").read_text()
    assert export("--card", tmp_path / "two", "--adapter", adapter) == 0
    assert json.loads((tmp_path / "two" / "model_card.json").read_text())["training"]["n_rounds_by_site"]["ge"] == 3


def test_a_report_of_the_study_that_was_predicted_and_of_no_other(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from highdicom import sr

    write_study(tmp_path / "study")
    write_study(tmp_path / "other", seed=1)
    model = ["--model", str(trained.run), "--backbone-checkpoint", str(trained.checkpoint)]
    assert main(["predict", *model, "--scan", str(tmp_path / "study"), "--out", str(tmp_path / "out")]) == 0
    predictions = tmp_path / "out" / "predictions.json"
    (row,) = json.loads(predictions.read_text())["predictions"]
    out = tmp_path / "report.dcm"
    assert export("--dicom-sr", out, "--predictions", predictions, "--dicom", tmp_path / "study") == 0
    report: Any = sr.srread(out)
    (group,) = report.content.get_image_measurement_groups()
    assert float(group.get_measurements()[0].value) == pytest.approx(row["probability"], abs=1e-12)
    capsys.readouterr()
    assert export("--dicom-sr", tmp_path / "r.dcm", "--predictions", predictions, "--dicom", tmp_path / "other") == 2
    assert "no prediction in it is of these files" in capsys.readouterr().err
    assert not (tmp_path / "r.dcm").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--merged", "m"], "--merged is made from --model and --site-config, but there is neither"),
        (["--merged", "m", "--model", "x"], "--merged is made from --model and --site-config, but there is --model"),
        (["--peft", "p", "--adapter", "a", "--run-dir", "r"], "from --model and --site-config or --adapter, but"),
        (["--card", "c"], "--card is made from --run-dir or --adapter"),
        (["--dicom-sr", "d", "--predictions", "p"], "--dicom-sr is made from --predictions and --dicom"),
        (["--card", "c", "--adapter", "nowhere.safetensors"], "is missing; an adapter is a .safetensors file"),
        (["--dicom-sr", "d", "--predictions", "nowhere", "--dicom", "x"], "is not the predictions.json"),
        (["--merged", "m", "--model", "x", "--site-config", "nowhere.json"], "site configuration nowhere.json"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["[]", "{}", '{"predictions": [{"scan": "a"}], "model": {}}', "no JSON"])
def test_another_file_than_that_of_predict_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "predictions.json").write_text(content)
    arguments = ["--predictions", tmp_path / "predictions.json", "--dicom", tmp_path]
    assert export("--dicom-sr", tmp_path / "r.dcm", *arguments) == 2
    assert "is not the predictions.json of `med-duallora predict`" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--peft", "--card"])
def test_nothing_is_replaced(form: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    assert export(form, tmp_path / "there", "--adapter", adapter) == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert export(form, tmp_path / "empty", "--adapter", adapter) == 0


def test_no_file_is_replaced(
    trained: Trained, site_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "mine", tmp_path / "link"):
        assert export("--merged", place, *own(trained, site_config), "--stays-at-site") == 2
        assert "is there already" in capsys.readouterr().err
        assert export("--dicom-sr", place, "--predictions", "p", "--dicom", "d") == 2
        assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "ledger").exists(), "nothing was asked of the site"


@pytest.mark.parametrize("form", ["--peft", "--card"])
def test_a_full_disk_leaves_no_folder(
    form: str, adapter: Path, tmp_path: Path, full_disk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    assert export(form, place / "out", "--adapter", adapter) == 1
    assert str(place / "out") in capsys.readouterr().err
    assert not place.exists()


def test_an_adapter_of_an_older_version_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = {"manifest_version": "1", "backbone_sha256": "f" * 64}
    path = save_adapter(tmp_path, "adapter_best", {"a": np.zeros((2, 2), dtype=np.float32)}, manifest)
    for form in ("--peft", "--card"):
        assert export(form, tmp_path / "out", "--adapter", path) == 2
        assert "does not hold the settings of its job" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["--merged", "--peft", "--monai-bundle"])
def test_a_model_that_is_not_released_is_exported_only_where_it_is_said(
    form: str, trained: Trained, site_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads(site_config.read_text())
    site_config.write_text(json.dumps({**values, "release": {"min_specificity": 1.0, "min_sensitivity": 1.0}}))
    out = tmp_path / "out"
    assert export(form, out, *own(trained, site_config), "--stays-at-site") == 2
    assert "Release gate failed" in capsys.readouterr().err and not out.exists()
    assert export(form, out, *own(trained, site_config), "--stays-at-site", "--ungated") == 0
    assert "This model is not released. Release gate failed" in capsys.readouterr().out
    cards = [path.read_text() for path in out.rglob("*.md")] if out.is_dir() else []
    assert bool(cards) == out.is_dir() and all("Release gate failed" in card for card in cards)
