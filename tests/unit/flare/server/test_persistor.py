import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from med_duallora.adapter.model import initial_global_state
from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.flare.server.persistor import SafetensorsPersistor
from med_duallora.flare.wire.payload import task_lineage
from med_duallora.server.artifact import load_adapter, save_adapter
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine, server_context
from tests.unit.tiny import random_payload, same


def starting(engine: Engine, start_round: int = 0, n_rounds: int = 2) -> FLContext:
    return engine.context("server", **{AppConstants.START_ROUND: start_round, AppConstants.NUM_ROUNDS: n_rounds})


def panics(fl_ctx: FLContext, engine: Engine) -> str:
    assert engine.fired(EventType.FATAL_SYSTEM_ERROR), "the job was not stopped"
    return str(fl_ctx.get_prop(FLContextKey.EVENT_DATA))


def test_the_first_adapter_is_the_seeded_one_and_the_job_is_written(
    engine: Engine, tiny_job: JobConfig, tmp_path: Path
) -> None:
    model = SafetensorsPersistor().load_model(starting(engine))
    assert same(model["weights"], initial_global_state(tiny_job))
    assert JobConfig.from_dict(json.loads((tmp_path / "job.json").read_text())) == tiny_job


def test_a_new_training_can_start_from_any_adapter_that_fits(
    engine: Engine, contract: EgressContract, tmp_path: Path
) -> None:
    tensors = random_payload(contract)
    save_adapter(tmp_path / "config", "start", tensors, {})
    persistor = SafetensorsPersistor("config/start.safetensors")
    assert same(persistor.load_model(starting(engine))["weights"], tensors)
    assert len(lineage_said(persistor, engine).runs) == 1


def lineage_said(persistor: SafetensorsPersistor, engine: Engine) -> Lineage:
    """What a train task says."""
    task = Shareable()
    fl_ctx = engine.context("server", **{AppConstants.TRAIN_SHAREABLE: task})
    persistor.handle_event(AppEventType.BEFORE_TRAIN_TASK, fl_ctx)
    return task_lineage(task)


def saved_by(persistor: SafetensorsPersistor, engine: Engine, round_index: int, tensors: dict[str, Any]) -> Path:
    """What a job leaves after a round."""
    persistor.save_model(make_model_learnable(tensors, {}), server_context(engine, round_index))
    return Path(engine.workspace.directory) / "adapter_last.safetensors"


def test_a_job_goes_on_with_the_run_that_an_adapter_belongs_to(engine: Engine, contract: EgressContract) -> None:
    first, tensors = SafetensorsPersistor(), random_payload(contract)
    path = saved_by(first, engine, 0, tensors)
    second = SafetensorsPersistor(str(path))
    assert same(second.load_model(starting(engine, 1, 1))["weights"], tensors)
    begun, resumed = lineage_said(first, engine), lineage_said(second, engine)
    assert resumed.runs[:-1] == begun.runs
    assert resumed.runs[-1].first_round == 1
    assert Lineage.from_list(load_adapter(saved_by(second, engine, 1, tensors))[1]["lineage"]) == resumed


def test_every_job_is_a_run_of_its_own(engine: Engine) -> None:
    assert lineage_said(SafetensorsPersistor(), engine) != lineage_said(SafetensorsPersistor(), engine)


@pytest.mark.parametrize(
    ("start", "change", "message"),
    [
        (2, [], "is the result of 1 rounds, so that the next one is start_round = 1, not 2"),
        (1, ["train.lr=0.001"], "belongs to another job: train.lr was 0.001, but is 0.005 here"),
        (1, ["experiment=other"], "experiment was 'other', but is 'test' here"),
    ],
)
def test_a_foreign_adapter_stops_the_job(
    start: int, change: list[str], message: str, tiny_job: JobConfig, tmp_path: Path
) -> None:
    other = tiny_job.with_overrides(change)
    there = Engine(other, tmp_path)
    path = saved_by(SafetensorsPersistor(), there, 0, random_payload(EgressContract.for_job(other)))
    here = Engine(tiny_job.with_overrides(["train.n_rounds=3"]), tmp_path)
    fl_ctx = starting(here, start, 1)
    assert SafetensorsPersistor(path.name).load_model(fl_ctx).is_empty()
    assert message in panics(fl_ctx, here)


def test_a_later_round_needs_an_adapter_to_go_on_from(engine: Engine) -> None:
    fl_ctx = starting(engine, 1, 1)
    SafetensorsPersistor().load_model(fl_ctx)
    assert "start_round = 1, but no adapter is named to resume from" in panics(fl_ctx, engine)


