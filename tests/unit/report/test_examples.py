"""Test subjects in a report: which, of whom, and who may read it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from med_duallora.cli import main
from med_duallora.report import read_run
from med_duallora.report.content import KEEP, build
from med_duallora.report.examples import KINDS
from med_duallora.report.finished import Run
from tests.conftest import write_tiny_cohort
from tests.unit.report.conftest import rewrite
from tests.unit.report.test_kept_predictions import keep, workspace

__all__ = ["workspace"]
SAYS = {
    "siemens001": 0.9,
    "siemens003": 0.7,
    "siemens005": 0.6,
    "siemens007": 0.51,
    "siemens000": 0.1,
    "siemens002": 0.3,
}
"""The tiny cohort's diseased subjects have odd numbers; both adapters are right of all."""


@pytest.fixture
def simulated(workspace: Path) -> Path:
    """The workspace of a simulation with the cohort of one site beside it."""
    cohort = write_tiny_cohort(workspace / "prepared" / "siemens", "siemens", 0)
    rows = [
        {"subject": name, "label": int(name[-1]) % 2, "backbone": chance, "both": said}
        for (name, said), chance in zip(SAYS.items(), (0.9, 0.9, 0.1, 0.1, 0.1, 0.9), strict=True)
    ]
    keep(workspace, {"predictions": rows})
    (workspace / "site_config").mkdir()
    (workspace / "site_config" / "siemens.json").write_text(json.dumps({"data_dir": str(cohort)}))
    return workspace


def test_phantoms_are_shown_with_what_the_model_says(simulated: Path) -> None:
    run = read_run(simulated)
    assert [(item.label, item.chance) for item in run.examples["siemens"]] == [(1, 0.9), (0, 0.1)], "the surest of each"
    assert all(item.slices.shape == (2, 192, 192) for item in run.examples["siemens"])
    document = build(run)
    assert "examples.png" in {picture.name for picture in document.pictures}
    assert KEEP not in document.banner


def test_patients_are_shown_on_request_alone_and_to_this_account_alone(simulated: Path, tmp_path: Path) -> None:
    (evaluation,) = simulated.rglob("evaluation.json")
    rewrite(evaluation, origin={"phantoms": "none", "datasets": ["acdc"]})
    assert main(["report", str(simulated), "--out", str(tmp_path / "plain")]) == 0
    assert not (tmp_path / "plain" / "examples.png").exists()
    assert main(["report", str(simulated), "--out", str(tmp_path / "shown"), "--pictures"]) == 0
    files = list((tmp_path / "shown").iterdir())
    assert {"examples.png", "report.html"} <= {path.name for path in files}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    page = (tmp_path / "shown" / "report.html").read_text()
    assert KEEP in page and not [name for name in SAYS if name in page], "no subject is named"


@pytest.mark.parametrize(
    "change",
    [
        lambda place: shutil.rmtree(place / "prepared"),
        lambda place: (place / "site_config" / "siemens.json").write_text("{}"),
        lambda place: (place / "site_config" / "siemens.json").unlink(),
        lambda place: next((place / "prepared").rglob("siemens001_sax_ed.nii.gz")).write_bytes(b""),
    ],
    ids=["no cohort", "a damaged configuration", "no configuration", "a damaged volume"],
)
def test_a_site_whose_images_are_not_at_hand_has_none(simulated: Path, change: Callable[[Path], object]) -> None:
    change(simulated)
    run: Run = read_run(simulated)
    assert run.examples == {} and run.predictions, "the scores are there all the same"


def test_every_answer_is_of_one_kind() -> None:
    for label in (0, 1):
        for chance in (0.0, 0.49, 0.5, 1.0):
            assert sum(is_kind(label, chance) for is_kind in KINDS.values()) == 1
