"""The rounds of a training among sites that train and sites that only evaluate."""

from typing import Any

import pytest
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.impl.bcast_manager import BcastTaskManager
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.server.aggregator import DualLoRAAggregator
from med_duallora.flare.server.rounds import TrainingRounds
from med_duallora.flare.wire.payload import EVALUATES_ONLY, TrainReply
from med_duallora.settings.config import JobConfig
from tests.unit.flare.server.test_aggregator import Server
from tests.unit.flare.standin import Engine, client, from_site, sent_by, server_context
from tests.unit.tiny import random_payload, same

SITES = ("ge", "philips", "west")


class Round:
    """A round of FLARE's workflow with our aggregator, as far as answers are counted."""

    def __init__(self, engine: Engine, contract: EgressContract, kind: type[ScatterAndGather], min_sites: int) -> None:
        self.engine, self.contract = engine, contract
        self.aggregator = DualLoRAAggregator(min_sites=min_sites)
        engine.components["aggregator"] = self.aggregator
        vars(engine)["get_clients"] = lambda: [client(site) for site in SITES]
        self.workflow = kind(min_clients=min_sites, num_rounds=2, persistor_id="")
        self.workflow._engine = engine
        self.workflow.aggregator = self.aggregator
        self.workflow.allow_empty_global_weights = True
        if isinstance(self.workflow, TrainingRounds):
            self.workflow._evaluating = set()
        self.panics: list[str] = []
        self.workflow.system_panic = lambda reason, fl_ctx: self.panics.append(reason)  # noqa: ARG005
        self.asked: list[Any] = []
        self.previous = random_payload(contract, 9)
        self.workflow.communicator = self
        self.open(0)

    def open(self, number: int) -> None:
        self.workflow._phase, self.workflow._current_round = AppConstants.PHASE_TRAIN, number
        self.workflow._current_failed_clients, self.workflow._current_num_targets = set(), len(SITES)
        self.number = number
        self.engine.fire_event(AppEventType.ROUND_STARTED, server_context(self.engine, number, self.previous))
        self.task = Task(name="train", data=Shareable())
        how = {"min_responses": self.workflow._min_clients, "wait_time_after_min_received": 0, "abort_signal": None}
        self.workflow.broadcast_and_wait(task=self.task, fl_ctx=server_context(self.engine, number), **how)

    def broadcast_and_wait(self, task: Task, _ctx: Any, targets: Any, min_responses: int, wait: int, _: Any) -> None:
        """FLARE's communicator: it counts the answers of the sites that it sent the task to."""
        names = list(SITES) if targets is None else targets
        self.asked.append(names)
        self.manager = BcastTaskManager(task, min_responses, wait)
        task.targets = names
        task.client_tasks = [ClientTask(client(site), task) for site in names]

    def answers(self, site: str, reply: Shareable) -> None:
        (found,) = [item for item in self.task.client_tasks if item.client.name == site]
        fl_ctx = from_site(server_context(self.engine, self.number, self.previous), site)
        found.result = sent_by(site, reply)
        fl_ctx.set_prop(FLContextKey.TASK_RESULT, found.result, private=True, sticky=False)
        fl_ctx.set_prop(FLContextKey.TASK_NAME, "train", private=True, sticky=False)
        self.engine.fire_event(EventType.BEFORE_PROCESS_SUBMISSION, fl_ctx)
        self.workflow._process_train_result(found, fl_ctx)
        found.result_received_time = 1.0

    def trains(self, site: str) -> None:
        seed = SITES.index(site)
        change = random_payload(self.contract, seed, 0.01)
        tensors = {name: value + change[name] for name, value in self.previous.items()}
        self.answers(site, TrainReply(tensors, 6.0, self.number, {"train_loss": 0.5}).to_shareable())

    def leaves_it_to_others(self, site: str) -> None:
        self.answers(site, make_reply(EVALUATES_ONLY))

    def ended(self) -> bool:
        return bool(self.manager.check_task_exit(self.task)[0])


@pytest.fixture
def begin(engine: Engine, contract: EgressContract) -> Any:
    def start(kind: type[ScatterAndGather] = TrainingRounds, min_sites: int = 2) -> Round:
        return Round(engine, contract, kind, min_sites)

    return start


def test_a_round_waits_for_as_many_sites_that_train(begin: Any) -> None:
    """FLARE's own workflow goes on here with one site of two that are needed."""
    for kind, ends_early in ((ScatterAndGather, True), (TrainingRounds, False)):
        round_ = begin(kind)
        round_.leaves_it_to_others("west")
        round_.trains("ge")
        assert round_.ended() == ends_early
        round_.trains("philips")
        assert round_.ended()
        assert round_.panics == []


def test_such_an_answer_is_absence_and_not_a_fault(begin: Any, engine: Engine, contract: EgressContract) -> None:
    with_it, without = begin(), None
    for site in ("ge", "philips"):
        with_it.trains(site)
    with_it.leaves_it_to_others("west")
    server = Server(engine, with_it.previous)
    server.aggregator = with_it.aggregator
    found = server.close()
    (record,) = server.records()
    assert record["refused"] == []
    assert set(record["sites"]) == {"ge", "philips"}
    without = begin()
    for site in ("ge", "philips"):
        without.trains(site)
    server.aggregator = without.aggregator
    assert same(found, server.close())
    assert not same(found, with_it.previous)


def test_later_rounds_go_to_the_others_alone(begin: Any) -> None:
    round_ = begin()
    round_.leaves_it_to_others("west")
    round_.open(1)
    assert round_.asked == [list(SITES), ["ge", "philips"]]
    round_.trains("ge")
    assert not round_.ended()
    round_.trains("philips")
    assert round_.ended()


def test_a_job_without_enough_sites_that_train_ends_with_the_reason(begin: Any) -> None:
    round_ = begin()
    round_.leaves_it_to_others("west")
    assert round_.panics == []
    round_.leaves_it_to_others("philips")
    (reason,) = round_.panics
    assert reason == ("workflow.min_sites is 2, but 1 are left of the sites that train; evaluating only: philips, west")
    later = begin(min_sites=3)
    later.workflow._evaluating = {"west"}
    later.open(1)
    assert later.panics[-1].startswith("workflow.min_sites is 3, but 2 are left of the sites that train")


def test_a_fault_beside_it_still_counts(begin: Any) -> None:
    """Before, a site that evaluates would have stood in for one that failed."""
    round_ = begin()
    round_.leaves_it_to_others("west")
    round_.open(1)
    round_.answers("philips", make_reply(ReturnCode.EXECUTION_EXCEPTION))
    assert len(round_.panics) == 1
    assert "philips" in round_.panics[0]


def test_flare_starts_it_like_its_own(engine: Engine, tiny_job: JobConfig, contract: EgressContract) -> None:
    workflow = TrainingRounds(min_clients=2, num_rounds=1, persistor_id="")
    workflow._engine = engine
    engine.components["aggregator"] = DualLoRAAggregator()
    engine.components["shareable_generator"] = None
    panics: list[str] = []
    workflow.system_panic = lambda reason, fl_ctx: panics.append(reason)  # noqa: ARG005
    context = server_context(engine, 0)
    context.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable({}, {}), private=True, sticky=True)
    workflow.start_controller(context)
    assert workflow._evaluating == set()
    assert panics, "FLARE's own checks were made"
