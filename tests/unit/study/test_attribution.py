import math

import numpy as np
import pytest
import torch
from torch import nn

from med_duallora.adapter.changed import ChangedLinear
from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.study.attribution import attribution, principal_angles


def layer(global_b, local_b) -> DualLoRALinear:
    """Adapters of rank 1 on a layer of two inputs and three outputs, with A = (1, 0) and scale 2."""
    found = DualLoRALinear(nn.Linear(2, 3), 1, 2.0, 1, 2.0)
    for values, pair in ((global_b, (found.global_a, found.global_b)), (local_b, (found.local_a, found.local_b))):
        pair[0].data = torch.tensor([[1.0, 0.0]])
        pair[1].data = torch.tensor(values)[:, None]
    return found


def test_norms_and_angles_of_known_updates():
    found = attribution([layer([3.0, 0.0, 0.0], [0.0, 2.0, 0.0]), layer([4.0, 0.0, 0.0], [1.0, 1.0, 0.0])])
    assert found.norm_global == pytest.approx(10), "2 * sqrt(9 + 16)"
    assert found.norm_local == pytest.approx(2 * math.sqrt(4 + 2))
    assert found.angle == pytest.approx((90 + 45) / 2)


def test_adapters_that_say_nothing_have_no_angle():
    found = attribution([layer([0.0, 0.0, 0.0], [0.0, 2.0, 0.0])])
    assert found.norm_global == 0
    assert math.isnan(found.angle)
    alone = attribution([DualLoRALinear(nn.Linear(2, 3), 1, 2.0, 0, 2.0)])
    assert (alone.norm_global, alone.norm_local) == (0, 0)


def test_a_change_of_whole_weights_counts_as_the_global_update():
    whole = ChangedLinear(nn.Linear(2, 3))
    whole.weight_change.data = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    found = attribution([nn.Linear(2, 3), whole])
    assert (found.norm_global, found.norm_local) == (pytest.approx(5), 0)
    assert math.isnan(found.angle)


def test_principal_angles_of_planes():
    """Two planes in space that share the first axis and stand upright on each other."""
    one, other = np.eye(3)[:, :2], np.eye(3)[:, [0, 2]]
    assert principal_angles(one, other) == pytest.approx([0, 90])
    assert principal_angles(5 * one, one) == pytest.approx([0, 0], abs=1e-5)
