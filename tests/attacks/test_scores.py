"""Attacks on what is scored: adapters of somebody else's choice, again and again, on this site's subjects.

Each score tells a little of the subjects that it was computed from; a hundred scores of chosen adapters tell a lot. So
a site answers a round from one adapter, evaluates one adapter of each kind per job, and keeps count.
"""

import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.executors.learner_executor import LearnerExecutor

from med_duallora.boundary.ledger_audit import read_lines
from med_duallora.boundary.lineage import ALONE, Lineage, Run
from med_duallora.boundary.told import RENEWED_AFTER_S
from med_duallora.errors import UnfitError
from med_duallora.flare.wire.payload import set_lineage
from med_duallora.settings.config import JobConfig, SiteConfig
from med_duallora.site.runtime import SiteRuntime
from tests.attacks.harness import SITE, SiteProcess
from tests.attacks.test_floor import with_policy
from tests.unit.tiny import random_payload

KIND = "med_duallora_adapter"
Header = Mapping[str, Any]


@dataclass
class Asked:
    """A site's job process that does its work, and a server that asks what it likes.

    Args:
        process: of the site.
        lineage: that the server names.
    """

    process: SiteProcess
    lineage: Lineage

    def __post_init__(self) -> None:
        self.executor = LearnerExecutor(learner_id="learner")
        self.executor.learner = self.process.engine.components["learner"]
        self.executor.is_initialized = True

    @property
    def runtime(self) -> SiteRuntime:
        runtime = self.process.runtime
        assert runtime is not None
        return runtime

    def ask(self, task: str, seed: int, round_index: Any = None, kind: Any = None) -> str:
        """Let the site do a task from the adapter of a seed; return the code that leaves."""
        data = DXO(DataKind.WEIGHTS, data=random_payload(self.runtime.contract, seed, scale=0.3)).to_shareable()
        set_lineage(data, self.lineage)
        for name, value in ((AppConstants.CURRENT_ROUND, round_index), (KIND, kind)):
            if value is not None:
                data.set_header(name, value)

        def executed(fl_ctx: FLContext) -> Shareable:
            return self.executor.execute(task, data, fl_ctx, Signal())

        return str(self.process.answer(task, executed).result.get_return_code())

    def evaluate(self, seed: int, kind: Any = "last") -> str:
        return self.ask("validate", seed, kind=kind)

    def train(self, seed: int, round_index: int) -> str:
        return self.ask("train", seed, round_index)

    def statistics(self) -> dict[str, Any]:
        return dict(self.process.collector.get_run_stats().get("med_duallora", {}))


Start = Callable[..., Asked]


@pytest.fixture
def start(process, site_files, trained, tiny_checkpoint, attacked_job: JobConfig) -> Start:
    """Start a job at the site: a process of its own on the same state directory, policy and ledger."""

    numbers = itertools.count(1)

    def started(*settings: str, lineage: Lineage | None = None) -> Asked:
        values = json.loads(site_files[0].read_text())
        values.update(
            cache_dir=str(trained[0].model.cache.directory),
            backbone_checkpoint=str(tiny_checkpoint),
            device="cpu",
        )
        site_files[0].write_text(json.dumps(values))
        job = attacked_job.with_overrides(settings)
        runtime = SiteRuntime(SITE, job, SiteConfig.from_file(site_files[0]))
        site = process(job=job, runtime=runtime, job_id=f"job-{next(numbers)}")
        return Asked(site, lineage or Lineage.begin())

    return started


OK, REFUSED, BAD = ReturnCode.OK, ReturnCode.EXECUTION_EXCEPTION, ReturnCode.BAD_TASK_DATA


def lines_of(site_files: tuple[Path, Path], kind: str) -> list[Mapping[str, Any]]:
    """The lines of what left, of one kind."""
    found = read_lines(site_files[1]) if site_files[1].exists() else []
    return [line for line in found if (line["kind"], line["verdict"]) == (kind, "allowed")]


