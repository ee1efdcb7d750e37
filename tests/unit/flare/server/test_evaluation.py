import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.lineage import Lineage
from med_duallora.flare.server.evaluation import AdapterEvaluation
from med_duallora.flare.wire.payload import metrics_reply, task_adapter_kind, task_lineage, task_tensors
from med_duallora.server.artifact import save_adapter
from med_duallora.server.rundir import add_round
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine, client, failure
from tests.unit.refused import refused
from tests.unit.tiny import random_payload, same

MODELS = "one or more of best, last, without repetition"

Replies = Mapping[str, Shareable]
LINEAGE = Lineage.begin().continued(1)


class Transport:
    """In place of FLARE's communicator: every site answers at once."""

    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        self.tasks: list[Task] = []
        self.waits: list[float] = []

    def broadcast_and_wait(self, task: Task, fl_ctx: FLContext, *others: Any) -> None:
        self.tasks.append(task)
        self.waits.append(others[2])
        for site, reply in self.replies.items():
            client_task = ClientTask(client(site), task)
            client_task.result = reply
            task.result_received_cb(client_task=client_task, fl_ctx=fl_ctx)


def evaluated(engine: Engine, replies: Replies, models: list[str] | None = None, stop: bool = False) -> Transport:
    workflow = AdapterEvaluation(models or ["best", "last"])
    transport = Transport(replies)
    workflow.communicator = transport
    signal = Signal()
    if stop:
        signal.trigger(True)
    workflow.control_flow(signal, engine.context("server"))
    return transport


@pytest.fixture
def adapters(contract: EgressContract, tmp_path: Path) -> dict[str, Any]:
    saved = {name: random_payload(contract, seed) for seed, name in enumerate(("best", "last"))}
    for round_index, (name, tensors) in enumerate(saved.items()):
        save_adapter(tmp_path, f"adapter_{name}", tensors, {"round": round_index, "lineage": LINEAGE.to_list()})
    return saved


def written(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "evaluation.json").read_text()))


def test_both_adapters_are_scored_by_every_site(
    adapters: dict[str, Any], engine: Engine, contract: EgressContract, tmp_path: Path
) -> None:
    replies = {site: metrics_reply({"both.auroc": 0.5, "n_test_subjects": 4.0}) for site in ("philips", "ge")}
    transport = evaluated(engine, replies)
    assert [task.name for task in transport.tasks] == ["validate", "validate"]
    for task, tensors in zip(transport.tasks, adapters.values(), strict=True):
        assert same(task_tensors(contract, task.data), tensors)
        assert task_lineage(task.data) == LINEAGE, "sites score it with the local states that belong to it"
    assert [task_adapter_kind(task.data) for task in transport.tasks] == ["best", "last"]
    found = written(tmp_path)
    assert (found["model"], found["round"], found["failed"]) == ("last", 1, {})
    assert found["sites"] == {site: {"both.auroc": 0.5, "n_test_subjects": 4.0} for site in ("ge", "philips")}
    assert found["models"]["best"] == {"round": 0, "sites": found["sites"], "failed": {}}


def test_sites_that_also_train_alone_get_the_time_for_it(
    adapters: dict[str, Any], tiny_job: JobConfig, tmp_path: Path
) -> None:
    for index, seconds in enumerate((30.0, 20.0)):
        add_round(tmp_path, {"round": index, "seconds": seconds})
    job = tiny_job.with_overrides(["train.compare_alone=true", "train.n_rounds=7"])
    waits = evaluated(Engine(job, tmp_path), {"ge": metrics_reply({})}).waits
    assert waits == [600, 600 + 25 * 7], "as long as all rounds, and for the last adapter alone"


def test_a_site_that_fails_or_says_too_much_is_named(adapters: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    replies = {"ge": metrics_reply({"both.auroc": 0.5}), "canon": failure(), "philips": metrics_reply({"age": 61.0})}
    evaluated(engine, replies, ["last"])
    found = written(tmp_path)
    assert list(found["sites"]) == ["ge"]
    assert found["failed"]["canon"] == "the site answered EXECUTION_EXCEPTION"
    assert "metric outside the contract" in found["failed"]["philips"]


def test_without_a_best_adapter_only_the_last_is_scored(
    adapters: dict[str, Any], engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "adapter_best.safetensors").unlink()
    evaluated(engine, {"ge": metrics_reply({})})
    assert written(tmp_path)["models"] == {}


def test_the_job_is_stopped_where_nobody_answers(adapters: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    evaluated(engine, {"ge": failure()})
    assert engine.fired(EventType.FATAL_SYSTEM_ERROR)
    assert not (tmp_path / "evaluation.json").exists()


def test_the_job_is_stopped_where_no_adapter_was_saved(engine: Engine) -> None:
    evaluated(engine, {"ge": metrics_reply({})}, ["last"])
    assert engine.fired(EventType.FATAL_SYSTEM_ERROR)


def test_the_job_is_stopped_where_an_adapter_belongs_to_no_run(engine: Engine, tmp_path: Path) -> None:
    save_adapter(tmp_path, "adapter_last", {}, {"round": 1})
    evaluated(engine, {"ge": metrics_reply({})}, ["last"])
    assert engine.fired(EventType.FATAL_SYSTEM_ERROR)


def test_an_abort_leaves_no_half_result(adapters: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    evaluated(engine, {"ge": metrics_reply({})}, stop=True)
    assert not (tmp_path / "evaluation.json").exists()


def test_a_late_result_is_dropped(adapters: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    workflow = AdapterEvaluation(["last"])
    late = metrics_reply({"both.auroc": 0.5})
    workflow.process_result_of_unknown_task(client("ge"), "validate", "old", late, engine.context("server"))
    workflow.communicator = Transport({"canon": metrics_reply({})})
    workflow.control_flow(Signal(), engine.context("server"))
    assert list(written(tmp_path)["sites"]) == ["canon"]


@pytest.mark.parametrize(
    ("arguments", "key", "limit"),
    [
        ({"models": []}, "models", MODELS),
        ({"models": ["worst"]}, "models", MODELS),
        ({"models": ["last", "last"]}, "models", MODELS),
        ({"models": ["last"], "min_sites": 0}, "workflow.min_sites", "between 1 and 10000"),
        ({"models": ["last"], "wait_s": -1}, "workflow.wait_s", "between 0 and 2678400"),
        ({"models": ["last"], "timeout_s": 1.5}, "workflow.round_timeout_s", "a whole number"),
    ],
)
def test_arguments_have_the_limits_of_settings(arguments: dict[str, Any], key: str, limit: str) -> None:
    with refused(key, list(arguments.values())[-1], limit):
        AdapterEvaluation(**arguments)
