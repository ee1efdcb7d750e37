import pytest
import torch

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS, plan_of
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.backbone import build_classifier
from med_duallora.backbone.config import BackboneConfig
from med_duallora.boundary.contract import EgressContract
from med_duallora.commands.config import scopes
from med_duallora.reference import guidance
from med_duallora.reference.entries import settings_of
from med_duallora.settings.config import JobConfig, LoRAConfig


def test_guidance_is_about_settings_that_exist() -> None:
    assert set(guidance.BY_KEY) <= {setting.key for scope in scopes() for setting in settings_of(scope)}


def test_the_payload_is_that_of_the_contract() -> None:
    assert guidance.payload_bytes("cinema-mini", 8) == EgressContract.for_job(JobConfig()).tensor_bytes
    one, two, four = (guidance.payload_bytes("cinema-mini", rank) for rank in (8, 16, 32))
    assert four - two == 2 * (two - one), "the shared head's pair has the same rank whatever that of the adapters is"


def test_the_cache_holds_what_the_trunk_gives() -> None:
    config = BackboneConfig.preset("cinema-tiny")
    model = DualLoRAModel(build_classifier(config), plan_of(JobConfig(lora=LoRAConfig(n_blocks=1))), seed=0)
    trunk = model.trunk(torch.zeros(1, config.n_input_channels, *config.image_size))
    measured = 4 * (trunk.tokens.numel() + trunk.fusion_term.numel())
    assert guidance.cache_bytes(config, n_views=0) == measured
    assert guidance.cache_bytes(config, n_views=4) == 5 * measured


def test_tables_have_a_cell_for_every_heading() -> None:
    for rows in (guidance.rank_table(), guidance.memory_table(), guidance.method_table()):
        assert len(rows) > 2
        assert {len(row) for row in rows} == {len(rows[0])}


@pytest.mark.parametrize(
    ("policy", "method", "cells", "reason"),
    [
        ("local", "med-duallora", ["global adapter", "local adapter, head", "all at once"], "the default"),
        (
            "shared",
            "med-duallora",
            ["global adapter with the head's weights", "local adapter, bias of the head", "all at once"],
            "a shared head is a pair of the global adapter",
        ),
        (
            "local",
            "ditto-lora",
            [
                "global adapter",
                "local adapter, head",
                "50% global adapter, head, the local one off; 50% local adapter, head, the global one off",
            ],
            "parts of a round",
        ),
        ("local", "fedsa-lora", ["A of the global adapter", "B of the global adapter, head", "all at once"], "half"),
        (
            "local",
            "fedavg-full",
            ["head, norms of the adapted blocks, weights of the adapted blocks", "-", "all at once"],
            "all of what trains",
        ),
        ("local", "local-lora", ["-", "local adapter, head", "all at once"], "nothing leaves"),
    ],
)
def test_a_methods_row_is_made_from_its_plan(policy, method, cells, reason) -> None:
    assert guidance.method_row(JobConfig(method=method, lora=LoRAConfig(head_policy=policy)))[1:4] == cells, reason


def test_every_method_and_rule_is_described() -> None:
    for key, table in (("method", METHODS), ("aggregation", AGGREGATIONS)):
        for name, entry in table.items():
            assert f"`{name}`: {entry.summary}." in guidance.BY_KEY[key]
