"""A round or a prediction that is stopped: at once, and as if the step had never begun."""

import contextlib
import itertools

import pytest
import torch

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import TrainingAborted
from med_duallora.site import training
from tests.unit.tiny import TRAINED, same
from tests.unit.trainee import predicted, trainee


@pytest.fixture(scope="module")
def subjects(tiny_cohorts):
    return PreparedCohort.read(tiny_cohorts["philips"]).split("train")


def questions_in_a_round(subjects) -> int:
    asked = []
    trainee().train(subjects, should_stop=lambda: bool(asked.append(1)))
    return len(asked)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999])
def test_stopping_takes_effect_at_the_next_question(subjects, part):
    n_allowed = int(part * questions_in_a_round(subjects))
    asked, steps = itertools.count(1), []
    n_asked = []

    def should_stop() -> bool:
        n_asked.append(next(asked))
        return n_asked[-1] > n_allowed

    with pytest.raises(TrainingAborted):
        trainee().train(subjects, should_stop=should_stop, on_progress=steps.append)
    assert len(n_asked) == n_allowed + 1, "nothing more is asked or done"
    assert len(steps) < 2, "the second of two batches was not finished"


def test_a_round_asks_before_every_layer_of_every_pass(subjects):
    layers = sum(isinstance(module, torch.nn.Linear) for module in trainee().model.modules())
    assert questions_in_a_round(subjects) > 2 * layers


def test_a_stop_in_the_backward_pass_changes_no_parameter(subjects, monkeypatch):
    it, inside = trainee(), []
    before = it.model.values(TRAINED)
    plain = training._step

    def step(*arguments):
        inside.append(1)
        plain(*arguments)

    monkeypatch.setattr(training, "_step", step)
    with pytest.raises(TrainingAborted, match="in the middle of a step"):
        it.train(subjects, should_stop=lambda: bool(inside))
    assert same(it.model.values(TRAINED), before)


def test_asking_changes_no_bit(subjects, monkeypatch):
    asked, silent = trainee(), trainee()
    asked.train(subjects)
    monkeypatch.setattr(training, "interruptible", lambda *_: contextlib.nullcontext())
    silent.train(subjects)
    assert same(asked.model.values(TRAINED), silent.model.values(TRAINED))


def test_nothing_asks_after_a_round(subjects):
    it = trainee()
    it.train(subjects)
    assert not any(module._forward_pre_hooks or module._backward_pre_hooks for module in it.model.modules())


def test_predictions_stop_too(subjects):
    it = trainee()
    asked = iter([False, False, True])
    with pytest.raises(TrainingAborted):
        predicted(it.model, it.source, subjects, it.job.train, reference=subjects, should_stop=lambda: next(asked))
