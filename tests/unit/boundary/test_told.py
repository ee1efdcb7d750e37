"""Which numbers the console hears, and when."""

import pytest

from med_duallora.boundary.told import RENEWED_AFTER_S, ToldNumbers

SCORES = {"train_loss": 0.5, "val_balanced_accuracy": 0.75, "both.auroc": 1.0, "n_positive": 3.0}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_speaks_of_subjects_is_told_once_it_left() -> None:
    told = ToldNumbers()
    assert told.to_tell(SCORES) == {}
    told.note({"train_loss": 0.5, "n_positive": 3.0})
    assert told.to_tell(SCORES) == {"train_loss": 0.5, "n_positive": 3.0}
    assert told.to_tell({"train_loss": 0.125}) == {"train_loss": 0.5}, "the newer value did not leave yet"
    told.note({"train_loss": 0.125})
    assert told.to_tell({"train_loss": 0.125}) == {"train_loss": 0.125}


def told_by(told: ToldNumbers, numbers: dict[str, float]) -> dict[str, float]:
    """What one answer tells, as the boundary gives it: what had no line gets one."""
    found = told.to_tell(numbers)
    told.note(found)
    return found


def test_work_is_renewed_every_few_seconds() -> None:
    clock = Clock()
    told = ToldNumbers(clock)
    assert told_by(told, {"n_steps": 1.0}) == {"n_steps": 1.0}
    assert told_by(told, {"n_steps": 2.0}) == {"n_steps": 2.0}
    clock.now = RENEWED_AFTER_S - 0.5
    assert told_by(told, {"n_steps": 3.0}) == {"n_steps": 2.0}
    clock.now = RENEWED_AFTER_S
    assert told_by(told, {"n_steps": 4.0}) == {"n_steps": 4.0}


def test_what_was_never_told_does_not_wait() -> None:
    told = ToldNumbers(Clock())
    for numbers in ({"n_steps": 1.0}, {"n_steps": 2.0}):
        told_by(told, numbers)
    assert told_by(told, {"n_steps": 3.0, "payload_bytes": 9.0}) == {"n_steps": 2.0, "payload_bytes": 9.0}


def test_what_has_a_line_is_told_at_once() -> None:
    told = ToldNumbers(Clock())
    for numbers in ({"n_steps": 1.0}, {"n_steps": 2.0}):
        told_by(told, numbers)
    told.note({"n_steps": 6.0})
    assert told_by(told, {"n_steps": 6.0}) == {"n_steps": 6.0}


@pytest.mark.parametrize("name", ["nobody", "age"])
def test_a_number_without_an_entry_is_not_work(name: str) -> None:
    assert ToldNumbers().to_tell({name: 1.0}) == {}


def test_only_numbers_without_a_line_need_one() -> None:
    told = ToldNumbers()
    told.note({"n_steps": 4.0})
    assert told.without_line({"n_steps": 4.0, "seconds": 1.5}) == {"seconds": 1.5}
    assert told.without_line({"n_steps": 5.0}) == {"n_steps": 5.0}
