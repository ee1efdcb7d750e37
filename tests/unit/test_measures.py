"""The table of measures: whatever is computed has an entry, what has none does not leave, and an entry is enough."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from med_duallora import measures
from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.local.rehearsal.progress import JobProgress, table
from med_duallora.measures import (
    MEASURES,
    REPLIES,
    SCORES,
    STATEMENTS,
    VARIANTS,
    Curve,
    Kind,
    Measure,
    Place,
    Score,
    Subjects,
    evaluated,
    score_name,
    standing_in,
)
from med_duallora.report import plots, read_run
from med_duallora.report.content import build
from med_duallora.report.html import to_html
from med_duallora.report.markdown import to_markdown
from med_duallora.server.monitoring import round_summary
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.settings.policy import ClassSizes, SitePolicy
from tests.unit.report.conftest import evaluation, finished_run, round_record
from tests.unit.tiny_site import JOB as TINY_JOB
from tests.unit.tiny_site import START, runtime_of

JOB = JobConfig(backbone="cinema-tiny")
MANY = dict.fromkeys(("train", "val", "test"), (99, 99))
WITHOUT_ENTRY = {
    "train_accuracy": 0.5,
    "train_grad_norm": 0.5,
    "test_loss": 0.5,
    "val_auroc": 0.5,
    "both.f1": 0.5,
    "n_smokers": 1.0,
}
"""Names that look like ours."""


def test_every_entry_stands_once_and_under_its_name() -> None:
    assert [measure.name for measure in measures._ENTRIES] == list(MEASURES)
    assert not set(MEASURES) & set(STATEMENTS)


def test_tags_and_pictures_are_told_apart() -> None:
    tags = [measure.tag for measure in MEASURES.values() if measure.tag]
    assert len(set(tags)) == len(tags)
    assert all(tag.count("/") >= 1 and not tag.startswith("/") for tag in tags), "a group, then a name"
    assert all(measure.tag for measure in standing_in(*REPLIES).values()), "TensorBoard draws whatever a site replies"
    pictures = [measure.curve.picture for measure in MEASURES.values() if measure.curve]
    assert len(set(pictures)) == len(pictures)
    assert not set(pictures) & {"variants", "residual", "time"}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=list(MEASURES))
def test_an_entry_agrees_with_itself(measure: Measure) -> None:
    assert measure.heading
    assert not (measure.averaged and not {Place.SERVER, *REPLIES} & measure.places), "a mean over the sites' replies"
    if measure.averaged or measure.server_word:
        assert Place.SERVER in measure.places
    if measure.column:
        assert Place.CONSOLE in measure.places
    if measure.is_replied:
        assert Place.CONSOLE in measure.places, "what leaves in a reply need not be hidden at the console"
    assert measure.leaves == (measure.places != {Place.SERVER})


@pytest.mark.parametrize("subjects", [None, "train", "", False])
def test_an_entry_says_whose_subjects_it_speaks_of(subjects: Any) -> None:
    with pytest.raises(TypeError, match="measure train_loss does not say whose subjects"):
        dataclasses.replace(MEASURES["train_loss"], subjects=subjects)
    with pytest.raises(TypeError, match="subjects"):
        Measure("x", 0, 1, kind=Kind.SCORE, places=frozenset({Place.CONSOLE}), heading="x")  # type: ignore[call-arg]


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="train_loss has the empty range"):
        dataclasses.replace(MEASURES["train_loss"], highest=-1)


# ---- whatever a site computes has an entry


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Collect the names of all numbers that the policy is asked about, also of those that it drops."""
    names: set[str] = set()
    whole = SitePolicy.allowed_metrics

    def noted(policy: SitePolicy, metrics: Mapping[str, float], sizes: Mapping[str, ClassSizes]) -> dict[str, float]:
        names.update(metrics)
        return whole(policy, metrics, sizes)

    monkeypatch.setattr(SitePolicy, "allowed_metrics", noted)
    return names


def test_a_site_computes_what_the_table_lists_for_each_reply(
    tiny_sites: dict[str, SiteConfig], computed: set[str]
) -> None:
    runtime = runtime_of(tiny_sites["siemens"], TINY_JOB.with_overrides(["train.compare_alone=true"]))
    for place, step in (
        (Place.INITIAL, lambda: runtime.validate(START, 0)),
        (Place.TRAIN_REPLY, lambda: runtime.train_round(START, 0)),
        (Place.VALIDATE_REPLY, lambda: runtime.evaluate(START)),
    ):
        computed.clear()
        step()
        assert computed == set(standing_in(place)), place


# ---- what has no entry does not leave


@pytest.mark.parametrize("name", WITHOUT_ENTRY)
def test_a_number_without_an_entry_never_leaves_even_where_a_contract_lists_it(name: str) -> None:
    contract = EgressContract.for_job(JOB)
    listed = dataclasses.replace(contract, metrics={**contract.metrics, name: (0.0, 1.0)})
    assert SitePolicy().allowed_metrics({name: 0.5}, MANY) == {}
    for place in (None, *REPLIES):
        with pytest.raises(EgressViolation, match="outside the contract"):
            listed.check_metrics({name: 0.5}, place)
    assert listed.allowed_statistics({name: 0.5}) == {}


