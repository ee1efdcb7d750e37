import json
from pathlib import Path
from typing import Any

import pytest

from med_duallora.report import read_run
from med_duallora.report.comparison import compare
from med_duallora.report.joining import comparison_table
from tests.unit.report.conftest import finished_run, rewrite

RUN_ID = "ab" * 16
BACKBONE = {1: [0.9, 0.9, 0.1, 0.1], 0: [0.1, 0.9]}
"""Of Siemens' 4 diseased and 2 normal test subjects, half are classified correctly; by both adapters, all."""


def rows(**changes: Any) -> list[dict[str, Any]]:
    return [
        {"subject": f"s{label}{n}", "label": label, "backbone": chance, "both": 0.9 if label else 0.1, **changes}
        for label, chances in BACKBONE.items()
        for n, chance in enumerate(chances)
    ]


def keep(workspace: Path, content: object, site: str = "siemens", run_id: str = RUN_ID) -> None:
    folder = workspace / "state" / site / "demo" / run_id
    folder.mkdir(parents=True)
    (folder / "predictions.json").write_text(json.dumps(content))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    manifest = finished_run(tmp_path) / "adapter_best.json"
    rewrite(manifest, lineage=[["cd" * 16, 0], [RUN_ID, 2]])
    sites = json.loads((manifest.parent / "evaluation.json").read_text())["sites"]
    kept = {name: value for name, value in sites["siemens"].items() if not name.startswith(("global", "local"))}
    rewrite(manifest.parent / "evaluation.json", sites={"siemens": kept})
    return tmp_path / "workspace"


def test_a_simulation_s_sites_are_compared_subject_by_subject(workspace: Path) -> None:
    unpaired = compare(read_run(workspace), "both", "backbone")
    keep(workspace, {"predictions": rows()})
    run = read_run(workspace)
    assert run.predictions["siemens"].right["backbone"] == (True, True, False, False, True, False)
    paired = compare(run, "both", "backbone")
    assert paired is not None and unpaired is not None
    assert (paired.is_paired, unpaired.is_paired) == (True, False)
    assert paired.gain == unpaired.gain == 0.5


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"predictions": rows(backbone=0.9)}, "other scores: of another evaluation"),
        ({"predictions": rows()[:-1]}, "fewer subjects"),
        ({"predictions": rows(label=2)}, "no label"),
        ({"predictions": rows(both="high")}, "no probability"),
        ({"predictions": rows(both=None)}, "no probability"),
        ({"predictions": []}, "nobody"),
        ({"predictions": "none"}, "no list"),
        ([], "no object"),
    ],
)
def test_predictions_that_are_not_those_behind_the_scores_are_left_out(
    workspace: Path, content: object, why: str
) -> None:
    keep(workspace, content)
    run = read_run(workspace)
    assert run.predictions == {}, why
    found = compare(run, "both", "backbone")
    assert found is not None and not found.is_paired


def test_predictions_of_another_run_are_left_out(workspace: Path) -> None:
    keep(workspace, {"predictions": rows()}, run_id="cd" * 16)
    assert read_run(workspace).predictions == {}


def test_predictions_of_some_variants_serve_these_alone(workspace: Path) -> None:
    """The server's scores also speak of an adapter alone, of which the file holds no answers."""
    folder = workspace / "server" / "simulate_job" / "app_server"
    sites = json.loads((folder / "evaluation.json").read_text())["sites"]
    alone = {f"local.{name}": 0.5 for name in ("balanced_accuracy", "sensitivity", "specificity")}
    rewrite(folder / "evaluation.json", sites={"siemens": {**sites["siemens"], **alone}})
    keep(workspace, {"predictions": rows()})
    run = read_run(workspace)
    found = {name: compare(run, "both", name) for name in ("backbone", "local")}
    assert {name: item and item.is_paired for name, item in found.items()} == {"backbone": True, "local": False}
    assert comparison_table(run) is not None


@pytest.mark.parametrize("lineage", [[[]], 5, {"a": 1}, [{"x": 1}], "abc", [[None, 0]], [["../../..", 0]]])
def test_a_lineage_that_is_none_leads_to_no_predictions(workspace: Path, lineage: object) -> None:
    rewrite(workspace / "server" / "simulate_job" / "app_server" / "adapter_best.json", lineage=lineage)
    keep(workspace, {"predictions": rows()})
    assert read_run(workspace).predictions == {}
