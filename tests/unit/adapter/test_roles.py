import pytest
import torch
from torch import nn

from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.adapter.roles import Role, parameter_roles
from med_duallora.settings.config import LoRAConfig
from tests.unit.tiny import tiny_model


class Declaring(nn.Module):
    def __init__(self, roles: dict[str, Role], **children: nn.Module) -> None:
        super().__init__()
        self.roles = roles
        self.weight = nn.Parameter(torch.zeros(2))
        for name, child in children.items():
            self.add_module(name, child)

    def declared_roles(self) -> dict[str, Role]:
        return self.roles


def test_exactly_these_parameters_are_declared():
    roles = parameter_roles(tiny_model(LoRAConfig(rank_global=2, rank_local=3, n_blocks=1)))
    assert {name: role for name, role in roles.items() if role is not Role.FROZEN} == {
        "classifier.encoder.blocks.2.attn.q.global_a": Role.GLOBAL,
        "classifier.encoder.blocks.2.attn.q.global_b": Role.GLOBAL,
        "classifier.encoder.blocks.2.attn.q.local_a": Role.LOCAL,
        "classifier.encoder.blocks.2.attn.q.local_b": Role.LOCAL,
        "classifier.encoder.blocks.2.attn.kv.global_a": Role.GLOBAL,
        "classifier.encoder.blocks.2.attn.kv.global_b": Role.GLOBAL,
        "classifier.encoder.blocks.2.attn.kv.local_a": Role.LOCAL,
        "classifier.encoder.blocks.2.attn.kv.local_b": Role.LOCAL,
        "classifier.pred_head_dict.sax.weight": Role.HEAD,
        "classifier.pred_head_dict.sax.bias": Role.HEAD,
        "classifier.pred_head_dict.cls.weight": Role.HEAD,
        "classifier.pred_head_dict.cls.bias": Role.HEAD,
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lora", "the usual substring"),
        ("lora_global_a", "a name that looks like a shared factor"),
        ("global_adapter", "the words of this project"),
        ("pred_head_dict", "the name of the heads, at another place"),
    ],
)
def test_a_layer_that_declares_nothing_is_frozen_whatever_its_name(name, reason):
    model = nn.Module()
    model.add_module(name, nn.Linear(2, 2))
    assert set(parameter_roles(model).values()) == {Role.FROZEN}, reason


def test_order_and_names_are_the_models():
    model = tiny_model()
    assert list(parameter_roles(model)) == [name for name, _ in model.named_parameters()]


def test_a_declaration_reaches_only_its_own_module():
    model = nn.Sequential(DualLoRALinear(nn.Linear(2, 2), 1, 1.0, 0, 1.0), nn.Linear(2, 2))
    roles = parameter_roles(model)
    assert {name for name, role in roles.items() if role is Role.GLOBAL} == {"0.global_a", "0.global_b"}
    assert roles["1.weight"] is Role.FROZEN


@pytest.mark.parametrize(
    ("model", "message", "reason"),
    [
        (Declaring({"missing": Role.GLOBAL}), "'missing', which is not a parameter", "a misspelt name must not pass"),
        (
            Declaring({"child.weight": Role.LOCAL}, child=Declaring({"weight": Role.GLOBAL})),
            "'child.weight' is declared twice",
            "sent or kept: two modules must not disagree",
        ),
        (
            nn.Sequential(Declaring({"gone": Role.HEAD})),
            "module '0' declares a role for '0.gone'",
            "the message gives the full name",
        ),
    ],
)
def test_wrong_declarations_are_refused(model, message, reason):
    with pytest.raises(ValueError, match=message):
        parameter_roles(model)
