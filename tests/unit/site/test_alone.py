"""What a site reaches by itself is a training of its own, not a federated model with an adapter switched off."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from med_duallora.adapter.methods import METHODS, alone, plan_of
from med_duallora.adapter.model import initial_global_state
from med_duallora.engine import run_federation
from med_duallora.errors import TrainingAborted, TrainingDiverged
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from med_duallora.site.state import STATE_FILE, state_checksum
from med_duallora.site.training import train_round
from tests.unit.tiny import random_payload, same
from tests.unit.tiny_site import JOB, START, runtime_of

COMPARED = JOB.with_overrides(["train.compare_alone=true"])


@pytest.fixture
def config(tiny_sites: dict[str, SiteConfig]) -> SiteConfig:
    return tiny_sites["siemens"]


def column(folder: Path, variant: str) -> dict[str, float]:
    rows = json.loads((folder / "predictions.json").read_text())["predictions"]
    return {row["subject"]: row[variant] for row in rows}


def evaluated(config: SiteConfig, job: JobConfig, **options: Any) -> SiteRuntime:
    runtime = runtime_of(config, job)
    start = initial_global_state(job)
    runtime.train_round(start, 0)
    runtime.evaluate(random_payload(runtime.contract, scale=0.2), **options)
    return runtime


@pytest.mark.parametrize("changes", [[], ["aggregation=svd", "train.schedule=alternate", "train.local_epochs=2"]])
def test_it_is_the_method_local_lora_to_the_last_bit(config: SiteConfig, tmp_path: Path, changes: list[str]) -> None:
    here = evaluated(config, COMPARED.with_overrides(changes))
    elsewhere = replace(config, state_dir=tmp_path / "other")
    job = alone(COMPARED.with_overrides(changes))
    assert job.method == "local-lora"
    result = run_federation(job, {"siemens": elsewhere})
    expected = column(elsewhere.state_dir / "test" / result.lineage.run_id, "both")
    assert column(here.model.directory, "alone") == expected
    assert column(here.model.directory, "local") != expected, "which the global adapter switched off is not"


def test_what_the_site_keeps_of_the_federation_is_as_without_it(config: SiteConfig, tmp_path: Path) -> None:
    other = replace(config, state_dir=tmp_path / "other")
    one, two = evaluated(config, COMPARED), evaluated(other, JOB)
    checksums = [state_checksum(runtime.model.directory / STATE_FILE) for runtime in (one, two)]
    assert checksums[0] == checksums[1] != ""
    assert same(one.kept_state(), two.kept_state())
    assert same(one.model.statistics(), two.model.statistics())
    assert runtime_of(other, COMPARED).kept_state().keys() == one.kept_state().keys()


def test_every_method_can_be_compared() -> None:
    for method in METHODS:
        own = alone(JobConfig(method=method, aggregation="factors"))
        assert not plan_of(own).sent
        assert own.train.n_rounds == JobConfig().train.n_rounds


def test_a_site_that_trains_by_itself_needs_no_second_training(config: SiteConfig) -> None:
    result = run_federation(alone(COMPARED), {"siemens": config})
    assert not any(name.startswith("alone.") for name in result.evaluation["siemens"])


@pytest.mark.parametrize(("options", "there"), [({}, True), ({"kind": "best"}, False)])
def test_it_is_trained_once_a_job(config: SiteConfig, options: dict[str, str], there: bool) -> None:
    assert (
        "alone"
        in json.loads((evaluated(config, COMPARED, **options).model.directory / "predictions.json").read_text())[
            "predictions"
        ][0]
    ) == there


def test_it_stops_when_the_job_does_and_the_federation_is_kept(config: SiteConfig, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    runtime = runtime_of(config, COMPARED)
    runtime.train_round(START, 0)
    final = random_payload(runtime.contract, scale=0.2)

    def after_its_first_round() -> bool:
        return "training alone, for comparison: round 1 of 3" in caplog.text

    with pytest.raises(TrainingAborted):
        runtime.evaluate(final, after_its_first_round)
    state = runtime.model.store.latest()
    assert state and same(dict(state.sent), final), "the model that was trained together"
    assert "round 2 of 3" not in caplog.text


def test_a_training_that_diverges_is_left_out_and_said(
    config: SiteConfig, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def diverging(*_: Any, **__: Any) -> None:
        raise TrainingDiverged("lower train.lr")

    monkeypatch.setattr("med_duallora.site.alone.train_round", diverging)
    runtime = evaluated(config, COMPARED)
    assert "both.auroc" in runtime.reported
    assert "alone.auroc" not in runtime.reported
    assert "for comparison, is left out: lower train.lr" in caplog.text


def test_it_takes_every_pass_of_the_job(config: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(config, COMPARED)
    for index in range(2):
        runtime.train_round(START, index)
    seen: list[int] = []

    def counted(*arguments: Any, round_index: int, **options: Any) -> Any:
        seen.append(round_index)
        return train_round(*arguments, round_index=round_index, **options)

    monkeypatch.setattr("med_duallora.site.alone.train_round", counted)
    runtime.evaluate(START)
    assert seen == [0, 1, 2], "also the one that this site had no part in"
