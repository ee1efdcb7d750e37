"""The contract's replies, headers and statistics: part of its hash, and equal to what FLARE calls them."""

import json
from typing import Any

import pytest

from med_duallora.boundary.contract import HEADERS, MAX_WEIGHT, EgressContract
from med_duallora.errors import EgressViolation
from med_duallora.measures import STATEMENTS, Place, standing_in
from med_duallora.settings.config import JobConfig

JOB = JobConfig(backbone="cinema-tiny")
CONTRACT = EgressContract.for_job(JOB)


def test_every_metric_has_its_place_and_only_one():
    groups = [CONTRACT.metric_names(group) for group in (Place.TRAIN_REPLY, Place.INITIAL, Place.VALIDATE_REPLY)]
    assert set().union(*groups) == set(CONTRACT.metrics)
    assert set(groups[0]) & set(groups[1]) == set() == set(groups[1]) & set(groups[2])
    assert set(groups[2]) == set(standing_in(Place.VALIDATE_REPLY))


@pytest.mark.parametrize(
    ("metrics", "place"),
    [
        ({"both.auroc": 0.5}, Place.TRAIN_REPLY),
        ({"val_loss": 0.5}, Place.TRAIN_REPLY),
        ({"train_loss": 0.5}, Place.INITIAL),
        ({"train_loss": 0.5}, Place.VALIDATE_REPLY),
        ({"seconds": 1.0}, Place.VALIDATE_REPLY),
    ],
)
def test_a_metric_in_the_wrong_place_is_refused(metrics: dict, place: Place):
    assert CONTRACT.check_metrics(metrics) == metrics
    with pytest.raises(EgressViolation, match="outside the contract"):
        CONTRACT.check_metrics(metrics, place)


def test_the_whole_contract_is_plain_json_and_hashed():
    values = json.loads(json.dumps(CONTRACT.to_dict()))
    assert values["replies"]["train"]["meta"]["current_round"] == ["integer", 0, JOB.train.n_rounds - 1]
    assert set(values["replies"]) == {"train", "validate"}
    assert values["headers"] == list(HEADERS)
    shorter = EgressContract.for_job(JOB.with_overrides(["train.n_rounds=3"]))
    assert shorter.sha256 != CONTRACT.sha256 == EgressContract.for_job(JOB).sha256


def test_the_names_are_those_of_flare():
    from nvflare.apis.dxo import DataKind, MetaKey
    from nvflare.apis.shareable import ReservedHeaderKey

    replies = CONTRACT.replies()
    assert set(replies["train"]["meta"]) == {
        MetaKey.NUM_STEPS_CURRENT_ROUND,
        MetaKey.CURRENT_ROUND,
        MetaKey.INITIAL_METRICS,
        "metrics",
    }
    assert (replies["train"]["kind"], replies["validate"]["kind"]) == (DataKind.WEIGHTS.value, DataKind.METRICS.value)
    assert set(HEADERS) == {ReservedHeaderKey.CONTENT_TYPE, ReservedHeaderKey.RC}


@pytest.mark.parametrize("weight", [0, -1.0, float("nan"), float("inf"), MAX_WEIGHT * 2, "7", True, None, [1.0]])
def test_a_weight_is_a_positive_number(weight: Any):
    with pytest.raises(EgressViolation, match="weight"):
        CONTRACT.check_weight(weight)
    assert CONTRACT.check_weight(14) == 14.0


def test_statistics_keep_what_is_allowed_and_drop_the_rest():
    given: dict[object, object] = {
        "phase": "training",
        "device": "cuda:3",
        "round": 2,
        "train_loss": 0.5,
        "steps_per_second": 3.5,
        "payload_bytes": 9,
        "both.auroc": 0.75,
    }
    dropped: dict[object, object] = {
        "subject": "patient007",
        "phase ": "training",
        "n_subjects": "patient007",
        "val_loss": float("nan"),
        "both.mcc": 1.5,
        "n_steps": True,
        "cache_hits": [1],
        7: 1.0,
    }
    assert CONTRACT.allowed_statistics({**given, **dropped}) == given
    assert CONTRACT.allowed_statistics({"phase": "patient007", "device": "/dev/x"}) == {}


def test_the_learners_phases_are_allowed():
    import re
    from pathlib import Path

    import med_duallora

    source = (Path(med_duallora.__file__).parent / "flare" / "site" / "learner.py").read_text(encoding="utf-8")
    phases = set(re.findall(r'phase="?([a-z ]+)"', source)) | set(re.findall(r'"phase": "([a-z ]+)"', source))
    assert phases and phases <= set(STATEMENTS["phase"].texts)
