"""The record of what a site answered: counted before, kept across processes, and never silently begun anew."""

import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from med_duallora.boundary.ledger import Ledger
from med_duallora.boundary.ledger_entry import ALLOWED, BLOCKED, Entry
from med_duallora.errors import EgressViolation, StateError
from med_duallora.settings.config import SiteConfig
from med_duallora.settings.policy import MAX_ANSWERS, SitePolicy
from med_duallora.settings.workflow import ADAPTER_KINDS
from med_duallora.site.budget import AnswerBudget, Question, Spent

RUN, OTHER_RUN = "a" * 32, "b" * 32
ONE, TWO = "1" * 64, "2" * 64


def asked(what: int | str = 0, run: str = RUN, experiment: str = "demo") -> Question:
    return Question(experiment, run, what)


@pytest.fixture
def config(tmp_path: Path) -> SiteConfig:
    return SiteConfig(data_dir=tmp_path / "data", state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")


def limited_to(config: SiteConfig, **limits: int) -> AnswerBudget:
    return AnswerBudget(dataclasses.replace(config, policy=SitePolicy(**limits)))


def test_the_same_question_gets_the_same_answer(config: SiteConfig) -> None:
    budget = AnswerBudget(config)
    assert budget.claim(asked(), ONE) is None
    assert budget.claim(asked(), ONE) is None, "nothing was computed yet, as after an abort"
    budget.keep(asked(), {"val_loss": 0.5})
    assert AnswerBudget(config).claim(asked(), ONE) == {"val_loss": 0.5}
    assert budget.spent("demo") == Spent(0, 1, 0, 1)


@pytest.mark.parametrize("what", [0, 7, *ADAPTER_KINDS])
def test_another_adapter_is_refused(what: int | str, config: SiteConfig) -> None:
    AnswerBudget(config).claim(asked(what), ONE)
    before = (config.state_dir / "answers.json").read_bytes()
    with pytest.raises(EgressViolation, match="already answered with another adapter"):
        AnswerBudget(config).claim(asked(what), TWO)
    assert (config.state_dir / "answers.json").read_bytes() == before


def test_an_answer_without_numbers_is_one(config: SiteConfig) -> None:
    budget = AnswerBudget(config)
    budget.claim(asked(), ONE)
    budget.keep(asked(), {})
    assert budget.claim(asked(), ONE) == {}


LIMITS = [
    ("max_test_evaluations", [asked("last"), asked("best")], asked("last", experiment="other")),
    ("max_test_evaluations_per_experiment", [asked("last"), asked("best")], asked("last", OTHER_RUN)),
    ("max_rounds", [asked(0), asked(1)], asked(0, experiment="other")),
    ("max_rounds_per_experiment", [asked(0), asked(1)], asked(1, OTHER_RUN)),
]


@pytest.mark.parametrize(("name", "first", "last"), LIMITS, ids=[row[0] for row in LIMITS])
def test_a_limit_holds_and_is_named(name: str, first: list[Question], last: Question, config: SiteConfig) -> None:
    for question in first:
        limited_to(config, **{name: 2}).claim(question, ONE)
    with pytest.raises(EgressViolation, match=rf"policy\.{name} of the site configuration is 2, and 2 were answered"):
        limited_to(config, **{name: 2}).claim(last, ONE)
    assert limited_to(config, **{name: 2}).claim(first[0], ONE) is None, "what was counted is not counted again"
    assert limited_to(config, **{name: 3}).claim(last, ONE) is None


def test_one_experiment_s_limit_does_not_hold_for_another(config: SiteConfig) -> None:
    budget = limited_to(config, max_rounds_per_experiment=1, max_test_evaluations_per_experiment=1)
    for experiment in ("demo", "other"):
        budget.claim(asked(0, experiment=experiment), ONE)
        budget.claim(asked("last", experiment=experiment), ONE)
    assert budget.spent("other") == Spent(2, 2, 1, 1)


def test_no_test_scores_at_all(config: SiteConfig) -> None:
    with pytest.raises(EgressViolation, match="is 0, and 0 were answered"):
        limited_to(config, max_test_evaluations=0).claim(asked("last"), ONE)


def test_a_study_on_one_machine_is_hardly_limited() -> None:
    policy = SitePolicy.for_one_machine()
    names = ("max_test_evaluations", "max_test_evaluations_per_experiment", "max_rounds", "max_rounds_per_experiment")
    assert {getattr(policy, name) for name in names} == {MAX_ANSWERS}


def test_the_record_is_for_the_site_alone(config: SiteConfig) -> None:
    before = os.umask(0)
    try:
        AnswerBudget(config).claim(asked(), ONE)
    finally:
        os.umask(before)
    assert stat.S_IMODE(config.state_dir.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in config.state_dir.iterdir()} == {0o600}
    assert {path.name for path in config.state_dir.iterdir()} == {"answers.json", ".answers.json.lock"}


def test_looking_writes_nothing(config: SiteConfig) -> None:
    assert AnswerBudget(config).spent() == Spent(0, 0)
    assert not config.state_dir.exists()


ITEM = {"experiment": "demo", "run": RUN, "asked": 0, "adapter": ONE, "metrics": None}
DAMAGED: list[Any] = [
    [],
    {"format": 2, "answers": []},
    {"format": 1},
    {"format": 1, "answers": 3},
    {"format": 1, "answers": [3]},
    {"format": 1, "answers": [{}]},
    {"format": 1, "answers": [{**ITEM, "asked": "third"}]},
    {"format": 1, "answers": [{**ITEM, "asked": True}]},
    {"format": 1, "answers": [{**ITEM, "asked": None}]},
    {"format": 1, "answers": [{**ITEM, "asked": ["last"]}]},
    {"format": 1, "answers": [{**ITEM, "adapter": 1}]},
    {"format": 1, "answers": [{**ITEM, "metrics": [1]}]},
    {"format": 1, "answers": [{**ITEM, "metrics": {"val_loss": "x"}}]},
]


@pytest.mark.parametrize("content", DAMAGED, ids=map(str, range(len(DAMAGED))))
def test_a_damaged_record_answers_nothing(content: Any, config: SiteConfig) -> None:
    config.state_dir.mkdir()
    (config.state_dir / "answers.json").write_text(json.dumps(content))
    with pytest.raises(StateError, match=r"answers\.json in state_dir, is damaged\. .* put it back"):
        AnswerBudget(config).claim(asked(), ONE)
    assert json.loads((config.state_dir / "answers.json").read_text()) == content, "it is left for who looks at it"


def test_a_record_that_cannot_be_written_answers_nothing(config: SiteConfig) -> None:
    config.state_dir.write_text("a file where a folder should be")
    with pytest.raises(StateError, match="cannot be written"):
        AnswerBudget(config).claim(asked(), ONE)


def test_a_record_that_is_a_link_is_neither_read_nor_written(config: SiteConfig, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text(json.dumps({"format": 1, "answers": []}))
    config.state_dir.mkdir()
    (config.state_dir / "answers.json").symlink_to(elsewhere)
    with pytest.raises(StateError, match="symbolic link"):
        AnswerBudget(config).claim(asked(), ONE)
    assert json.loads(elsewhere.read_text())["answers"] == []


def test_a_record_that_was_cut_meanwhile_answers_nothing(config: SiteConfig) -> None:
    budget = AnswerBudget(config)
    budget.claim(asked(), ONE)
    (config.state_dir / "answers.json").unlink()
    with pytest.raises(StateError, match="replaced or cut while a job was running"):
        budget.claim(asked(1), ONE)


def test_two_processes_add_to_one_record(config: SiteConfig) -> None:
    one, other = AnswerBudget(config), AnswerBudget(config)
    one.claim(asked(0), ONE)
    other.claim(asked(0, OTHER_RUN), TWO)
    one.claim(asked(1), ONE)
    other.claim(asked(1, OTHER_RUN), TWO)
    assert AnswerBudget(config).spent("demo").rounds_here == 4


def line(job: str, kind: str, verdict: str = ALLOWED, round_index: int | None = None, sha256: str = ONE) -> Entry:
    return Entry(job, "ge", "task", kind, verdict, round_index=round_index, sha256=sha256)


LEDGER = [
    line("job-1", "tensors", round_index=0),
    line("job-1", "tensors", round_index=0),
    line("job-1", "tensors", round_index=1),
    line("job-1", "tensors", BLOCKED, round_index=2),
    line("job-1", "metrics"),
    line("job-1", "metrics"),
    line("job-1", "metrics", sha256=TWO),
    line("job-2", "metrics"),
    line("job-2", "metrics", BLOCKED, sha256=TWO),
    line("job-2", "event", round_index=7),
    line("job-2", "statistics"),
]


def test_the_ledger_is_a_second_witness(config: SiteConfig) -> None:
    for entry in LEDGER:
        Ledger(config.ledger_path).append(entry)
    budget = limited_to(config, max_test_evaluations=4)
    assert budget.spent() == Spent(3, 2)
    budget.claim(asked("last"), ONE)
    assert budget.spent() == Spent(4, 2), "what is answered from now on is added"
    with pytest.raises(EgressViolation, match="4 were answered"):
        budget.claim(asked("best"), ONE)
    with pytest.raises(EgressViolation, match="is 3, and 3 were answered"):
        limited_to(config, max_test_evaluations=3).claim(asked("best"), ONE)


def test_a_ledger_that_ends_in_the_middle_of_a_line_is_counted_so_far(config: SiteConfig) -> None:
    Ledger(config.ledger_path).append(line("job-1", "metrics"))
    with config.ledger_path.open("ab") as stream:
        stream.write(b'{"kind": "met')
    assert AnswerBudget(config).spent() == Spent(1, 0)
