"""Attacks on what the site itself decides: its policy, its configuration, its ledger."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_constant import ReturnCode

from med_duallora.boundary.ledger import site_ledger
from med_duallora.flare.site.console_guard import ConsoleGuard
from med_duallora.flare.wire.payload import metrics_reply
from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from med_duallora.settings.config import SiteConfig
from med_duallora.site.offer import EVALUATES_ONLY
from tests.attacks.test_results import assert_nothing_left
from tests.attacks.test_side_channels import scalar
from tests.unit.boundary.test_ledger_marker import REPLACED


def with_policy(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    values["policy"].update(changes)
    path.write_text(json.dumps(values))


DEMANDS = [
    ("the classification head", ["lora.head_policy=global"], {}, "policy.head_leaves"),
    ("the head's weights as a part of the adapter", [], {"head_leaves": "none"}, "policy.head_leaves"),
    (
        "whole weights under a rank that the site accepts",
        ["method=fedavg-full", "lora.rank_global=2"],
        {"max_rank": 16, "head_leaves": "all"},
        "policy.max_rank",
    ),
    ("a method that sends the head", ["method=fedavg-lora"], {}, "policy.head_leaves"),
    ("a rank above the site's", ["lora.rank_global=32"], {"max_rank": 16}, "policy.max_rank"),
    ("more blocks", ["lora.n_blocks=2"], {"max_blocks": 1}, "policy.max_blocks"),
    ("another contract", [], {"contract_sha256": ["a" * 64]}, "policy.contract_sha256"),
    ("another backbone", [], {"backbone_sha256": "b" * 64}, "policy.backbone_sha256"),
    ("a job with the agreed contract but other settings", [], {"job_sha256": ["a" * 64]}, "policy.job_sha256"),
    ("a number of epochs to tell something by", ["train.local_epochs=21"], {}, "policy.job_limits"),
    ("a learning rate to tell something by", ["train.lr=0.11"], {}, "policy.job_limits"),
    ("rounds without an end", ["train.n_rounds=201"], {}, "policy.job_limits"),
    ("views without an end", ["train.n_views=33"], {}, "policy.job_limits"),
    ("another number of rounds", ["train.n_rounds=9"], {"contract_sha256": ["PINNED"]}, "policy.contract_sha256"),
]


@pytest.mark.parametrize("row", DEMANDS, ids=[row[0] for row in DEMANDS])
def test_a_job_that_demands_more_gets_nothing(row, process, attacked_job, contract, site_files):
    """Even if the learner did not refuse it before training, nothing would leave."""
    _trick, settings, policy, key = row
    pinned = [contract.sha256 if value == "PINNED" else value for value in policy.get("contract_sha256", [])]
    with_policy(site_files[0], **{**policy, **({"contract_sha256": pinned} if pinned else {})})
    site = process(job=attacked_job.with_overrides(settings))
    leaving = site.answer("validate", metrics_reply({}))
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert key in site.ledger(site_files[1])[-1]["reason"]


def with_role(path: Path, role: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "role": role}))


def test_no_adapter_leaves_a_site_that_only_evaluates(process, trained, site_files):
    """Also where a job's own code had trained one there, by every check of the adapter itself an honest one."""
    with_role(site_files[0], "train")
    assert process().answer("train", trained[1].to_shareable()).result.get_return_code() == ReturnCode.OK
    with_role(site_files[0], "predict")
    site = process()
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    assert EVALUATES_ONLY in site.ledger(site_files[1])[-1]["reason"]


def test_no_training_number_leaves_a_site_that_only_evaluates(process, trained, site_files):
    """The runtime of these attacks did report it, as a job's own code could let it."""
    for role, n_sent in (("train", 1), ("predict", 0)):
        with_role(site_files[0], role)
        site = process()
        site.engine.components["learner"].fire_fed_event(FEDERATION_EVENT, scalar()(trained[1].metrics), site.context())
        assert len(site.events()) == n_sent
    assert "a metric outside the contract" in site.ledger(site_files[1])[-1]["reason"]


def test_the_console_hears_no_training_number_of_a_site_that_only_evaluates(process, site_files):
    """A job's own code could have trained there: how many subjects and steps it took is not for the console."""
    told = {"phase": "training", "n_subjects": 6, "n_steps": 1, "steps_per_second": 1.0, "train_loss": 0.5}
    for role, n_told in (("train", 4), ("predict", 1)):
        with_role(site_files[0], role)
        site = process()
        site.engine.components["learner"]._statistics = told
        assert len(site.collector.get_run_stats()["med_duallora"]) == n_told


