import subprocess
import sys

import pytest
import torch
from torch import nn

from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.adapter.roles import FROZEN, Declared, Role, Start, declarations
from med_duallora.settings.config import LoRAConfig
from tests.unit.tiny import tiny_model

SAID = Declared(Role.HEAD, Start.ZERO)


class Declaring(nn.Module):
    def __init__(self, said: dict[str, Declared], **children: nn.Module) -> None:
        super().__init__()
        self.said = said
        self.weight = nn.Parameter(torch.zeros(2))
        for name, child in children.items():
            self.add_module(name, child)

    def declared(self) -> dict[str, Declared]:
        return self.said


def test_exactly_these_parameters_are_declared():
    found = declarations(tiny_model(LoRAConfig(rank_global=2, rank_local=3, n_blocks=1, head_policy="local")))
    assert {name: said for name, said in found.items() if said is not FROZEN} == {
        "classifier.encoder.blocks.2.attn.q.global_a": Declared(Role.GLOBAL_A, Start.RANDOM),
        "classifier.encoder.blocks.2.attn.q.global_b": Declared(Role.GLOBAL_B, Start.ZERO),
        "classifier.encoder.blocks.2.attn.q.local_a": Declared(Role.LOCAL_A, Start.RANDOM),
        "classifier.encoder.blocks.2.attn.q.local_b": Declared(Role.LOCAL_B, Start.ZERO),
        "classifier.encoder.blocks.2.attn.kv.global_a": Declared(Role.GLOBAL_A, Start.RANDOM),
        "classifier.encoder.blocks.2.attn.kv.global_b": Declared(Role.GLOBAL_B, Start.ZERO),
        "classifier.encoder.blocks.2.attn.kv.local_a": Declared(Role.LOCAL_A, Start.RANDOM),
        "classifier.encoder.blocks.2.attn.kv.local_b": Declared(Role.LOCAL_B, Start.ZERO),
        "classifier.pred_head_dict.sax.weight": Declared(Role.HEAD, Start.ZERO),
        "classifier.pred_head_dict.sax.bias": Declared(Role.HEAD, Start.ZERO),
        "classifier.pred_head_dict.cls.weight": Declared(Role.HEAD, Start.ZERO),
        "classifier.pred_head_dict.cls.bias": Declared(Role.HEAD, Start.ZERO),
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
    assert set(declarations(model).values()) == {FROZEN}, reason


def test_order_and_names_are_the_models():
    model = tiny_model()
    assert list(declarations(model)) == [name for name, _ in model.named_parameters()]


def test_a_declaration_reaches_only_its_own_module():
    model = nn.Sequential(DualLoRALinear(nn.Linear(2, 2), 1, 1.0, 0, 1.0), nn.Linear(2, 2))
    found = declarations(model)
    assert {name for name, said in found.items() if said is not FROZEN} == {"0.global_a", "0.global_b"}
    assert found["1.weight"] is FROZEN


@pytest.mark.parametrize(
    ("model", "message", "reason"),
    [
        (Declaring({"missing": SAID}), "'missing', which is not a parameter", "a misspelt name must not pass"),
        (
            Declaring({"child.weight": SAID}, child=Declaring({"weight": SAID})),
            "'child.weight' is declared twice",
            "sent or kept: two modules must not disagree",
        ),
        (
            nn.Sequential(Declaring({"gone": SAID})),
            "module '0' declares a role for '0.gone'",
            "the message gives the full name",
        ),
    ],
)
def test_wrong_declarations_are_refused(model, message, reason):
    with pytest.raises(ValueError, match=message):
        declarations(model)


def test_contrasts_set_every_class_against_the_last_one():
    table = Start.CONTRASTS.first_value((3, 2), torch.Generator())
    assert torch.equal(table, torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]))


def test_names_and_shapes_of_a_model_are_found_without_the_compiler():
    """Every process of a federation asks for them, and torch's compiler takes longer to import than all else."""
    code = """
import sys
from med_duallora.adapter.model import skeleton
from med_duallora.settings.config import JobConfig
skeleton(JobConfig(backbone="cinema-tiny"))
print(sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
