"""Changes of whole parameters: training one is training the parameter, and switched off it is not there."""

import copy

import pytest
import torch
from torch import nn

from med_duallora.adapter.changed import ChangedLinear, ChangedNorm
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.roles import Role, Start
from med_duallora.backbone import build_classifier
from tests.unit.tiny import TINY, model_of, shake, tiny_images, tiny_job

FULL = tiny_job(method="fedavg-full")


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def norm() -> nn.LayerNorm:
    torch.manual_seed(0)
    found = nn.LayerNorm(5)
    for value in found.parameters():
        nn.init.normal_(value)
    return found


PAIRS = [(linear, ChangedLinear), (norm, ChangedNorm)]


def changes(layer: ChangedLinear | ChangedNorm) -> list[nn.Parameter]:
    return [layer.get_parameter(name) for name in layer.declared()]


@pytest.mark.parametrize(("make", "kind"), PAIRS)
def test_a_new_layer_is_its_base_bit_for_bit_and_a_changed_one_is_its_base_while_off(make, kind) -> None:
    x, base = torch.randn(2, 4, 5), make()
    layer, expected = kind(copy.deepcopy(base)), base(x)
    assert torch.equal(layer(x), expected)
    for value in changes(layer):
        nn.init.normal_(value)
    assert not torch.allclose(layer(x), expected)
    layer.active = False
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize(("make", "kind"), PAIRS)
def test_training_a_change_is_training_the_parameter(make, kind) -> None:
    """With plain gradient descent, up to the rounding of a sum: W + D and W take the same steps."""
    x, goal, plain = torch.randn(6, 5), torch.randn(6, 1), make()
    layer, start = kind(copy.deepcopy(plain)), copy.deepcopy(plain)
    for trained in (plain, layer):
        optimizer = torch.optim.SGD([value for value in trained.parameters() if value.requires_grad], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (trained(x) - goal).square().mean().backward()
            optimizer.step()
    for own, expected, before, frozen in zip(
        layer.affine(), plain.parameters(), start.parameters(), layer.base.parameters(), strict=True
    ):
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)
        assert (own - before).abs().max() > 1e-2, "a step that moves nothing proves nothing"
        assert torch.equal(frozen, before)


@pytest.mark.parametrize(("make", "kind"), PAIRS)
def test_changes_are_declared_and_start_at_zero_while_the_base_is_frozen(make, kind) -> None:
    layer = kind(make())
    assert {(said.role, said.start) for said in layer.declared().values()} == {(kind.role, Start.ZERO)}
    assert {name for name, value in layer.named_parameters() if value.requires_grad} == set(layer.declared())
    assert not any(value.any() for value in changes(layer))


def test_every_parameter_of_the_adapted_blocks_has_a_change_whatever_the_targets_are() -> None:
    plain = build_classifier(TINY, seed=7)
    model = model_of(FULL.with_overrides(['lora.targets=["q"]', "lora.n_blocks=2"]))
    assert model.cut == len(plain.blocks) - 2
    for index, block in enumerate(plain.blocks):
        numbers = sorted(value.numel() for value in block.parameters())
        trained = [value.numel() for value in model.classifier.blocks[index].parameters() if value.requires_grad]
        assert sorted(trained) == (numbers if index >= model.cut else []), f"block {index}"


def test_gradients_reach_the_changes_and_the_head_and_nothing_else() -> None:
    model = model_of(FULL)
    shake(model, [Role.HEAD])  # behind a head of zeros no gradient arrives
    model(tiny_images()).square().sum().backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    wanted = model.of_roles([Role.WEIGHTS, Role.NORM, Role.HEAD])
    assert reached == set(wanted)
    assert set(wanted) == {name for name, value in model.named_parameters() if value.requires_grad}


def test_all_blocks_train_where_the_job_adapts_all_and_the_stem_never_does() -> None:
    model = model_of(FULL.with_overrides([f"lora.n_blocks={TINY.depth}"]))
    assert model.cut == 0
    blocks = {id(value) for block in model.classifier.blocks for value in block.parameters()}
    heads = {id(value) for value in model.of_roles([Role.HEAD]).values()}
    assert {id(value) for value in model.trained().values()} <= blocks | heads


def test_the_changes_act_with_what_is_sent() -> None:
    """So that a site's comparison with the frozen backbone, and with what came from the others, is what it says."""
    model, x = model_of(FULL), tiny_images()
    frozen = features(model, x)
    shake(model, [Role.WEIGHTS, Role.NORM])
    changed = features(model, x)
    assert not torch.allclose(changed, frozen)
    for adapters, expected in (
        ((True, True), changed),
        ((True, False), changed),
        ((False, True), frozen),
        ((False, False), frozen),
    ):
        with model.using(*adapters):
            assert torch.equal(features(model, x), expected), adapters
        assert torch.equal(features(model, x), changed), "and is as before afterwards"


def features(model: DualLoRAModel, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.summaries(model.trunk(x))