FLOOR = [
    ("metrics where none may leave", {"metrics_leave": False}, "metric cache_hits is more than"),
    ("an adapter of too few subjects of a class", {"min_subjects": 4}, "fewer training subjects than its policy.min_s"),
    ("an adapter of too few subjects", {"min_train_subjects": 7}, "fewer training subjects than its policy.min_train"),
    ("a score over too few subjects", {"min_subjects": 3}, "metric val_balanced_accuracy is more than"),
    ("digits that the policy cuts", {"metric_decimals": 0}, "is more than this site's policy lets out"),
]


@pytest.mark.parametrize("row", FLOOR, ids=[row[0] for row in FLOOR])
def test_the_floor_holds_at_the_last_line_too(row, process, trained, site_files):
    """The site's own code applies it where a metric is computed; were that left out, the metric would still stay."""
    _trick, policy, refusal = row
    with_policy(site_files[0], **policy)
    site = process()
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert refusal in site.ledger(site_files[1])[-1]["reason"]


def test_metrics_that_the_policy_keeps_do_not_leave(process, trained, site_files, monkeypatch):
    """The floor is applied where metrics are computed; what was kept there is refused here."""
    runtime, reply = trained
    monkeypatch.setattr(runtime, "reported", {})
    leaving = process().answer("train", reply.to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR


def test_without_a_site_configuration_nothing_leaves(process, trained, site_files):
    site_files[0].unlink()
    leaving = process().answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR


def test_without_a_model_of_the_site_nothing_leaves(process, trained, site_files):
    """A learner of somebody else has no state of this site to compare with."""
    site = process(runtime=None)
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert "no trained model of this site" in site.ledger(site_files[1])[-1]["reason"]


def test_without_a_ledger_nothing_leaves(process, trained, site_files):
    site_files[1].mkdir()
    leaving = process().answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)


def test_with_a_tampered_ledger_nothing_leaves(process, trained, site_files):
    site = process()
    for _ in range(2):
        assert site.answer("train", trained[1].to_shareable()).result.get_return_code() == ReturnCode.OK
    lines = site_files[1].read_bytes().splitlines(keepends=True)
    site_files[1].write_bytes(lines[0])
    assert site.answer("train", trained[1].to_shareable()).result.get_return_code() != ReturnCode.OK
    assert site_files[1].read_bytes() == lines[0], "and the evidence is not written over"


@pytest.mark.parametrize("row", REPLACED, ids=[row[0] for row in REPLACED])
def test_a_ledger_that_is_not_the_remembered_one_stops_every_answer(row, process, trained, site_files, caplog):
    """In the middle of a job: no result, no scalar and no statistic leaves, and nothing begins anew."""
    _trick, change, _what = row
    place = site_files[0].parent / "audit" / site_files[1].name
    site_files[0].write_text(json.dumps({**json.loads(site_files[0].read_text()), "ledger": str(place)}))
    ledger, site = site_ledger(SiteConfig.from_file(site_files[0])), process()
    for number in range(6):
        if number == 4:
            shutil.copytree(place.parent, place.parents[1] / "copy")
        assert site.answer("train", trained[1].to_shareable()).result.get_return_code() == ReturnCode.OK
    change(ledger)
    before = place.read_bytes() if place.exists() else None
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    learner = site.engine.components["learner"]
    learner.fire_fed_event(FEDERATION_EVENT, scalar()(trained[1].metrics), site.context())
    assert site.events() == []
    learner._statistics = {"phase": "training", "n_steps": 1}
    assert "med_duallora" not in site.collector.get_run_stats()
    assert (place.read_bytes() if place.exists() else None) == before
    assert "the ledger was replaced or cut" in caplog.text


def test_a_job_without_our_settings_gets_nothing(process, trained):
    site = process(job_components={"job": ConsoleGuardLike()})
    leaving = site.answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR


class ConsoleGuardLike(ConsoleGuard):
    """Any component that is not the job's settings."""

    def __init__(self) -> None:
        super(ConsoleGuard, self).__init__()
