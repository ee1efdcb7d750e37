import dataclasses

import pytest

from med_duallora.adapter.aggregations import AGGREGATIONS
from med_duallora.adapter.methods import METHODS, Adapters, Method, method_of, plan_of
from med_duallora.adapter.model import DualLoRAModel
from med_duallora.adapter.plan import Phase, Treatment
from med_duallora.adapter.roles import GLOBAL, LOCAL, Role, Start
from med_duallora.settings.config import JobConfig, LoRAConfig
from tests.unit.refused import refused
from tests.unit.tiny import TINY, build_classifier

HEAD = frozenset({Role.HEAD})
WHOLE = frozenset({Role.WEIGHTS, Role.NORM})


@pytest.mark.parametrize(
    ("method", "policy", "sent", "kept", "reason"),
    [
        ("med-duallora", "local", GLOBAL, LOCAL | HEAD, "all of the head stays"),
        ("med-duallora", "shared", GLOBAL, LOCAL | HEAD, "a shared head's weights are a part of the global adapter"),
        ("med-duallora", "global", GLOBAL | HEAD, LOCAL, "the job may share the head"),
        ("fedavg-lora", "local", GLOBAL | HEAD, LOCAL, "FedIT shares the head whatever the policy says"),
        ("fedavg-lora", "global", GLOBAL | HEAD, LOCAL, "likewise"),
        ("fedavg-full", "local", WHOLE | HEAD, frozenset(), "nothing of a model whose weights are averaged stays"),
        ("fedprox-lora", "local", GLOBAL | HEAD, LOCAL, "FedProx differs from FedAvg in the loss alone"),
        ("fedper-lora", "global", GLOBAL, LOCAL | HEAD, "FedPer's last layer is personal whatever the job says"),
        ("fedper-lora", "shared", GLOBAL, LOCAL | HEAD, "likewise, also where it would be a pair of factors"),
        ("ditto-lora", "local", GLOBAL, LOCAL | HEAD, "the personal adapter never leaves"),
        ("feddpa", "local", GLOBAL, LOCAL | HEAD, "as med-duallora sends and keeps; FedDPA differs in when it trains"),
        ("fedbn-lora", "local", GLOBAL | HEAD, LOCAL | {Role.NORM}, "all but the norms is shared"),
        ("local-lora", "shared", frozenset(), LOCAL | HEAD, "a site alone shares nothing whatever the job says"),
        ("fedsa-lora", "local", {Role.GLOBAL_A}, {Role.GLOBAL_B} | LOCAL | HEAD, "A is what the sites have in common"),
        ("fedsa-lora", "shared", {Role.GLOBAL_A}, {Role.GLOBAL_B} | LOCAL | HEAD, "its head stays whatever is said"),
        ("ffa-lora", "local", {Role.GLOBAL_B} | HEAD, LOCAL, "A follows from the seed: it neither trains nor leaves"),
    ],
)
def test_what_is_sent_and_what_stays(method, policy, sent, kept, reason):
    plan = plan_of(JobConfig(method=method, lora=LoRAConfig(head_policy=policy)))
    assert (plan.sent, plan.kept) == (sent, kept), reason


@pytest.mark.parametrize("method", METHODS)
def test_no_method_sends_a_local_factor_or_what_it_does_not_train(method):
    plan = plan_of(JobConfig(method=method))
    assert not plan.sent & LOCAL
    assert plan.sent <= plan.trained
    assert bool(plan.sent) is (method != "local-lora"), "else there is no federation"
    assert set(plan.treatments) == set(Role) - {Role.FROZEN}


@pytest.mark.parametrize(
    ("method", "changed", "reason"),
    [
        ("med-duallora", {}, "used as configured"),
        ("fedavg-lora", {"rank_local": 0, "head_policy": "global"}, "one shared adapter and head"),
        ("fedsa-lora", {"rank_local": 0, "head_policy": "local"}, "one adapter, and a head that stays"),
    ],
)
def test_how_a_method_uses_the_adapter_configuration(method, changed, reason):
    lora = LoRAConfig(rank_global=3, rank_local=5, alpha_local=2.0, targets=("fc1",), n_blocks=1)
    assert plan_of(JobConfig(method=method, lora=lora)).lora == dataclasses.replace(lora, **changed), reason


def test_the_tables_are_consistent():
    assert {"med-duallora", "fedavg-lora"} <= set(METHODS)
    assert all(name == method.name and method.summary for name, method in METHODS.items())
    assert all(name == rule.name and rule.summary for name, rule in AGGREGATIONS.items())
    for method in METHODS.values():
        assert method.plan(JobConfig(method=method.name)), "a plan that contradicts itself is refused"


