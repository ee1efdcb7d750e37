import pytest
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import EventScope, FLContextKey
from nvflare.widgets.info_collector import GroupInfoCollector, InfoCollector

from med_duallora.boundary.contract import EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.flare.wire.tracking import (
    FEDERATION_EVENT,
    LOCAL_EVENT,
    publish_statistics,
    stream_from_site,
    write_at_server,
)
from tests.unit.flare.standin import Engine


def test_a_site_streams_the_contract_s_metrics(engine: Engine, contract: EgressContract) -> None:
    fl_ctx = engine.context("ge")
    stream_from_site(FLComponent(), contract, {"train_loss": 0.5, "n_steps": 2}, 3, fl_ctx)
    events = [event["DXO"]["data"] for event in engine.fired(FEDERATION_EVENT)]
    assert [(event["track_key"], event["track_value"]) for event in events] == [("train_loss", 0.5), ("n_steps", 2.0)]
    assert [event["global_step"] for event in events] == [3, 3]
    assert fl_ctx.get_prop(FLContextKey.EVENT_SCOPE) == EventScope.FEDERATION


@pytest.mark.parametrize("metrics", [{"train_loss": 0.5, "patient007": 1.0}, {"train_loss": float("nan")}])
def test_one_foreign_metric_stops_all_of_them(
    metrics: dict[str, float], engine: Engine, contract: EgressContract
) -> None:
    with pytest.raises(EgressViolation):
        stream_from_site(FLComponent(), contract, metrics, 0, engine.context("ge"))
    assert engine.events == []


def test_the_server_writes_without_sending(engine: Engine) -> None:
    fl_ctx = engine.context("server")
    write_at_server(FLComponent(), {"residual": 0.1}, 0, fl_ctx)
    assert len(engine.fired(LOCAL_EVENT)) == 1
    assert fl_ctx.get_prop(FLContextKey.EVENT_SCOPE) == EventScope.LOCAL


def test_statistics_reach_the_console_s_collector(engine: Engine) -> None:
    collector = GroupInfoCollector()
    publish_statistics("med_duallora", {"phase": "x"}, engine.context("ge"))
    publish_statistics(
        "med_duallora", {"phase": "x"}, engine.context("ge", **{InfoCollector.CTX_KEY_STATS_COLLECTOR: collector})
    )
    assert collector.info == {"med_duallora": {"phase": "x"}}
