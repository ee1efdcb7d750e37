"""A site's job process with FLARE's own client runner, filters, events and collectors, but without a network.

What the runner would send is serialised with FLARE's serialiser, so a test sees the bytes that would leave.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvflare.apis.client_engine_spec import ClientEngineSpec
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.filter import Filter
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FilterKey, FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.apis.utils.fl_context_utils import gen_new_peer_ctx
from nvflare.fuel.utils import fobs
from nvflare.private.aux_runner import AuxRunner
from nvflare.private.event import fire_event
from nvflare.private.fed.client.client_engine_executor_spec import TaskAssignment
from nvflare.private.fed.client.client_runner import ClientRunner, ClientRunnerConfig, TaskRouter
from nvflare.private.privacy_manager import Scope
from nvflare.widgets.fed_event import ClientFedEventRunner
from nvflare.widgets.info_collector import InfoCollector

from med_duallora.boundary.ledger_audit import read_lines
from med_duallora.flare.site.egress_filter import FILTERED_TASKS, EgressFilter
from med_duallora.flare.site.egress_guard import EgressGuard
from med_duallora.flare.site.learner import DualLoRALearner
from med_duallora.flare.wire.job import JOB_COMPONENT, FederatedJob
from med_duallora.settings.config import JobConfig
from med_duallora.site.runtime import SiteRuntime

JOB_ID, SITE = "job-1", "ge"


class Replies(Executor):
    """Answers every task with what the attacker made."""

    def __init__(self) -> None:
        super().__init__()
        self.reply: Any = None

    def execute(self, _task: str, _data: Shareable, fl_ctx: FLContext, _signal: Signal) -> Any:
        return self.reply(fl_ctx) if callable(self.reply) else self.reply


class Engine(ClientEngineSpec):
    """FLARE's client run manager, as far as a runner and its widgets use it."""

    def __init__(
        self, components: dict[str, FLComponent], handlers: list[FLComponent], job_id: str, stickers: dict[str, Any]
    ) -> None:
        self.components = components
        self.handlers = handlers
        self.sent: list[tuple[str, Shareable]] = []
        self.manager = FLContextManager(self, SITE, job_id, private_stickers=stickers)
        self.aux_runner = AuxRunner(self)

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        fire_event(event_type, self.handlers, fl_ctx)

    def new_context(self) -> FLContext:
        return self.manager.new_context()

    def add_component(self, component_id: str, component: FLComponent) -> None:
        self.components[component_id] = component

    def get_component(self, component_id: str) -> FLComponent | None:
        return self.components.get(component_id)

    def get_all_components(self) -> dict[str, FLComponent]:
        return self.components

    def register_aux_message_handler(self, topic: str, message_handle_func: Callable[..., Any]) -> None:
        self.aux_runner.register_aux_message_handler(topic, message_handle_func)

    def get_cell(self) -> None:
        return None

    def fire_and_forget_aux_request(self, topic: str, request: Shareable, **_how: Any) -> None:
        self.sent.append((topic, request))


@dataclass
class SiteProcess:
    """One job process of a hardened site.

    Args:
        job: the job's settings.
        runtime: the site at work; None before its initialisation.
        scope_properties: of the site's privacy scope.
        job_components: what an attacker's job brings besides the expected components.
        job_filters: filters of an attacker's job, after ours.
        job_id: FLARE's id of the job.
        starts: whether the run has begun.
    """

    job: JobConfig
    runtime: SiteRuntime | None
    scope_properties: Mapping[str, Any]
    job_components: Mapping[str, FLComponent] = field(default_factory=dict)
    job_filters: Iterable[Filter] = ()
    job_id: str = JOB_ID
    starts: bool = True

    def __post_init__(self) -> None:
        learner = DualLoRALearner()
        learner._runtime = self.runtime
        components = {JOB_COMPONENT: FederatedJob(self.job.to_dict()), "learner": learner, **self.job_components}
        self.collector, self.fed_events, self.executor = InfoCollector(), ClientFedEventRunner(), Replies()
        # FLARE's order: the job's components, then the site's, then its own widgets, then the runner
        handlers = [*components.values(), EgressGuard(), self.collector, self.fed_events]
        self.engine = Engine(dict(components), handlers, self.job_id, self._scope())
        router = TaskRouter()
        router.add_executor(["*"], self.executor)
        chains = {f"{task}{FilterKey.DELIMITER}{FilterKey.OUT}": self._chain() for task in FILTERED_TASKS}
        config = ClientRunnerConfig(router, {}, chains, handlers=handlers, components=dict(components))
        self.runner = ClientRunner({}, config, self.job_id, self.engine)
        handlers.append(self.runner)
        if self.starts:
            with self.context() as fl_ctx:
                self.runner.fire_event(EventType.START_RUN, fl_ctx)

    def _chain(self) -> list[Filter]:
        return [EgressFilter(), *self.job_filters]

    def _scope(self) -> dict[str, Any]:
        """The site's privacy scope, as local/privacy.json of the site kit defines it."""
        scope = Scope()
        scope.set_name("med-duallora")
        scope.set_props(dict(self.scope_properties))
        scope.add_task_result_filter(EgressFilter(), FilterKey.OUT)
        return {FLContextKey.SCOPE_OBJECT: scope, FLContextKey.SCOPE_PROPERTIES: scope.props}

    def context(self) -> FLContext:
        """A context of this process, as FLARE makes it for every task."""
        fl_ctx = self.engine.new_context()
        fl_ctx.set_peer_context(FLContextManager(None, "server", self.job_id).new_context())
        return fl_ctx

    def answer(self, task: str, reply: Any, cookies: Mapping[str, Any] | None = None) -> "Leaving":
        """Let the runner do a task whose executor gives ``reply``; return what would leave.

        Args:
            task: its name.
            reply: what the executor gives; a function of the context for one that acts.
            cookies: what the server sends along and wants back.
        """
        self.executor.reply = reply
        with self.context() as fl_ctx:
            data = Shareable()
            if cookies:
                data.set_cookie_jar(dict(cookies))
            assignment = TaskAssignment(task, "task-1", data)
            result = self.runner._process_task(assignment, fl_ctx)
            self.runner.fire_event(EventType.BEFORE_SEND_TASK_RESULT, fl_ctx)
            peer = gen_new_peer_ctx(fl_ctx)
        return Leaving(result, bytes(fobs.dumps(result)), bytes(fobs.dumps(peer)))

    def events(self) -> list[Shareable]:
        """The fed events that left so far."""
        return [request for _, request in self.engine.sent]

    def ledger(self, path: Path) -> list[Mapping[str, Any]]:
        """The lines of the site's ledger."""
        return read_lines(path)


@dataclass(frozen=True)
class Leaving:
    """What would leave a site: the result, its bytes, and the bytes of the public context that travels with it."""

    result: Shareable
    data: bytes
    context: bytes
