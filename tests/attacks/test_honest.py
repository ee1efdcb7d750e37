"""Before any attack: what is meant to leave leaves, complete and recorded."""

import numpy as np
import pytest
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.fuel.utils import fobs
from nvflare.widgets.info_collector import InfoCollector

from med_duallora.boundary.ledger_audit import verify
from med_duallora.flare.wire.payload import metrics_reply, read_metrics_reply, read_train_reply
from med_duallora.flare.wire.tracking import stream_from_site


def test_an_honest_round_leaves_bit_for_bit(process, trained, contract, site_files):
    _, reply = trained
    leaving = process().answer("train", reply.to_shareable())
    arrived = read_train_reply(contract, _without_framework_headers(fobs.loads(leaving.data)))
    for name, value in reply.tensors.items():
        np.testing.assert_array_equal(arrived.tensors[name], value)
    assert (arrived.weight, arrived.round_index) == (reply.weight, 1)
    assert arrived.metrics == reply.metrics and arrived.initial_metrics == reply.initial_metrics
    (line,) = process().ledger(site_files[1])
    assert line["verdict"] == "allowed" and line["round_index"] == 1 and line["n_bytes"] == contract.tensor_bytes
    assert verify(site_files[1]).problems == ()


def test_the_payload_is_hardly_more_than_its_numbers(process, trained, contract):
    leaving = process().answer("train", trained[1].to_shareable())
    assert len(leaving.data) <= 1.05 * contract.tensor_bytes + 8 * 1024


def test_honest_scores_leave(process, trained, contract, site_files, monkeypatch):
    runtime, reply = trained
    monkeypatch.setattr(runtime, "reported", {})
    metrics = runtime.evaluate(reply.tensors)
    leaving = process().answer("validate", metrics_reply(metrics))
    assert read_metrics_reply(contract, _without_framework_headers(fobs.loads(leaving.data))) == metrics
    (line,) = process().ledger(site_files[1])
    assert (line["kind"], line["verdict"]) == ("metrics", "allowed")


def test_an_honest_failure_leaves_as_its_code(process, site_files):
    leaving = process().answer("train", make_reply(ReturnCode.EXECUTION_EXCEPTION))
    assert leaving.result.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    (line,) = process().ledger(site_files[1])
    assert (line["kind"], line["verdict"], line["reason"]) == ("error", "allowed", "EXECUTION_EXCEPTION")


def test_honest_metrics_leave_as_events_once_per_round(process, trained, contract, site_files):
    site, (_, reply) = process(), trained
    learner = site.engine.components["learner"]
    for _ in range(2):
        stream_from_site(learner, contract, reply.metrics, 1, site.context())
    assert [request["DXO"]["data"]["track_key"] for request in site.events()] == list(reply.metrics)
    lines = site.ledger(site_files[1])
    assert [line["verdict"] for line in lines] == ["allowed"] * len(reply.metrics) + ["blocked"] * len(reply.metrics)


def test_honest_statistics_are_shown(process, trained):
    site = process()
    site.engine.components["learner"]._statistics = {"phase": "training", "round": 1, "n_steps": 3.0}
    shown = site.collector.get_run_stats()
    assert shown["med_duallora"] == {"phase": "training", "round": 1.0, "n_steps": 3.0}
    assert set(shown) == {"med_duallora", "ClientRunner"}


WORK = {"steps_per_second": 3.14159, "payload_bytes": 9.0, "peak_memory_mb": 512.0, "cache_hits": 6.0}
STATE = {"phase": "training", "device": "cpu", "round": 1.0}


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        pytest.param('"metrics_leave": true', {**STATE, **WORK, "steps_per_second": 3.142}, id="numbers are rounded"),
        pytest.param('"metrics_leave": false', STATE, id="no number leaves"),
    ],
)
def test_the_policy_holds_for_numbers_of_work(policy: str, shown, process, trained, site_files):
    site_files[0].write_text(site_files[0].read_text().replace('"metrics_leave": true', policy))
    site = process()
    site.engine.components["learner"]._statistics = {**STATE, **WORK}
    assert site.collector.get_run_stats()["med_duallora"] == shown


def test_without_a_known_policy_no_number_leaves(process, site_files):
    site_files[0].write_text("{")
    site = process()
    site.engine.components["learner"]._statistics = {**STATE, **WORK}
    assert site.collector.get_run_stats()["med_duallora"] == STATE


def test_our_own_error_texts_are_shown(process):
    site = process()
    site.engine.components["learner"].log_error(site.context(), "initialisation failed: ConfigError: policy.max_rank")
    assert "policy.max_rank" in str(site.collector.get_errors())


def test_the_context_that_travels_names_site_and_job_only(process, trained):
    leaving = process().answer("train", trained[1].to_shareable())
    context = fobs.loads(leaving.context)
    assert set(context.get_all_public_props()) <= {"__identity_name__", "__run_num__"}


def _without_framework_headers(result: Shareable) -> Shareable:
    """The server's view of a result before its own checks."""
    assert set(result["__headers__"]) <= {"__content_type__", "__task_name__", "__task_id__", "__audit_event_id__"}
    assert FLContextKey.TASK_NAME == "__task_name__" and InfoCollector.CATEGORY_ERROR == "error"
    return result
