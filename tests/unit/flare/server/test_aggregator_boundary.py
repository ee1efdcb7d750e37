"""The server's side of the boundary: outliers, too few sites, unknown sites, and the record of what arrived."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.analytix_utils import create_analytic_dxo

from med_duallora.boundary.contract import EgressContract
from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_audit import match, read_lines, verify
from med_duallora.flare.server.aggregator import DualLoRAAggregator
from med_duallora.flare.wire.receipts import train_entry
from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from tests.unit.flare.server.test_aggregator import Server, near
from tests.unit.flare.standin import Engine
from tests.unit.refused import refused
from tests.unit.tiny import random_payload, same


@pytest.fixture
def server(engine: Engine, contract: EgressContract) -> Server:
    return Server(engine, random_payload(contract, seed=9))


def received(server: Server) -> Path:
    return server.engine.workspace.directory / "received.jsonl"


def test_an_outlier_is_left_out_said_and_recorded(server: Server, contract: EgressContract, caplog) -> None:
    server.open()
    for seed, site in enumerate(("ge", "canon", "philips")):
        assert server.accept(site, near(server, contract, seed).to_shareable())
    assert server.accept("siemens", near(server, contract, 7, scale=5.0).to_shareable())
    server.close()
    (record,) = server.records()
    assert sorted(record["sites"]) == ["canon", "ge", "philips"]
    assert record["refused"][0]["site"] == "siemens" and "times the median" in record["refused"][0]["reason"]
    assert "contribution of siemens left out" in caplog.text


def test_too_few_contributions_leave_the_adapter_and_say_so(server: Server, contract: EgressContract, caplog) -> None:
    server.aggregator = DualLoRAAggregator(min_sites=2)
    server.open()
    assert server.accept("ge", near(server, contract, 1).to_shareable())
    assert same(server.close(), server.previous)
    assert "1 valid contributions, 2 needed: the global adapter stays as it was" in caplog.text
    assert server.records()[0]["sites"] == {}


def test_a_site_that_is_not_of_the_job_is_refused(server: Server, contract: EgressContract) -> None:
    server.aggregator = DualLoRAAggregator(sites=["ge", "canon"])
    server.open()
    assert server.accept("ge", near(server, contract, 1).to_shareable())
    assert not server.accept("mallory", near(server, contract, 2).to_shareable())
    server.close()
    assert server.records()[0]["refused"] == [{"site": "mallory", "reason": "mallory is not a site of this job"}]


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({"norm_limit": 1.0}, "0 (off), or between 2 and 1e+06"),
        ({"min_sites": 0}, "between 1 and 10000"),
        ({"sites": "ge,canon"}, "a list"),
        ({"sites": [["ge"]]}, "a list of texts"),
    ],
)
def test_arguments_out_of_their_limits_are_refused(values: dict[str, Any], limit: str) -> None:
    with refused(next(iter(values)), limit=limit):
        DualLoRAAggregator(**values)


def test_what_arrived_is_recorded_and_matches_the_sites_ledger(
    server: Server, contract: EgressContract, tmp_path: Path
) -> None:
    reply = near(server, contract, 1)
    ledger = Ledger(tmp_path / "site" / "egress_ledger.jsonl")
    ledger.append(train_entry("job-1", "ge", reply))
    server.open()
    server.accept("ge", reply.to_shareable())
    server.accept("canon", near(server, contract, 2).to_shareable())
    assert verify(received(server)).problems == ()
    found = match(read_lines(ledger.path), read_lines(received(server)), "ge")
    assert found.agrees and found.n_matched == 1


def test_what_was_changed_on_the_way_does_not_match(server: Server, contract: EgressContract, tmp_path: Path) -> None:
    reply = near(server, contract, 1)
    ledger = Ledger(tmp_path / "site" / "egress_ledger.jsonl")
    ledger.append(train_entry("job-1", "ge", reply))
    server.open()
    server.accept("ge", dataclasses.replace(reply, weight=7.0).to_shareable())
    found = match(read_lines(ledger.path), read_lines(received(server)), "ge")
    assert (found.n_matched, len(found.only_site), len(found.only_server)) == (0, 1, 1)


def test_what_was_refused_is_recorded_with_its_reason(server: Server, contract: EgressContract) -> None:
    server.open()
    reply = near(server, contract, 1)
    server.accept("ge", reply.to_shareable())
    server.accept("ge", reply.to_shareable())
    lines = read_lines(received(server))
    assert [line["verdict"] for line in lines] == ["allowed", "blocked"]
    assert "already contributed" in lines[1]["reason"]


def test_a_record_that_cannot_be_written_stops_no_round(server: Server, contract: EgressContract, caplog) -> None:
    received(server).mkdir()
    server.open()
    assert server.accept("ge", near(server, contract, 1).to_shareable())
    assert "has a gap" in caplog.text
    server.close()
    assert list(server.records()[0]["sites"]) == ["ge"]


def streamed(tag: str, value: float, step: int, site: str = "ge") -> Shareable:
    shareable = create_analytic_dxo(tag, value, AnalyticsDataType.SCALAR, global_step=step).to_shareable()
    shareable.set_peer_props({ReservedKey.IDENTITY_NAME: site})
    return shareable


def test_streamed_metrics_are_recorded(server: Server) -> None:
    fl_ctx = server.engine.context("server", **{FLContextKey.EVENT_DATA: streamed("train_loss", 0.5, 1)})
    server.aggregator.handle_event(FEDERATION_EVENT, fl_ctx)
    (line,) = read_lines(received(server))
    assert (line["site"], line["task"], line["kind"], line["round_index"]) == ("ge", "train_loss", "event", 1)


@pytest.mark.parametrize("data", [None, Shareable(), streamed("age", 61.0, 1), streamed("train_loss", 7e300, 1)])
def test_other_events_are_said_and_not_recorded(data: Any, server: Server, caplog) -> None:
    fl_ctx = server.engine.context("server", **{FLContextKey.EVENT_DATA: data})
    server.aggregator.handle_event(FEDERATION_EVENT, fl_ctx)
    assert "something other than an agreed metric" in caplog.text and not received(server).exists()


def test_the_job_tells_the_aggregator_how_many_sites_it_needs() -> None:
    config = json.loads((Path(__file__).parents[4] / "app" / "config" / "config_fed_server.json").read_text())
    (aggregator,) = [item for item in config["components"] if item["id"] == "aggregator"]
    (rounds,) = [item for item in config["workflows"] if item["id"] == "rounds"]
    assert aggregator["args"]["min_sites"] == rounds["args"]["min_clients"]
    DualLoRAAggregator(**aggregator["args"])