def test_a_method_that_sends_a_global_adapter_needs_a_rank():
    with refused("lora.rank_global", 0):
        plan_of(JobConfig(lora=LoRAConfig(rank_global=0)))


@pytest.mark.parametrize("key", ["method", "aggregation"])
def test_unknown_names_are_refused_and_the_known_are_named(key):
    table = {"method": METHODS, "aggregation": AGGREGATIONS}[key]
    with refused(key, "median") as caught:
        JobConfig(**{key: "median"})
    assert ", ".join(table) in str(caught.value)


def test_a_rule_that_needs_pairs_is_refused_where_one_factor_is_sent(monkeypatch):
    pairs_only = dataclasses.replace(AGGREGATIONS["factors"], name="pairs", needs_pairs=True)
    monkeypatch.setitem(AGGREGATIONS, "pairs", pairs_only)
    half = Method("half", "only A leaves", Adapters.GLOBAL, global_b=Treatment())
    with refused("aggregation", "pairs"):
        half.plan(JobConfig(aggregation="pairs"))
    assert method_of(JobConfig()).plan(JobConfig(aggregation="pairs")).aggregation is pairs_only


@pytest.mark.parametrize("rule", [name for name, rule in AGGREGATIONS.items() if rule.needs_pairs])
def test_a_rule_that_needs_pairs_is_refused_where_whole_weights_are_sent(rule):
    limit = "a rule that does without pairs, because method fedavg-full sends whole weights and no factors"
    with refused("aggregation", rule, limit):
        plan_of(JobConfig(method="fedavg-full", aggregation=rule))


def test_whole_weights_need_the_rank_of_training_alone():
    """A site compares with it, and a job that the comparison would fail in must not begin."""
    limit = "above 0 for method fedavg-full, because training alone, which a site compares with, has an adapter of this"
    with refused("lora.rank_global", 0, f"{limit} rank"):
        plan_of(JobConfig(method="fedavg-full", lora=LoRAConfig(rank_global=0)))


def test_a_plan_says_how_a_factor_starts():
    method = Method("other", "a local B that starts random", local=Treatment(start=Start.RANDOM))
    job = JobConfig(backbone="cinema-tiny", lora=LoRAConfig(head_policy="local"))
    model = DualLoRAModel(build_classifier(TINY, seed=7), method.plan(job), 0)
    assert all(value.any() for value in model.values([Role.LOCAL_B]).values())
    assert not any(value.any() for value in model.values([Role.GLOBAL_B]).values())


def test_only_a_method_that_has_a_schedule_takes_it():
    for name, method in METHODS.items():
        job = JobConfig(method=name).with_overrides(["train.schedule=alternate"])
        if name == "med-duallora":
            assert [method.plan(job).of_phase(index) for index in (0, 1)] == [GLOBAL | HEAD, LOCAL | HEAD]
            assert (method.plan(job).sent, method.plan(job).kept) == (GLOBAL, LOCAL | HEAD)
            continue
        with refused("train.schedule", "alternate", f"joint for method {name}, which has a schedule of its own"):
            method.plan(job)


def test_local_after_leaves_what_stays_out_of_every_round_and_needs_a_head_that_learns():
    late = ["train.schedule=local-after", "lora.head_policy=shared"]
    plan = plan_of(JobConfig().with_overrides(late))
    assert plan.of_phase(0) == plan.sent == GLOBAL
    assert (plan.kept, plan.after) == (LOCAL | HEAD, True)
    with refused("lora.head_policy", "local"):
        plan_of(JobConfig().with_overrides([late[0], "lora.head_policy=local"]))


def test_the_phases_share_a_round():
    phases = (Phase(0.25, local_acts=False), Phase(0.75))
    first, local = Treatment(sent=True, phases=(0,)), Treatment(phases=(1,))
    method = Method("other", "local after global", global_a=first, global_b=first, local=local, phases=phases)
    plan = method.plan(JobConfig())
    assert plan.of_phase(0) == GLOBAL | HEAD
    assert plan.of_phase(1) == LOCAL | HEAD


@pytest.mark.parametrize(
    ("changed", "message", "reason"),
    [
        ({"phases": (Phase(0.3), Phase(0.3))}, "do not sum to 1", "steps that belong to no phase"),
        (
            {"global_a": Treatment(trains=False, sent=True)},
            "A of the global adapter does not train",
            "sent for nothing",
        ),
        (
            {"weights": Treatment(sent=True)},
            "whole weights train",
            "a change of full rank can say all that factors can",
        ),
        ({"local": Treatment(phases=(1,))}, "A of the local adapter trains in a phase", "there is but phase 0"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(changed, message, reason):
    method = Method("other", "", **changed)
    with pytest.raises(ValueError, match=message):
        method.plan(JobConfig())
