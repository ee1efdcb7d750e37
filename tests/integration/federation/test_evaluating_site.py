"""A site of a provisioned federation that evaluates only, beside one that trains."""

import json
from collections.abc import Iterator

import pytest

from med_duallora.boundary.ledger_audit import read_lines
from med_duallora.flare.local.rehearsal.verdict import COMPLETED
from med_duallora.report import read_run
from med_duallora.report.content import build
from med_duallora.report.html import to_html
from med_duallora.server.artifact import load_adapter
from med_duallora.settings.config import SiteConfig
from med_duallora.site.state import STATE_FILE
from tests.integration.harness import SITES, Ended, RunningFederation

pytestmark = pytest.mark.flare

TRAINS, EVALUATES = SITES
EXPERIMENT = "one-evaluates"


@pytest.fixture(scope="module")
def ended(federation: RunningFederation) -> Iterator[Ended]:
    """A job of three rounds; afterwards the second site trains again."""
    place = federation.federation.kit(EVALUATES) / "local" / "med_duallora_site.json"
    before = place.read_text()
    place.write_text(json.dumps({**json.loads(before), "role": "predict"}))
    try:
        folder = federation.job("workflow.min_sites=1", f"experiment={EXPERIMENT}", name=EXPERIMENT)
        yield federation.end_of(federation.submit(folder))
    finally:
        place.write_text(before)


def test_the_rounds_are_those_of_the_site_that_trains(ended: Ended) -> None:
    assert ended.job.status == COMPLETED
    run = read_run(ended.result)
    assert [sorted(round_.sites) for round_ in run.rounds] == [[TRAINS]] * 3
    assert [list(round_.refused) for round_ in run.rounds] == [[]] * 3, "absence is no fault"
    _, manifest = load_adapter(next(ended.result.rglob("adapter_last.safetensors")))
    assert manifest["sites"] == [TRAINS]
    assert manifest["n_rounds_by_site"] == {TRAINS: 3}


def test_both_sites_are_in_the_evaluation_and_in_the_report(ended: Ended) -> None:
    run = read_run(ended.result)
    assert run.evaluation is not None
    assert set(run.evaluation.sites) == set(SITES)
    assert run.evaluation.failed == {}
    variants = {name.partition(".")[0] for name in run.evaluation.sites[EVALUATES] if "." in name}
    assert variants == {"backbone", "global"}
    page = to_html(build(run))
    assert page.count(EVALUATES) > 1


def test_the_site_sent_return_codes_and_scores_and_nothing_else(federation: RunningFederation, ended: Ended) -> None:
    config = SiteConfig.from_file(federation.federation.kit(EVALUATES) / "local" / "med_duallora_site.json")
    lines = [line for line in read_lines(config.ledger_path) if line["job"] == ended.job.job_id]
    told = [(line["task"], line["kind"], line["reason"]) for line in lines]
    assert told[0] == ("train", "error", "TASK_UNSUPPORTED")
    assert len([line for line in told if line[0] == "train"]) == 1, "it is not asked a second time"
    assert {line[1] for line in told} == {"error", "metrics"}
    assert not list((config.state_dir / EXPERIMENT).rglob(STATE_FILE)), "it keeps no state"
    assert list((config.state_dir / EXPERIMENT).rglob("predictions.json"))