# --- the test split


def test_forty_adapters_in_one_job_get_one_answer(start: Start, site_files) -> None:
    site = start()
    codes = [site.evaluate(seed) for seed in range(40)]
    assert codes == [OK, *[REFUSED] * 39]
    assert len(lines_of(site_files, "metrics")) == 1


def test_the_same_adapter_again_gets_the_same_answer_and_costs_nothing(start: Start, site_files) -> None:
    with_policy(site_files[0], max_test_evaluations=1)
    lineage = Lineage.begin()
    site = start(lineage=lineage)
    assert [site.evaluate(1), site.evaluate(1)] == [OK, OK]
    again = start(lineage=lineage)
    again.train(5, 0)
    assert again.evaluate(1) == OK, "in another process as well, whatever was trained since then"
    assert len({line["sha256"] for line in lines_of(site_files, "metrics")}) == 1


def by_name(start: Start, number: int) -> Asked:
    return start(f"experiment=run-{number}")


def by_job(start: Start, _number: int) -> Asked:
    return start()


def by_resume(start: Start, number: int) -> Asked:
    """A job that goes on from the one before, in the same experiment."""
    lineage = Lineage((Run("a" * 32, 0), *(Run(f"{index:032x}", index) for index in range(1, number + 2))))
    return start(lineage=lineage)


SOURCES: list[tuple[str, Callable[[Start, int], Asked], dict[str, int]]] = [
    ("a new name of the experiment for each adapter", by_name, {"max_test_evaluations": 2}),
    ("a new job for each adapter", by_job, {"max_test_evaluations": 2}),
    ("a new job of one experiment for each adapter", by_job, {"max_test_evaluations_per_experiment": 2}),
    ("a resumed job for each adapter", by_resume, {"max_test_evaluations": 2}),
    ("a resumed job of one experiment for each adapter", by_resume, {"max_test_evaluations_per_experiment": 2}),
]


@pytest.mark.parametrize("row", SOURCES, ids=[row[0] for row in SOURCES])
def test_a_budget_of_test_evaluations_is_kept(row, start: Start, site_files) -> None:
    _trick, job, limits = row
    with_policy(site_files[0], **limits)
    codes = [job(start, number).evaluate(number) for number in range(4)]
    assert codes == [OK, OK, REFUSED, REFUSED]
    assert len(lines_of(site_files, "metrics")) == 2


def deleted(record: Path) -> None:
    record.unlink()


def emptied(record: Path) -> None:
    record.write_text(json.dumps({"format": 1, "answers": []}))


LOST = [("deleted", deleted), ("emptied", emptied)]


@pytest.mark.parametrize("row", LOST, ids=[row[0] for row in LOST])
def test_without_the_record_the_ledger_tells_what_was_answered(row, start: Start, site_files, tmp_path: Path) -> None:
    _trick, change = row
    with_policy(site_files[0], max_test_evaluations=3)
    assert [by_name(start, number).evaluate(number) for number in range(2)] == [OK, OK]
    change(tmp_path / "state" / "answers.json")
    assert [by_name(start, number).evaluate(number) for number in range(2, 5)] == [OK, REFUSED, REFUSED]


def damaged(record: Path) -> None:
    record.write_text(record.read_text()[:-20])


def older(record: Path) -> None:
    values = json.loads(record.read_text())
    record.write_text(json.dumps({**values, "answers": values["answers"][:-1]}))


CHANGED = [*LOST, ("damaged", damaged), ("rolled back", older)]


@pytest.mark.parametrize("row", CHANGED, ids=[row[0] for row in CHANGED])
def test_a_record_that_is_changed_in_a_running_job_stops_its_answers(row, start: Start, tmp_path: Path) -> None:
    _trick, change = row
    site = start()
    assert [site.train(1, 0), site.evaluate(1)] == [OK, OK]
    change(tmp_path / "state" / "answers.json")
    assert [site.evaluate(2), site.evaluate(1, "best"), site.train(2, 1)] == [REFUSED] * 3


