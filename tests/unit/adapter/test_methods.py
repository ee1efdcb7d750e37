import dataclasses

import pytest

from med_duallora.adapter.methods import METHODS, method_of
from med_duallora.adapter.roles import Role
from med_duallora.settings.config import JobConfig, LoRAConfig
from tests.unit.refused import refused

GLOBAL, LOCAL, HEAD = Role.GLOBAL, Role.LOCAL, Role.HEAD


@pytest.mark.parametrize(
    ("method", "policy", "sent", "kept", "reason"),
    [
        ("med-duallora", "local", {GLOBAL}, {LOCAL, HEAD}, "the default: nothing but the global adapter leaves"),
        ("med-duallora", "global", {GLOBAL, HEAD}, {LOCAL}, "the job may share the head"),
        ("fedavg-lora", "local", {GLOBAL, HEAD}, {LOCAL}, "FedIT shares the head whatever the policy says"),
        ("fedavg-lora", "global", {GLOBAL, HEAD}, {LOCAL}, "likewise"),
    ],
)
def test_what_is_sent_and_what_stays(method, policy, sent, kept, reason):
    job = JobConfig(method=method, lora=LoRAConfig(head_policy=policy))
    assert method_of(job).sent_roles(job.lora) == sent, reason
    assert method_of(job).kept_roles(job.lora) == kept, reason
    assert LOCAL not in sent, "no method sends a local adapter"


@pytest.mark.parametrize(
    ("method", "changed", "reason"),
    [
        ("med-duallora", {}, "used as configured"),
        ("fedavg-lora", {"rank_local": 0, "head_policy": "global"}, "one shared adapter and head"),
    ],
)
def test_how_a_method_uses_the_adapter_configuration(method, changed, reason):
    lora = LoRAConfig(rank_global=3, rank_local=5, alpha_local=2.0, targets=("fc1",), n_blocks=1)
    assert METHODS[method].lora(lora) == dataclasses.replace(lora, **changed), reason


def test_the_table_is_consistent():
    assert set(METHODS) == {"med-duallora", "fedavg-lora"}
    assert all(name == method.name and method.summary for name, method in METHODS.items())


def test_a_job_without_a_global_adapter_is_refused():
    with refused("lora.rank_global", 0, "above 0 for method med-duallora, which sends a global adapter"):
        method_of(JobConfig(lora=LoRAConfig(rank_global=0)))
