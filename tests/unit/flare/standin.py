"""A stand-in for FLARE's engine: components, events and a run directory, without processes or network."""

from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode, ServerCommandKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants

from med_duallora.flare.wire.job import JOB_COMPONENT, FederatedJob
from med_duallora.settings.config import JobConfig


class Workspace:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get_app_dir(self, job_id: str) -> str:
        assert job_id == "job-1"
        return str(self.directory)


class Engine:
    """Components by id; every fired event is kept with the event data it carried."""

    def __init__(self, job: JobConfig, directory: Path, **components: FLComponent) -> None:
        self.components: dict[str, FLComponent] = {JOB_COMPONENT: FederatedJob(job.to_dict()), **components}
        self.workspace = Workspace(directory)
        self.events: list[tuple[str, Any]] = []
        self.commands: dict[str, Any] = {}

    def register_app_command(self, topic: str, handler: Any) -> None:
        self.commands[topic] = handler

    def get_component(self, component_id: str) -> FLComponent | None:
        return self.components.get(component_id)

    def get_all_components(self) -> dict[str, FLComponent]:
        return self.components

    def get_workspace(self) -> Workspace:
        return self.workspace

    def fire_event(self, event_type: str, fl_ctx: FLContext) -> None:
        self.events.append((event_type, fl_ctx.get_prop(FLContextKey.EVENT_DATA)))
        for component in self.components.values():
            component.handle_event(event_type, fl_ctx)

    def fired(self, event_type: str) -> list[Any]:
        return [data for name, data in self.events if name == event_type]

    def context(self, identity: str, **props: Any) -> FLContext:
        fl_ctx = FLContextManager(self, identity, "job-1").new_context()
        for key, value in props.items():
            fl_ctx.set_prop(key, value, private=True, sticky=False)
        return fl_ctx


def server_context(engine: Engine, round_index: int, tensors: dict[str, Any] | None = None) -> FLContext:
    """The server's context in a round, with the global state that was sent out."""
    return engine.context(
        "server",
        **{
            AppConstants.CURRENT_ROUND: round_index,
            AppConstants.GLOBAL_MODEL: make_model_learnable(tensors or {}, {}),
        },
    )


def from_site(fl_ctx: FLContext, site: str) -> FLContext:
    """The same context, with a site as the peer."""
    fl_ctx.set_peer_context(FLContextManager(None, site, "job-1").new_context())
    return fl_ctx


def sent_by(site: str, shareable: Shareable) -> Shareable:
    """A result as the server marks it when it arrives: with the site whose token came with it."""
    shareable.set_header(ServerCommandKey.FL_CLIENT, client(site))
    return shareable


def answered(reply: Shareable) -> str:
    """The return code of a reply."""
    return str(reply.get_return_code())


def client(name: str) -> Client:
    return Client(name, "token")


def failure() -> Shareable:
    return make_reply(ReturnCode.EXECUTION_EXCEPTION)
