import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from med_duallora.errors import ArtifactError
from med_duallora.report.document import Paragraph, Picture, Table
from med_duallora.report.html import to_html
from med_duallora.report.site_page import NOT_FOR_DIAGNOSIS, PATIENTS, PHANTOMS, build
from med_duallora.report.site_run import is_site_run, read_site_run
from med_duallora.settings.release import ReleaseFloors
from med_duallora.site import kept_calibration
from med_duallora.site.calibration import Calibration
from med_duallora.site.kept_calibration import KeptCalibration, KeptCounts, keep

STATE = "ab" * 32
N_TEST = 24


def site_run(folder: Path, n_test: int = N_TEST, **changes: object) -> Path:
    """Write what an evaluation leaves: half of the subjects diseased, one of each class on the wrong side of 0.4."""
    labels = [index % 2 for index in range(n_test)]
    chances = np.where(labels, 0.8, 0.2).tolist()
    if n_test > 2:
        chances[0], chances[1] = 0.45, 0.35
    calibration = Calibration(2.0, 0.4, 8, 9, ("A remark.",))
    kept = KeptCalibration("siemens", "demo", True, STATE, calibration, ReleaseFloors(min_specificity=0.6))
    kept = replace(kept, test=KeptCounts(**vars(calibration.counts(labels, chances))))
    keep(folder, replace(kept, **changes))
    rows = [
        {"subject": f"s{number}", "label": label, "both": chance}
        for number, (label, chance) in enumerate(zip(labels, chances, strict=True))
    ]
    (folder / "predictions.json").write_text(json.dumps({"not_for_diagnosis": True, "predictions": rows}))
    return folder


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's folder holds this state."""
    monkeypatch.setattr(kept_calibration, "state_checksum", lambda _: STATE)


def tables(folder: Path, floors: ReleaseFloors | None = None) -> dict[str, Table]:
    document = build(read_site_run(folder, floors))
    blocks = [block for section in document.sections for block in section.blocks]
    return {block.caption: block for block in blocks if isinstance(block, Table)}


def test_a_sites_folder_is_recognised(tmp_path: Path) -> None:
    assert not is_site_run(tmp_path)
    assert is_site_run(site_run(tmp_path))


def test_the_page_says_first_whether_the_model_is_released(tmp_path: Path) -> None:
    document = build(read_site_run(site_run(tmp_path)))
    assert document.headline.startswith("Release gate passed: specificity 0.92 (95 % ")
    assert document.key_numbers[0].value == "passed"
    failed = build(read_site_run(tmp_path, ReleaseFloors(min_sensitivity=0.95)))
    assert failed.headline.startswith("Release gate failed: sensitivity 0.92")
    assert failed.key_numbers[0].value == "not passed"


@pytest.mark.parametrize(("phantoms", "says"), [(True, PHANTOMS), (False, PATIENTS)])
def test_the_banner_says_whose_subjects_they_are(tmp_path: Path, phantoms: bool, says: str) -> None:
    document = build(read_site_run(site_run(tmp_path, phantoms=phantoms)))
    assert document.banner == f"{says} {NOT_FOR_DIAGNOSIS}"


def test_subjects_are_counted_at_both_thresholds(tmp_path: Path) -> None:
    (table,) = (found for caption, found in tables(site_run(tmp_path)).items() if "by what the model calls" in caption)
    own, half = table.rows
    assert own[:5] == ["0.400 (this site's)", "11", "1", "11", "1"]
    assert half[1:5] == ["12", "0", "11", "1"], "0.45 is below 0.5"


def test_reliability_and_scores_are_of_the_test_subjects(tmp_path: Path) -> None:
    found = tables(site_run(tmp_path))
    curve = found["The curve in numbers: equally many test subjects in each bin"]
    assert [row[1] for row in curve.rows] == ["6", "6", "6", "6"]
    assert sum(int(row[2]) for row in curve.rows) == N_TEST // 2
    scores = found["How far probabilities lie from the truth, test subjects"]
    raw = (11 * 0.04 + 0.45**2 + 11 * 0.04 + 0.65**2) / N_TEST
    assert scores.rows[0][1] == f"{raw:.3f}"
    assert scores.rows[2][1] == "0.250", "half of them have the disease"


def test_remarks_and_what_was_fitted_are_shown(tmp_path: Path) -> None:
    document = build(read_site_run(site_run(tmp_path)))
    texts = [block.text for section in document.sections for block in section.blocks if isinstance(block, Paragraph)]
    assert "A remark." in texts
    rows = dict(tables(tmp_path)["Fitted to the validation subjects"].rows)
    assert rows["validation subjects, NOR + disease"] == "9 + 8"
    assert rows["belongs to the newest state here"] == "yes"


def test_without_a_fit_nothing_is_called_calibrated(tmp_path: Path) -> None:
    found = tables(site_run(tmp_path, calibration=Calibration(1.0, 0.4, 4, 9, ("Too few.",))))
    scores = found["How far probabilities lie from the truth, test subjects"]
    assert [row[0] for row in scores.rows] == ["as the model gives them", "share of disease, said of everybody"]
    document = build(read_site_run(tmp_path))
    (section,) = (section for section in document.sections if section.title == "At the site's threshold")
    assert section.blocks[1].text.startswith("Too few. The scores that leave"), "no threshold was chosen"


def test_every_picture_has_words_and_the_page_is_whole(tmp_path: Path) -> None:
    document = build(read_site_run(site_run(tmp_path)))
    pictures = [block for section in document.sections for block in section.blocks if isinstance(block, Picture)]
    assert [picture.name for picture in pictures] == ["reliability.png"]
    assert all(picture.alt and picture.caption for picture in pictures)
    assert "data:image/png" in to_html(document)


def test_without_test_subjects_nothing_is_invented(tmp_path: Path) -> None:
    document = build(read_site_run(site_run(tmp_path, n_test=0)))
    assert document.key_numbers[1].value == document.key_numbers[2].value == "–"
    assert "specificity is not known" in document.headline
    assert not document.pictures


def test_a_model_that_was_trained_on_since_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_calibration, "state_checksum", lambda _: "cd" * 32)
    assert "another state" in build(read_site_run(site_run(tmp_path))).headline


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"predictions": 3}',
        '{"predictions": [3]}',
        '{"predictions": [{"label": 2, "both": 0.5}]}',
        '{"predictions": [{"label": true, "both": 0.5}]}',
        '{"predictions": [{"label": 1, "both": 1.5}]}',
        '{"predictions": [{"label": 1, "both": "0.5"}]}',
        "[",
    ],
)
def test_damaged_predictions_are_refused(tmp_path: Path, text: str) -> None:
    (site_run(tmp_path) / "predictions.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"predictions\.json is damaged"):
        read_site_run(tmp_path)


def test_files_of_two_evaluations_are_not_mixed(tmp_path: Path) -> None:
    site_run(tmp_path, test=KeptCounts(1, 2, 1, 2))
    with pytest.raises(ArtifactError, match="different evaluations"):
        read_site_run(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no evaluation ended there"):
        read_site_run(tmp_path)
    (site_run(tmp_path) / "predictions.json").unlink()
    with pytest.raises(ArtifactError, match=r"predictions\.json: No such file"):
        read_site_run(tmp_path)
