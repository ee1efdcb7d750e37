import dataclasses
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import EventScope, FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from med_duallora.boundary.contract import EgressContract
from med_duallora.flare.server.tensorboard import TensorBoardRuns
from med_duallora.flare.wire.tracking import FEDERATION_EVENT, stream_from_site, write_at_server
from med_duallora.measures import MEASURES
from med_duallora.settings.config import JobConfig
from tests.unit.flare.standin import Engine


class Server:
    """A server's process with our receiver; what sites stream arrives as FLARE hands it on."""

    def __init__(self, engine: Engine, contract: EgressContract) -> None:
        self.engine = engine
        self.contract = contract
        engine.components["tensorboard"] = TensorBoardRuns()
        self.fire(EventType.START_RUN)

    def fire(self, event: str, data: Any = None, scope: str = EventScope.LOCAL) -> FLContext:
        fl_ctx = self.engine.context("fl-server.example.org")
        fl_ctx.set_prop(FLContextKey.EVENT_DATA, data, private=True, sticky=False)
        fl_ctx.set_prop(FLContextKey.EVENT_SCOPE, scope, private=True, sticky=False)
        self.engine.components["tensorboard"].handle_event(event, fl_ctx)
        return fl_ctx

    def receive(self, site: str, **metrics: float) -> None:
        sender = Engine(self.engine.components["job"].settings, Path())
        stream_from_site(FLComponent(), self.contract, metrics, 1, sender.context(site))
        for data in sender.fired(FEDERATION_EVENT):
            self.arrive(site, data)

    def arrive(self, site: str, data: Shareable) -> None:
        data.set_peer_props({ReservedKey.IDENTITY_NAME: site})
        self.fire(FEDERATION_EVENT, data, EventScope.FEDERATION)

    def runs(self) -> dict[str, EventAccumulator]:
        self.fire(EventType.END_RUN)
        folder = self.engine.workspace.directory / "tb_events"
        return {path.name: EventAccumulator(str(path)).Reload() for path in folder.iterdir()}


@pytest.fixture
def server(engine: Engine, contract: EgressContract) -> Server:
    return Server(engine, contract)


def test_the_configuration_is_there_from_the_start(server: Server, contract: EgressContract) -> None:
    (run,) = server.runs().values()
    (event,) = run.Tensors("configuration")
    text = event.tensor_proto.string_val[0].decode()
    assert "| experiment | test |" in text and "| job_id | job-1 |" in text and contract.sha256 in text
    assert "| versions | med_duallora " in text and "nvflare 2.9" in text


def test_every_site_has_a_run_with_readable_tags(server: Server) -> None:
    server.receive("ge", train_loss=0.5, val_balanced_accuracy=0.75)
    server.receive("canon", train_loss=0.25)
    runs = server.runs()
    assert set(runs) == {"server", "ge", "canon"}
    assert set(runs["ge"].Tags()["scalars"]) == {"train/loss", "validation/balanced_accuracy"}
    assert [(event.step, event.value) for event in runs["canon"].Scalars("train/loss")] == [(1, 0.25)]


def test_the_server_s_own_numbers_stand_in_its_run(server: Server) -> None:
    write_at_server(FLComponent(), {"residual": 0.125}, 0, server.engine.context("fl-server.example.org"))
    assert [event.value for event in server.runs()["server"].Scalars("round/aggregation_residual")] == [0.125]


def test_a_number_without_an_entry_or_without_a_tag_is_not_drawn(server: Server) -> None:
    ours = {"residual": 0.125, "cohort_name": 0.5, "best_round": 1}
    write_at_server(FLComponent(), ours, 0, server.engine.context("fl-server.example.org"))
    assert server.runs()["server"].Tags()["scalars"] == ["round/aggregation_residual"]


def test_an_entry_alone_makes_a_number_of_a_site_be_drawn(
    engine: Engine, tiny_job: JobConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = dataclasses.replace(MEASURES["train_loss"], name="train_margin", tag="train/margin")
    plain = dataclasses.replace(drawn, name="train_spread", tag="")
    for entry in (drawn, plain):
        monkeypatch.setitem(MEASURES, entry.name, entry)
    server = Server(engine, EgressContract.for_job(tiny_job))
    server.receive("ge", train_margin=0.5, train_spread=0.25)
    assert server.runs()["ge"].Tags()["scalars"] == ["train/margin"]


def scalar(contract: EgressContract, job: Any, **metrics: float) -> Shareable:
    sender = Engine(job, Path())
    stream_from_site(FLComponent(), contract, metrics, 1, sender.context("ge"))
    return sender.fired(FEDERATION_EVENT)[0]


@pytest.mark.parametrize(
    ("reason", "changes", "site"),
    [
        ("an unknown name", {"track_key": "patient007"}, "ge"),
        ("no text as name", {"track_key": ["train_loss"]}, "ge"),
        ("out of range", {"track_value": -1.0}, "ge"),
        ("a text", {"track_value": "patient007"}, "ge"),
        ("a round after the last", {"global_step": 2, "analytics_kwargs": {"global_step": 2}}, "ge"),
        ("a site that calls itself the server", {}, "server"),
        ("a site that names another folder", {}, "../../elsewhere"),
    ],
)
def test_whatever_else_a_site_sends_is_not_written(
    reason: str, changes: dict[str, Any], site: str, server: Server, tmp_path: Path
) -> None:
    job = server.engine.components["job"].settings
    data = scalar(server.contract, job, train_loss=0.5)
    data["DXO"]["data"].update(changes)
    server.arrive(site, data)
    assert [path.name for path in tmp_path.iterdir()] == ["tb_events"]
    runs = server.runs()
    assert set(runs) == {"server"}
    assert runs["server"].Tags()["scalars"] == []