@pytest.mark.parametrize("lora", ["lora.rank_global=4", "lora.n_blocks=1", 'lora.targets=["fc1"]'])
def test_an_adapter_of_another_job_stops_the_job(
    lora: str, engine: Engine, tiny_job: JobConfig, tmp_path: Path
) -> None:
    other = EgressContract.for_job(tiny_job.with_overrides([lora]))
    save_adapter(tmp_path, "start", random_payload(other), {})
    fl_ctx = starting(engine)
    assert SafetensorsPersistor("start.safetensors").load_model(fl_ctx).is_empty()
    assert "start.safetensors does not fit this job" in panics(fl_ctx, engine)


def test_a_missing_adapter_stops_the_job(engine: Engine) -> None:
    fl_ctx = starting(engine)
    SafetensorsPersistor("nowhere.safetensors").load_model(fl_ctx)
    assert "is missing" in panics(fl_ctx, engine)


@pytest.mark.parametrize(("start", "count"), [(0, 3), (1, 2), (2, 1)])
def test_a_workflow_with_other_rounds_than_the_job_stops_the_job(start: int, count: int, engine: Engine) -> None:
    fl_ctx = starting(engine, start, count)
    SafetensorsPersistor().load_model(fl_ctx)
    assert "train.n_rounds = 2" in panics(fl_ctx, engine)


def test_the_last_adapter_is_kept_with_its_manifest(engine: Engine, contract: EgressContract, tmp_path: Path) -> None:
    tensors = random_payload(contract)
    write_rounds(tmp_path, "ge canon", "philips canon")
    SafetensorsPersistor().save_model(make_model_learnable(tensors, {}), server_context(engine, 1))
    found, manifest = load_adapter(tmp_path / "adapter_last.safetensors")
    assert same(found, tensors)
    assert (manifest["round"], manifest["sites"]) == (1, ["canon", "philips"])
    assert manifest["n_rounds_by_site"] == {"canon": 2, "ge": 1, "philips": 1}
    assert manifest["contract_sha256"] == contract.sha256
    listed: dict[str, Any] = json.loads((tmp_path / "artifact_manifest.json").read_text())
    assert listed == {"schema_version": "1", "artifacts": {"global_model": "adapter_last.safetensors"}}


def write_rounds(directory: Path, *sites_of_rounds: str, first: int = 0) -> None:
    """The rounds of a job, each with the sites that took part in it."""
    records = [
        {"round": index, "sites": {site: {} for site in sites.split()}}
        for index, sites in enumerate(sites_of_rounds, first)
    ]
    (directory / "round_metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_resumed_job_counts_the_rounds_of_the_whole_training(
    contract: EgressContract, tiny_job: JobConfig, tmp_path: Path
) -> None:
    job, tensors = tiny_job.with_overrides(["train.n_rounds=4"]), random_payload(contract)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    write_rounds(tmp_path / "first", "canon ge", "canon")
    path = saved_by(SafetensorsPersistor(), Engine(job, tmp_path / "first"), 1, tensors)

    engine, second = Engine(job, tmp_path / "second"), SafetensorsPersistor(str(path))
    second.load_model(starting(engine, 2, 2))
    fl_ctx = server_context(engine, 2, tensors)
    fl_ctx.set_prop(AppConstants.VALIDATION_RESULT, 0.5, private=True, sticky=False)
    second.handle_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)
    _, best = load_adapter(tmp_path / "second" / "adapter_best.safetensors")
    assert (best["round"], best["sites"], best["n_rounds_by_site"]) == (1, ["canon"], {"canon": 2, "ge": 1})

    write_rounds(tmp_path / "second", "canon philips", "philips", first=2)
    _, last = load_adapter(saved_by(second, engine, 3, tensors))
    assert (last["round"], last["sites"]) == (3, ["philips"])
    assert last["n_rounds_by_site"] == {"canon": 3, "ge": 1, "philips": 2}


def test_the_best_adapter_is_the_one_that_the_sites_scored(
    engine: Engine, contract: EgressContract, tmp_path: Path
) -> None:
    tensors = random_payload(contract)
    fl_ctx = server_context(engine, 1, tensors)
    fl_ctx.set_prop(AppConstants.VALIDATION_RESULT, 0.8125, private=True, sticky=False)
    SafetensorsPersistor().handle_event(AppEventType.GLOBAL_BEST_MODEL_AVAILABLE, fl_ctx)
    found, manifest = load_adapter(tmp_path / "adapter_best.safetensors")
    assert same(found, tensors)
    assert (manifest["round"], manifest["val_balanced_accuracy"]) == (0, 0.8125)