KINDS: list[tuple[str, Any]] = [
    ("no kind", None),
    ("another word", "third"),
    ("a list", ["last"]),
    ("a number", 1),
    ("a round as its kind", 0),
    ("an empty text", ""),
]


@pytest.mark.parametrize(("trick", "kind"), KINDS, ids=[row[0] for row in KINDS])
def test_a_kind_of_adapter_that_nobody_knows_is_not_scored(trick: str, kind: Any, start: Start, tmp_path: Path) -> None:
    site = start()
    assert site.evaluate(1, kind) == BAD
    assert not list(tmp_path.rglob("predictions.json"))


def test_one_adapter_of_each_kind_is_scored(start: Start, site_files) -> None:
    site = start()
    assert [site.evaluate(1, "best"), site.evaluate(2, "last"), site.evaluate(3, "best")] == [OK, OK, REFUSED]


def test_nothing_is_computed_for_a_refused_evaluation(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    site = start()
    site.evaluate(1)
    monkeypatch.setattr(SiteRuntime, "_compared", lambda *_: pytest.fail("it was computed"))
    assert site.evaluate(2) == REFUSED


# --- runs and rounds


def test_a_job_has_one_run(start: Start) -> None:
    """A server that names a new run with every task would begin every count anew."""
    site = start()
    assert site.evaluate(1) == OK
    for lineage in (Lineage.begin(), site.lineage.continued(1), ALONE):
        site.lineage = lineage
        assert site.evaluate(2) == site.train(2, 0) == BAD
    assert start(lineage=ALONE).evaluate(1) == BAD, "the name of no run"


def test_a_round_is_scored_and_trained_from_one_adapter(start: Start, site_files) -> None:
    site = start()
    assert [site.train(seed, 0) for seed in range(6)] == [OK, *[REFUSED] * 5]
    assert len(lines_of(site_files, "tensors")) == 1
    again = start(lineage=site.lineage)
    assert [again.train(9, 0), again.train(0, 0)] == [REFUSED, OK], "nor in another process of the same run"


def test_a_refused_repeat_tells_nothing_by_statistics_or_events(start: Start, site_files, monkeypatch) -> None:
    site = start()
    site.train(1, 0)
    told, events, ledger = site.statistics(), len(site.process.events()), lines_of(site_files, "event")
    assert "val_loss" in told and "train_loss" in told
    for name in ("_validated", "_trained"):
        monkeypatch.setattr(SiteRuntime, name, lambda *_: pytest.fail("it was computed"))
    for seed in range(2, 12):
        assert site.train(seed, 0) == REFUSED
        assert site.statistics() == told
    assert len(site.process.events()) == events
    assert lines_of(site_files, "event") == ledger


def test_rounds_are_counted_over_all_jobs(start: Start, site_files) -> None:
    with_policy(site_files[0], max_rounds=3)
    codes = [by_name(start, number).train(number, 0) for number in range(2)]
    site = by_name(start, 9)
    assert [*codes, *(site.train(0, index) for index in range(3))] == [OK, OK, OK, REFUSED, REFUSED]
    assert site.train(0, 0) == OK, "a round that was counted may be repeated"


ROUNDS: list[tuple[str, Any]] = [
    ("the round after the last", 3),
    ("a million", 10**6),
    ("a negative one", -1),
    ("a text", "0"),
    ("a truth value", True),
]


@pytest.mark.parametrize(("trick", "round_index"), ROUNDS, ids=[row[0] for row in ROUNDS])
def test_a_round_beyond_the_job_is_not_answered(trick: str, round_index: Any, start: Start, site_files) -> None:
    site = start()
    assert site.train(1, round_index) == BAD
    assert not lines_of(site_files, "tensors") and not lines_of(site_files, "event")


def test_rounds_without_an_end_are_refused_with_the_job(start: Start) -> None:
    with pytest.raises(UnfitError, match="job_limits"):
        start("train.n_rounds=201")


# --- statistics


def test_a_score_is_told_once_it_left(start: Start, site_files) -> None:
    """What the learner knows before its answer is released, such as the loss of a running step, is not told."""
    site = start()
    learner = site.process.engine.components["learner"]
    learner._statistics = {"phase": "training", "train_loss": 0.5, "val_loss": 0.25, "both.auroc": 1.0, "n_positive": 1}
    assert site.statistics() == {"phase": "training"}
    site.train(1, 0)
    left = site.statistics()
    assert {"train_loss", "val_loss"} <= set(left)
    learner._statistics = {**learner._statistics, "train_loss": left["train_loss"] + 0.125}
    assert site.statistics() == left, "what left last"


def test_every_told_number_has_a_line_and_no_second_one(start: Start, site_files) -> None:
    site = start()
    learner = site.process.engine.components["learner"]
    learner._statistics = {"phase": "training", "n_steps": 3.0, "peak_memory_mb": 512.0}
    for _ in range(50):
        assert site.statistics() == learner._statistics
    (line,) = lines_of(site_files, "statistics")
    assert (line["task"], line["reason"]) == ("show_stats", "n_steps, peak_memory_mb")


def test_who_asks_without_an_end_does_not_fill_the_disk(start: Start, site_files) -> None:
    site = start()
    learner = site.process.engine.components["learner"]
    started = time.monotonic()
    for step in range(300):
        learner._statistics = {"phase": "training", "n_steps": float(step), "steps_per_second": 1.0 + step}
        site.statistics()
    assert len(lines_of(site_files, "statistics")) <= 2 + (time.monotonic() - started) / RENEWED_AFTER_S


def test_without_a_ledger_no_number_is_told(start: Start, site_files) -> None:
    site = start()
    site_files[1].mkdir()
    site.process.engine.components["learner"]._statistics = {"phase": "training", "n_steps": 3.0}
    assert site.statistics() == {}


TEST, ROUND, TOLD = "scores of the test split", "rounds", "show_stats"
SINGLE: list[tuple[str, str, str, Callable[..., Any]]] = [
    (TEST, "forty adapters in one job", "one is scored", test_forty_adapters_in_one_job_get_one_answer),
    (TEST, "a third adapter in one job, by the other kind", "two are scored", test_one_adapter_of_each_kind_is_scored),
    (
        TEST,
        "an adapter that is scored, but not answered",
        "not computed",
        test_nothing_is_computed_for_a_refused_evaluation,
    ),
    (ROUND, "a new run with every task of a job", "BAD_TASK_DATA leaves", test_a_job_has_one_run),
    (ROUND, "six adapters for one round", "one is answered", test_a_round_is_scored_and_trained_from_one_adapter),
    (ROUND, "a new job for each round", "policy.max_rounds counts them all", test_rounds_are_counted_over_all_jobs),
    (
        ROUND,
        "the scores of a refused repeat, by statistics and fed events",
        "not computed, not told",
        test_a_refused_repeat_tells_nothing_by_statistics_or_events,
    ),
    (
        TOLD,
        "the loss of a running step, a score before its answer",
        "told once it left",
        test_a_score_is_told_once_it_left,
    ),
    (
        TOLD,
        "numbers that are in no answer",
        "a line of the ledger",
        test_every_told_number_has_a_line_and_no_second_one,
    ),
    (
        TOLD,
        "a new line of the ledger with every request",
        "one in ten seconds",
        test_who_asks_without_an_end_does_not_fill_the_disk,
    ),
    (TOLD, "numbers while the ledger cannot be written", "an empty answer", test_without_a_ledger_no_number_is_told),
]
"""Attacks of one test each, for the table: channel, trick, what happens instead."""
