"""Attacks on the floors: what is left out of a policy, numbers of a small class, adapters of a few subjects."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.fl_constant import ReturnCode

from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.flare.wire.payload import TrainReply, metrics_reply
from med_duallora.flare.wire.tracking import FEDERATION_EVENT
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.runtime import SiteRuntime
from tests.attacks.harness import SiteProcess
from tests.attacks.test_results import assert_nothing_left
from tests.attacks.test_side_channels import scalar

STRICT = dataclasses.asdict(SitePolicy())
ENOUGH = {"train": (9, 9), "val": (9, 9), "test": (9, 9)}
"""Number of normal and of diseased subjects by split, all of them above the floors of the site kit."""


def with_policy(path: Path, policy: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "policy": policy}))


def with_subjects(runtime: SiteRuntime, monkeypatch: pytest.MonkeyPatch, **changes: tuple[int, int]) -> None:
    """Let the site have this many subjects of each class."""

    def made() -> Iterator[PreparedSubject]:
        for split, sizes in {**ENOUGH, **changes}.items():
            for label, n in enumerate(sizes):
                for _ in range(n):
                    yield dataclasses.replace(runtime.cohort.subjects[0], split=split, label=label)

    cohort = PreparedCohort(runtime.cohort.directory, tuple(made()))
    monkeypatch.setattr(runtime, "cohort", cohort)
    monkeypatch.setattr(runtime, "train_subjects", cohort.split("train"))


@pytest.fixture
def strict(site_files: tuple[Path, Path]) -> Path:
    """The site's configuration, with the floors of the site kit."""
    with_policy(site_files[0], STRICT)
    return site_files[0]


def refused(site: SiteProcess, ledger: Path, task: str, reply: Any) -> str:
    """Return why nothing left."""
    leaving = site.answer(task, reply)
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)
    return str(site.ledger(ledger)[-1]["reason"])


# ---- what nobody wrote down


LEFT_OUT = list(STRICT)


@pytest.mark.parametrize("key", LEFT_OUT)
def test_a_policy_without_a_key_lets_nothing_out(key: str, process, trained, site_files, monkeypatch):
    """Before, the widest value counted: the head, rank 256, six decimals, one subject."""
    with_subjects(trained[0], monkeypatch)
    with_policy(site_files[0], {name: value for name, value in STRICT.items() if name != key})
    leaving = process().answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR
    assert_nothing_left(leaving)


WIDE = {"min_subjects": 1, "metric_decimals": 6, "head_leaves": "all", "max_rank": 256}
MISREAD: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
    ("no policy at all", lambda values: json.dumps({key: values[key] for key in values if key != "policy"})),
    ("an empty policy", lambda values: json.dumps({**values, "policy": {}})),
    ("a second policy", lambda values: f'{json.dumps(values)[:-1]}, "policy": {json.dumps({**STRICT, **WIDE})}}}'),
    ("a second floor", lambda values: json.dumps(values).replace('"max_rank"', '"min_subjects": 1, "max_rank"')),
]


@pytest.mark.parametrize("row", MISREAD, ids=[row[0] for row in MISREAD])
def test_a_policy_that_can_be_read_in_two_ways_lets_nothing_out(row, process, trained, strict, monkeypatch):
    """Before, what came later in the file counted."""
    with_subjects(trained[0], monkeypatch)
    assert process().answer("train", trained[1].to_shareable()).result.get_return_code() == ReturnCode.OK
    strict.write_text(row[1](json.loads(strict.read_text())))
    leaving = process().answer("train", trained[1].to_shareable())
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR


NUMBERS = [
    ("specificity of three normal subjects", {"test": (3, 99)}, {"both.specificity": 0.667}, "both.specificity"),
    ("sensitivity of four diseased subjects", {"test": (99, 4)}, {"both.sensitivity": 0.75}, "both.sensitivity"),
    ("sensitivity, where no normal subject is", {"test": (0, 99)}, {"both.sensitivity": 1.0}, "both.sensitivity"),
    ("a score over both classes, one of them small", {"test": (4, 99)}, {"both.auroc": 0.875}, "both.auroc"),
    ("the number of normal subjects of a small class", {"test": (3, 99)}, {"n_negative": 3.0}, "n_negative"),
    ("the number of diseased subjects, the normal ones few", {"test": (3, 99)}, {"n_positive": 99.0}, "n_positive"),
]


@pytest.mark.parametrize("row", NUMBERS, ids=[row[0] for row in NUMBERS])
def test_numbers_of_a_small_class_do_not_leave(row, process, trained, site_files, monkeypatch):
    """Also not where a site's own code had offered them; before, the whole split was counted."""
    _trick, subjects, numbers, name = row
    with_policy(site_files[0], STRICT)
    with_subjects(trained[0], monkeypatch, **subjects)
    monkeypatch.setattr(trained[0], "reported", dict(numbers))
    reason = refused(process(), site_files[1], "validate", metrics_reply(numbers))
    assert reason == f"metric {name} is more than this site's policy lets out"
    with_subjects(trained[0], monkeypatch)
    assert process().answer("validate", metrics_reply(numbers)).result.get_return_code() == ReturnCode.OK


@pytest.mark.parametrize("name", ["n_subjects", "n_test_subjects"])
def test_the_size_of_a_split_with_a_small_class_does_not_leave(name: str, process, trained, strict, monkeypatch):
    """The training split's number has no place in an evaluation, where it stood for the test split's before."""
    with_subjects(trained[0], monkeypatch, test=(3, 99))
    monkeypatch.setattr(trained[0], "reported", {name: 102.0})
    leaving = process().answer("validate", metrics_reply({name: 102.0}))
    assert leaving.result.get_return_code() == ReturnCode.TASK_RESULT_FILTER_ERROR


def test_nor_as_an_event_or_a_statistic(process, trained, strict, monkeypatch):
    numbers = {"val_balanced_accuracy": 0.875, "both.specificity": 0.667, "n_negative": 3.0}
    with_subjects(trained[0], monkeypatch, val=(4, 99), test=(3, 99))
    monkeypatch.setattr(trained[0], "reported", dict(numbers))
    site = process()
    learner = site.engine.components["learner"]
    learner.fire_fed_event(FEDERATION_EVENT, scalar("val_balanced_accuracy", 0.875)({}), site.context())
    assert site.events() == []
    learner._statistics = {"phase": "waiting", **numbers}
    assert site.collector.get_run_stats()["med_duallora"] == {"phase": "waiting"}


TRAINED_ON = [
    ("an adapter of one subject", (1, 0), "min_subjects"),
    ("an adapter of ninety-nine subjects and one diseased", (98, 1), "min_subjects"),
    ("an adapter of four subjects of each class", (4, 4), "min_subjects"),
    ("an adapter of fewer subjects than agreed", (9, 9), "min_train_subjects"),
]


@pytest.mark.parametrize("row", TRAINED_ON, ids=[row[0] for row in TRAINED_ON])
def test_an_adapter_of_a_few_subjects_does_not_leave(row, process, trained, site_files, monkeypatch):
    """Also not without any metric; before, no floor held for tensors."""
    _trick, train, key = row
    runtime, reply = trained
    with_policy(site_files[0], {**STRICT, "min_train_subjects": 19})
    with_subjects(runtime, monkeypatch, train=train)
    bare = TrainReply(reply.tensors, reply.weight, reply.round_index, {}).to_shareable()
    reason = refused(process(), site_files[1], "train", bare)
    assert reason == f"this site has fewer training subjects than its policy.{key} demands"
    with_subjects(runtime, monkeypatch, train=(10, 9))
    assert process().answer("train", bare).result.get_return_code() == ReturnCode.OK