def test_what_the_server_computes_does_not_leave_a_site() -> None:
    own = {name: 0.0 for name, measure in MEASURES.items() if measure.places == {Place.SERVER}}
    assert "residual" in own
    assert SitePolicy().allowed_metrics(own, MANY) == {}
    assert EgressContract.for_job(JOB).allowed_statistics(own) == {}


def test_an_entry_that_was_made_without_subjects_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = dataclasses.replace(MEASURES["train_loss"])
    object.__setattr__(broken, "subjects", None)
    monkeypatch.setitem(MEASURES, "train_loss", broken)
    assert SitePolicy().allowed_metrics({"train_loss": 0.5, "seconds": 1.0}, MANY) == {"seconds": 1.0}


@pytest.mark.parametrize("name", [name for name, measure in MEASURES.items() if measure.leaves])
def test_the_floor_looks_at_the_subjects_of_the_entry(name: str) -> None:
    policy, split = SitePolicy(min_subjects=5), MEASURES[name].subjects.value
    assert set(policy.allowed_metrics({name: 0.5}, {**MANY, split: (5, 5)})) == {name}
    kept_back = MEASURES[name].subjects is not Subjects.NONE
    for few in ((4, 99), (99, 4), (0, 99)):
        assert set(policy.allowed_metrics({name: 0.5}, {**MANY, split: few})) == (set() if kept_back else {name})


# ---- adding a measure is adding its entry


ACCURACY = Measure(
    "train_accuracy",
    0,
    1,
    Subjects.TRAINING,
    Kind.SCORE,
    frozenset({Place.TRAIN_REPLY, Place.CONSOLE, Place.SERVER}),
    "training accuracy",
    tag="train/accuracy",
    column="tr. accuracy",
    server_word="mean tr. accuracy",
    averaged=True,
    curve=Curve("train_accuracy", "Share of training subjects that were right.", chance=0.5),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what a finished run left at the server."""
    monkeypatch.setattr(plots, "DPI", 40)
    return finished_run(tmp_path)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Measure:
    monkeypatch.setitem(MEASURES, ACCURACY.name, ACCURACY)
    return ACCURACY


def test_a_new_entry_is_in_the_contract_and_under_the_policy(added: Measure) -> None:
    contract = EgressContract.for_job(JOB)
    assert contract.metrics[added.name] == (0.0, 1.0)
    assert added.name in contract.replies()["train"]["meta"]["metrics"]
    assert contract.check_metrics({added.name: 0.5}, Place.TRAIN_REPLY) == {added.name: 0.5}
    assert contract.allowed_statistics({added.name: 0.5}) == {added.name: 0.5}
    policy = SitePolicy(min_subjects=5, metric_decimals=1)
    assert policy.allowed_metrics({added.name: 0.53}, {**MANY, "train": (5, 5)}) == {added.name: 0.5}
    assert policy.allowed_metrics({added.name: 0.53}, {**MANY, "train": (4, 99)}) == {}


def test_a_new_entry_changes_the_contract_that_sites_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    before = EgressContract.for_job(JOB).sha256
    monkeypatch.setitem(MEASURES, ACCURACY.name, ACCURACY)
    assert EgressContract.for_job(JOB).sha256 != before


def test_a_new_entry_is_shown_at_the_console_and_averaged(added: Measure) -> None:
    sites = {str(value): {"metrics": {added.name: value}, "payload_bytes": 1} for value in (0.5, 1.0)}
    summary = round_summary({"seconds": 1.0, "residual": 0.1, "refused": [], "sites": sites})
    assert summary[added.name] == 0.75
    console = Console(width=200)
    with console.capture() as captured:
        progress = JobProgress("7", "job", "RUNNING", server=summary, sites={"ge": {added.name: 0.5}})
        console.print(table(progress, 1.0))
    assert "tr. accuracy" in captured.get() and "mean tr. accuracy 0.75" in captured.get()


def test_a_new_entry_is_drawn_in_the_report(added: Measure, run: Path) -> None:
    records = [round_record(index) for index in range(3)]
    for record in records:
        for site in record["sites"].values():  # type: ignore[attr-defined]
            site["metrics"][added.name] = 0.5
    (run / "round_metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    text = to_html(build(read_run(run)))
    assert "Line plot over the rounds: training accuracy by site." in text
    assert "Share of training subjects that were right." in text


def test_a_new_score_has_entries_for_every_variant_and_a_table(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCORES, "f1", Score("F1 score", "balance of sensitivity and precision"))
    values = evaluation()
    for variant in VARIANTS:
        entry = evaluated(variant, "f1")
        monkeypatch.setitem(MEASURES, entry.name, entry)
        for scores in values["sites"].values():  # type: ignore[attr-defined]
            scores[score_name(variant, "f1")] = 0.625
    (run / "evaluation.json").write_text(json.dumps(values))
    text = to_markdown(build(read_run(run)))
    assert "Test F1 score" in text and "0.62" in text and "balance of sensitivity and precision" in text
    assert "both.f1" in EgressContract.for_job(JOB).metric_names(Place.VALIDATE_REPLY)
    assert MEASURES["both.f1"].tag == "test/both/f1"
    assert SitePolicy(min_subjects=5).allowed_metrics({"both.f1": 0.5}, {**MANY, "test": (99, 4)}) == {}
