"""What the training loop reads from a method's plan: phases, loss terms and whether moments are reset."""

from dataclasses import replace

import numpy as np
import pytest

from med_duallora.adapter.plan import AdapterPlan, Phase, Treatment
from med_duallora.adapter.roles import GLOBAL, LOCAL, Role
from med_duallora.site.training import phase_of_steps
from tests.unit.tiny import TRAINED, same
from tests.unit.trainee import Trainee, trainee

LOCAL_AFTER_GLOBAL = (Phase(0.5, local_acts=False), Phase(0.5))


@pytest.mark.parametrize(
    ("shares", "n_steps", "expected", "reason"),
    [
        ([1.0], 3, [0, 0, 0], "one phase"),
        ([0.5, 0.5], 4, [0, 0, 1, 1], "halves"),
        ([0.25, 0.75], 4, [0, 1, 1, 1], "a quarter first"),
        ([0.5, 0.5], 1, [0], "a single step belongs to the first"),
        ([0.1, 0.2, 0.7], 10, [0, 1, 1, 2, 2, 2, 2, 2, 2, 2], "three"),
    ],
)
def test_phases_get_their_share_of_a_round(shares, n_steps, expected, reason):
    plan = replace(trainee().model.plan, phases=tuple(Phase(share) for share in shares))
    assert phase_of_steps(plan, n_steps) == expected, reason


def planned(**changes) -> Trainee:
    it = trainee()
    it.model.plan = replace(it.model.plan, **changes)
    return it


def in_turn(plan: AdapterPlan, later: frozenset[Role]) -> dict[Role, Treatment]:
    return {role: replace(said, phases=(int(role in later),)) for role, said in plan.treatments.items()}


def test_what_belongs_to_a_later_phase_rests_until_then(subjects):
    it = trainee()
    it.model.plan = replace(it.model.plan, phases=(Phase(1.0), Phase(0.0)), treatments=in_turn(it.model.plan, LOCAL))
    before = it.model.values(LOCAL)
    moments = it.train(subjects).moments
    assert same(it.model.values(LOCAL), before)
    assert not any("local" in name for name in moments), "nor does it gather moments"
    assert all(value.any() for value in it.model.values([Role.GLOBAL_B]).values())


def test_each_phase_moves_its_own_and_the_next_round_continues(subjects):
    it = trainee("train.local_epochs=4")
    it.model.plan = replace(it.model.plan, phases=LOCAL_AFTER_GLOBAL, treatments=in_turn(it.model.plan, LOCAL))
    before = it.model.values(TRAINED)
    moments = it.train(subjects, 0).moments
    after = it.model.values(TRAINED)
    assert not any(np.array_equal(before[name], after[name]) for name in before if name.endswith("_b"))
    names = set(it.model.trained())
    assert {name.partition(":")[0] for name in moments} == names
    it.train(subjects, 1, moments)
    assert all(parameter.requires_grad == (name in names) for name, parameter in it.model.named_parameters())


@pytest.mark.parametrize(("factor", "reason"), [(0.0, "a term of zero changes no bit"), (1.0, "a term acts")])
def test_a_loss_term_sees_the_rounds_start(subjects, factor, reason):
    seen = []

    def term(model, incoming):
        seen.append({name: value.numpy().copy() for name, value in incoming.items()})
        return factor * sum(value.sum() for value in model.trained().values())

    free, held = trainee(), planned(loss_terms=(term,))
    start = held.model.values(TRAINED)
    free.train(subjects)
    held.train(subjects)
    assert seen and all(same(values, start) for values in seen)
    assert same(free.model.values(TRAINED), held.model.values(TRAINED)) is (factor == 0), reason


@pytest.mark.parametrize("policy", ["local", "shared", "global"])
def test_new_factors_forget_the_moments_of_the_global_factors_and_no_other(subjects, policy):
    """A head that is averaged as it is goes on with its moments."""
    head = f"lora.head_policy={policy}"
    moments = trainee(head).train(subjects).moments
    it, other = trainee(head, "aggregation=svd"), trainee(head)
    renewed = set(it.model.of_roles(GLOBAL))
    left = {name: value for name, value in moments.items() if name.partition(":")[0] not in renewed}
    found = it.train(subjects, 1, moments).moments
    assert same(found, other.train(subjects, 1, left).moments)
    assert {float(found[f"{name}:step"]) for name in renewed} == {2}
    assert {float(found[f"{name}:step"]) for name in set(it.model.trained()) - renewed} == {4}


def test_what_belongs_to_no_phase_trains_in_all(subjects):
    """FedDPA's local adapter first, then the global one alone: the head learns with either."""
    it = trainee("train.local_epochs=2")
    it.model.plan = replace(
        it.model.plan,
        phases=(Phase(0.5), Phase(0.5, local_acts=False)),
        treatments={
            role: said if role is Role.HEAD else replace(said, phases=(int(role in GLOBAL),))
            for role, said in it.model.plan.treatments.items()
        },
    )
    moments = it.train(subjects).moments
    for roles, n_steps in ((GLOBAL, 2), (LOCAL, 2), ((Role.HEAD,), 4)):
        assert {float(moments[f"{name}:step"]) for name in it.model.of_roles(roles)} == {n_steps}
