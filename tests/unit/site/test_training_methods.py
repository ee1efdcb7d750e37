"""What each method does with a site's round, beside what stands in its plan; pitfalls of published code are pinned."""

import numpy as np
import pytest
import torch

from med_duallora.adapter.roles import GLOBAL, LOCAL, Role, twins
from tests.unit.refused import refused
from tests.unit.tiny import model_of, same, shake, tiny_images, tiny_job
from tests.unit.trainee import trainee


def moved(it, roles, start) -> float:
    """How far the parameters of some roles are from a start, as a Euclidean length."""
    return float(np.sqrt(sum(np.square(value - start[name]).sum() for name, value in it.model.values(roles).items())))


def test_fedprox_without_its_pull_is_fedavg_bit_for_bit_and_with_it_stays_nearer(subjects):
    lengths = {}
    values = {}
    for method, strength in (("fedavg-lora", 0.1), ("fedprox-lora", 0.0), ("fedprox-lora", 30.0)):
        it = trainee(f"method={method}", f"train.proximal={strength}", "train.local_epochs=3")
        start = it.model.values(it.model.plan.sent)
        it.train(subjects)
        values[method, strength] = it.model.values(it.model.plan.sent)
        lengths[method, strength] = moved(it, GLOBAL, start)
    assert same(values["fedavg-lora", 0.1], values["fedprox-lora", 0.0])
    assert 0 < lengths["fedprox-lora", 30.0] < 0.9 * lengths["fedprox-lora", 0.0]


def test_feddpa_trains_its_local_adapter_first_and_its_global_one_without_it(subjects, monkeypatch):
    it = trainee("method=feddpa", "train.local_epochs=4")
    acting = []
    using = it.model.using
    monkeypatch.setattr(it.model, "using", lambda *adapters: acting.append(adapters) or using(*adapters))
    moments = it.train(subjects).moments
    half = len(acting) // 2
    assert acting == [(True, True)] * half + [(True, False)] * half
    for roles in (GLOBAL, LOCAL):
        assert {float(moments[f"{name}:step"]) for name in it.model.of_roles(roles)} == {half}, "half a round each"


def test_feddpas_adapters_act_by_halves_together_and_whole_alone():
    jobs = (tiny_job(method=method).with_overrides(["lora.head_policy=local"]) for method in ("feddpa", "med-duallora"))
    mixed, summed = (model_of(job).eval() for job in jobs)
    for model in (mixed, summed):
        shake(model)
    x = tiny_images()
    for adapters in ((True, False), (False, True)):
        with torch.no_grad(), mixed.using(*adapters), summed.using(*adapters):
            assert torch.equal(mixed(x), summed(x)), "the same model but for the mix"
    for name, value in summed.of_roles({Role.GLOBAL_B, Role.LOCAL_B}).items():
        value.data.mul_(0.5)
        assert not torch.equal(value, mixed.get_parameter(name))
    with torch.no_grad():
        assert torch.allclose(mixed(x), summed(x), rtol=0, atol=1e-5)


def test_dittos_personal_adapter_starts_as_the_global_one_and_trains_by_itself(subjects):
    held, free = (
        trainee("method=ditto-lora", f"train.proximal={strength}", "train.local_epochs=4") for strength in (100.0, 0.0)
    )
    lengths = []
    for it in (held, free):
        beside = twins(it.model)
        assert {it.model.get_parameter(name).shape for name in beside} and len(beside) == len(it.model.of_roles(LOCAL))
        start = it.model.values([*GLOBAL, *LOCAL])
        assert all(np.array_equal(start[name], start[twin]) for name, twin in beside.items())
        it.train(subjects)
        after = it.model.values([*GLOBAL, *LOCAL])
        lengths.append(sum(float(np.square(after[name] - start[twin]).sum()) for name, twin in beside.items()))
    assert 0 < lengths[0] < 0.5 * lengths[1], "the pull is towards the global adapter that came in"
    assert same(held.model.values(GLOBAL), free.model.values(GLOBAL)), "what is sent knows nothing of the pull"


def test_dittos_model_is_the_personal_adapter_alone():
    model = model_of(tiny_job(method="ditto-lora")).eval()
    shake(model)
    with torch.no_grad():
        usual = model(tiny_images())
        with model.using(False, True):
            assert torch.equal(model(tiny_images()), usual)


