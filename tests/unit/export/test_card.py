"""The card of a model says what the server knows, with the same numbers as the report, and nothing of a site's own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.boundary.contract import EgressContract
from med_duallora.export.card import card_of, write_card
from med_duallora.report import read_run
from med_duallora.report.summary import macro_interval
from med_duallora.server.artifact import adapter_manifest
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site.calibration import Calibration
from med_duallora.site.kept_calibration import KeptCalibration, KeptCounts
from med_duallora.support.proportions import wilson_interval
from tests.unit.report.conftest import finished_run
from tests.unit.tiny import tiny_job


@pytest.fixture
def manifest() -> dict[str, object]:
    job = tiny_job()
    facts = {"round": 1, "sites": ["ge", "philips"], "n_rounds_by_site": {"ge": 2, "philips": 2}, "sha256": "a" * 64}
    return adapter_manifest(job, EgressContract.for_job(job), **facts)


def test_scores_are_the_reports(tmp_path: Path) -> None:
    run = read_run(finished_run(tmp_path))
    card = card_of(run.manifest, run)
    both = card["scores"]["both"]["balanced_accuracy"]
    assert both["mean"] == pytest.approx(0.875)
    assert tuple(both["interval"]) == macro_interval(run.evaluation, "both")
    assert set(both["interval_by_site"]) == {"siemens", "philips"}
    assert card["data"]["test_subjects_by_site"]["siemens"] == {"n_test_subjects": 6, "n_positive": 4, "n_negative": 2}


def test_phantoms_and_the_intended_use_stand_first(tmp_path: Path) -> None:
    run = read_run(finished_run(tmp_path))
    write_card(tmp_path / "card", card_of(run.manifest, run))
    text = (tmp_path / "card" / "model_card.md").read_text()
    head = text.split("## ")[0]
    assert "not for diagnosis" in head
    assert "phantoms" in head
    assert "0.88 (0.60 to 0.96)" in text
    for title in ("Model", "Training", "Data", "Scores", "Limits", "Licence", "Hashes and versions"):
        assert f"\n## {title}\n" in text


def test_without_a_run_it_says_that_no_score_is_known(manifest: dict[str, object], tmp_path: Path) -> None:
    card = card_of(manifest)
    write_card(tmp_path, card)
    text = (tmp_path / "model_card.md").read_text()
    assert "no score is known" in text
    assert "not stated" in text
    assert card["training"]["round"] == 2, "people count from 1"
    assert "- round: 2 of" in text
    assert card["hashes"]["adapter_sha256"] == "a" * 64
    assert json.loads((tmp_path / "model_card.json").read_text()) == card


def test_no_path_of_any_machine_is_in_it(tmp_path: Path) -> None:
    run = read_run(finished_run(tmp_path))
    write_card(tmp_path / "card", card_of(run.manifest, run))
    for path in (tmp_path / "card").iterdir():
        assert str(tmp_path) not in path.read_text()
        assert "/simulate_job" not in path.read_text()


def test_a_sites_own_model_tells_that_sites_test_subjects(manifest: dict[str, object], tmp_path: Path) -> None:
    kept = KeptCalibration(
        "siemens", "demo", False, "", Calibration(threshold=0.4), test=KeptCounts(3, 4, 1, 2), release=ReleaseFloors()
    )
    card = card_of(manifest, at_site=kept)
    assert card["site_scores"]["specificity"]["interval"] == list(wilson_interval(1, 2))
    write_card(tmp_path, card)
    text = (tmp_path / "model_card.md").read_text()
    assert "Test subjects of siemens at its own threshold, 0.400; this card stays there." in text
    assert "| sensitivity | 3 of 4 | 0.75 (0.30 to 0.95) |" in text
    assert "no score is known" not in text
    one_class = card_of(manifest, at_site=replace(kept, test=KeptCounts(3, 4, 0, 0)))
    assert "specificity" not in one_class["site_scores"]
    write_card(tmp_path, card_of(manifest, at_site=replace(kept, test=KeptCounts())))
    assert "no score is known" in (tmp_path / "model_card.md").read_text()
