"""What each method does with a site's round, beside what stands in its plan; pitfalls of published code are pinned."""

import numpy as np

from med_duallora.adapter.roles import GLOBAL
from tests.unit.tiny import same
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