@pytest.mark.parametrize("method", ["feddpa", "ditto-lora"])
def test_a_round_too_short_for_all_its_parts_is_refused(method, subjects):
    """The second half would never train, and the site would send what it received."""
    it = trainee(f"method={method}", "train.batch_size=64")
    with refused("train.local_epochs", 1, ""):
        it.train(subjects)


def test_fedbns_norms_train_and_stay_and_the_global_model_is_without_them(subjects):
    it = trainee("method=fedbn-lora", "train.local_epochs=2")
    x, roles = tiny_images(), [Role.NORM]
    assert len(it.model.values(roles)) == 2 * 2 * it.job.lora.n_blocks, "scale and shift of two norms a block"
    assert not it.model.of_roles(it.model.plan.sent).keys() & it.model.of_roles(roles).keys()
    plain = trainee("method=fedavg-lora", "train.local_epochs=2")
    with torch.no_grad():
        assert torch.equal(it.model(x), plain.model(x)), "they start as the frozen ones"
    moments = it.train(subjects).moments
    assert all(value.any() and f"{name}:exp_avg" in moments for name, value in it.model.values(roles).items())
    it.model.eval()
    with torch.no_grad(), it.model.using(True, False):
        without = it.model.features(it.model.trunk(x))
        for value in it.model.of_roles(roles).values():
            value.data.zero_()
        assert torch.equal(it.model.features(it.model.trunk(x))[0], without[0])


def test_the_alternate_schedule_trains_the_global_adapter_without_the_local_one(subjects, monkeypatch):
    it = trainee("train.schedule=alternate", "train.local_epochs=4")
    acting = []
    using = it.model.using
    monkeypatch.setattr(it.model, "using", lambda *adapters: acting.append(adapters) or using(*adapters))
    moments = it.train(subjects).moments
    half = len(acting) // 2
    assert acting == [(True, False)] * half + [(True, True)] * half
    for roles, n_steps in ((GLOBAL, half), (LOCAL, half), ([Role.HEAD], 2 * half)):
        assert {float(moments[f"{name}:step"]) for name in it.model.of_roles(roles)} == {n_steps}


def test_the_decay_of_what_stays_is_set_apart_from_its_rate(subjects):
    """The default multiplies by 1, which changes no bit."""
    plain, usual, more = (
        trainee("train.weight_decay=0.5", "train.local_lr_factor=1", *extra)
        for extra in ([], ["train.local_weight_decay_factor=1"], ["train.local_weight_decay_factor=100"])
    )
    for it in (plain, usual, more):
        shake(it.model)
        it.train(subjects)
    assert same(plain.model.values([*GLOBAL, *LOCAL]), usual.model.values([*GLOBAL, *LOCAL]))
    lengths = [sum(float(np.square(value).sum()) for value in it.model.values(LOCAL).values()) for it in (usual, more)]
    assert lengths[1] < 0.8 * lengths[0]


def test_a_site_alone_has_no_slower_part(subjects):
    """A baseline that trains at a tenth of its rate because others have a shared part would be beaten for nothing."""
    whole, tenth = (trainee("method=local-lora", f"train.local_lr_factor={factor}") for factor in (1, 0.1))
    for it in (whole, tenth):
        it.train(subjects)
    assert same(whole.model.values(LOCAL), tenth.model.values(LOCAL))


@pytest.mark.parametrize(("policy", "first"), [("local", Role.GLOBAL_B), ("shared", Role.GLOBAL_A)])
def test_the_alternate_rule_trains_one_factor_a_round_and_keeps_the_moments_of_the_other(policy, first, subjects):
    it = trainee("aggregation=alternate", f"lora.head_policy={policy}")
    second = next(iter(GLOBAL - {first}))
    moments = {}
    for round_index, (moving, resting) in enumerate([(first, second), (second, first)]):
        before = it.model.values([resting])
        held = {name: value for name, value in moments.items() if name.partition(":")[0] in before}
        moments = it.train(subjects, round_index, moments).moments
        assert same(it.model.values([resting]), before), "not a bit of it, decay included"
        assert {name: moments[name].tobytes() for name in held} == {n: v.tobytes() for n, v in held.items()}
        assert all(f"{name}:exp_avg" in moments for name in it.model.of_roles([moving]))
    assert len(held) == 3 * len(before)
