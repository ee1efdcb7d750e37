import subprocess
import sys

import pytest
import torch

from med_duallora.support.adamw import AdamW


def trained(optimizer, n_steps=5):
    """Return weights and moments after some steps in two groups, saved and loaded half way."""
    random = torch.Generator().manual_seed(3)
    weight, bias = (torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in ((3, 5), (3,)))

    def fresh():
        made = optimizer([{"params": [weight], "weight_decay": 0.1}], lr=0.01, betas=(0.8, 0.95))
        made.add_param_group({"params": [bias], "lr": 0.1})
        return made

    steps = fresh()
    for step in range(n_steps):
        if step == n_steps // 2:
            state = steps.state_dict()
            steps = fresh()
            steps.load_state_dict(state)
        steps.zero_grad()
        torch.nn.functional.linear(torch.randn((4, 5), generator=random), weight, bias).square().sum().backward()
        steps.step()
    assert weight.requires_grad and weight.is_leaf and torch.is_grad_enabled()
    return [weight.detach(), bias.detach(), *(steps.state[p][kind] for p in (weight, bias) for kind in steps.state[p])]


def test_every_bit_is_torchs():
    ours, torchs = trained(AdamW), trained(torch.optim.AdamW)
    assert len(ours) == 8
    assert all(map(torch.equal, ours, torchs))


def test_a_closure_has_gradients_and_its_loss_is_returned():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], lr=0.1)

    def loss():
        optimizer.zero_grad()
        value = weight.square().sum()
        value.backward()
        return value

    assert optimizer.step(loss) == 2.0
    assert torch.equal(weight.grad, torch.full((2,), 2.0))


@pytest.mark.parametrize("trainer", ["site", "pretraining"])
def test_no_process_that_trains_loads_the_compiler(trainer):
    """It takes longer to import than torch itself, once for every process of every site."""
    code = {
        "site": """
from med_duallora.adapter.model import skeleton
from med_duallora.settings.config import JobConfig
from med_duallora.site.optimizer import optimizer_of
job = JobConfig(backbone="cinema-tiny")
model = skeleton(job).to_empty(device="cpu")
optimizer = optimizer_of(model, {}, job.train)
""",
        "pretraining": """
from med_duallora.pretraining.loop import Recipe, optimizer_of
model = torch.nn.Linear(3, 2)
optimizer = optimizer_of(model, Recipe())
""",
    }[trainer]
    code = f"""
import sys
import torch
{code}
for group in optimizer.param_groups:
    for parameter in group["params"]:
        parameter.grad = torch.ones_like(parameter)
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
