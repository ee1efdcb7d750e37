import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.adapter.methods import METHODS, plan_of
from med_duallora.adapter.model import DualLoRAModel, initial_global_state, skeleton
from med_duallora.adapter.roles import GLOBAL, LOCAL, Role
from med_duallora.backbone import BackboneConfig, build_classifier, load_classifier
from med_duallora.measures import VARIANTS
from med_duallora.settings.config import JobConfig, LoRAConfig
from tests.unit.refused import refused
from tests.unit.tiny import TINY, TRAINED, digest, model_of, same, shake, tiny_images, tiny_job, tiny_model

BLOCK = "classifier.encoder.blocks.2"
LAYERS = ("q", "kv", "proj", "fc1", "fc2")
"""Every target inside a block."""


HEADS = {f"classifier.pred_head_dict.{head}.{value}" for head in ("sax", "cls") for value in ("weight", "bias")}
SHARED = {f"classifier.pred_head_dict.{head}.global_{factor}" for head in ("sax", "cls") for factor in "ab"}
BIASES = {name for name in HEADS if name.endswith("bias")}


def plain(**values: Any) -> LoRAConfig:
    """Adapters of the blocks alone: the head is the backbone's and stays whole."""
    return LoRAConfig(head_policy="local", **values)


def factors(layer: str, adapters: str = "gl") -> set[str]:
    kinds = [kind for kind in ("global", "local") if kind[0] in adapters]
    return {f"{layer}.{kind}_{factor}" for kind in kinds for factor in "ab"}


@pytest.mark.parametrize(
    ("lora", "adapted", "reason"),
    [
        (plain(n_blocks=1), factors(f"{BLOCK}.attn.q") | factors(f"{BLOCK}.attn.kv"), "the default targets"),
        (plain(n_blocks=1, targets=("proj",)), factors(f"{BLOCK}.attn.proj"), "the attention's output"),
        (plain(n_blocks=1, targets=("fc1",)), factors(f"{BLOCK}.mlp.fc1"), "the MLP's first layer"),
        (plain(n_blocks=1, targets=("fc2",)), factors(f"{BLOCK}.mlp.fc2"), "the MLP's second layer"),
        (plain(n_blocks=1, targets=("q",), rank_local=0), factors(f"{BLOCK}.attn.q", "g"), "no local adapter"),
        (plain(n_blocks=1, targets=("q",), rank_global=0), factors(f"{BLOCK}.attn.q", "l"), "no global adapter"),
        (
            plain(n_blocks=3, targets=("q",)),
            {name for i in range(3) for name in factors(f"classifier.encoder.blocks.{i}.attn.q")},
            "every block",
        ),
        (
            plain(n_blocks=1, targets=LAYERS),
            {
                name
                for layer in ("attn.q", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2")
                for name in factors(f"{BLOCK}.{layer}")
            },
            "every target",
        ),
    ],
)
def test_exactly_the_adapters_and_heads_train(lora, adapted, reason):
    model = tiny_model(lora)
    expected = adapted | HEADS
    assert set(model.trained()) == expected, reason
    assert {name for name, value in model.named_parameters() if value.requires_grad} == expected, reason
    model(tiny_images()).sum().backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == expected, reason


def test_a_shared_head_is_a_global_pair_and_a_bias_that_stays():
    model = tiny_model(LoRAConfig(n_blocks=1, targets=("q",), rank_local=0, head_policy="shared"))
    expected = factors(f"{BLOCK}.attn.q", "g") | SHARED | BIASES
    assert set(model.trained()) == expected
    assert set(model.of_roles([Role.HEAD])) == BIASES
    shake(model, GLOBAL)
    model(tiny_images())[:, 1].sum().backward()
    assert {name for name, value in model.named_parameters() if value.grad is not None} == expected


def test_the_first_step_of_a_shared_head_reaches_every_input():
    model = tiny_model(LoRAConfig(head_policy="shared"))
    assert not model(tiny_images()).any(), "it starts without an opinion"
    model(tiny_images())[:, 1].sum().backward()
    a, b = (model.get_parameter(f"classifier.pred_head_dict.sax.global_{factor}").grad for factor in "ab")
    assert a is not None and (a != 0).all()
    assert b is not None and not b.any()


def test_a_shared_head_acts_in_every_variant():
    model = tiny_model(LoRAConfig(head_policy="shared"))
    shake(model, GLOBAL)
    for adapters in ((True, True), (True, False), (False, True), (False, False)):
        with model.using(*adapters), torch.no_grad():
            assert model(tiny_images()).any()


def test_an_undeclared_layer_in_an_adapted_block_stays_frozen_whatever_its_name():
    classifier = build_classifier(TINY)
    classifier.blocks[2].attn.add_module("lora_global_a", nn.Linear(2, 2))
    model = DualLoRAModel(classifier, plan_of(tiny_job(LoRAConfig(n_blocks=1))), 0)
    assert not any("lora_global_a" in name for name in model.trained())
    assert not model.get_parameter(f"{BLOCK}.attn.lora_global_a.weight").requires_grad


@pytest.mark.parametrize("n_blocks", [1, 2, 3])
def test_without_training_the_output_is_the_backbones_bit_for_bit(n_blocks):
    lora = plain(n_blocks=n_blocks, targets=LAYERS)
    model, backbone = tiny_model(lora), build_classifier(TINY, seed=7).eval()
    shake(model, [Role.HEAD])
    for name, value in model.values([Role.HEAD]).items():
        backbone.get_parameter(name.removeprefix("classifier.")).data.copy_(torch.from_numpy(value))
    x = tiny_images()
    with torch.no_grad():
        assert torch.equal(model(x), backbone(x))
        assert torch.equal(model(x), model.classifier(x)), "trunk and tail together are the classifier"


@pytest.mark.parametrize("n_blocks", [1, 2, 4])
def test_without_training_the_golden_activations_are_met(shared, n_blocks):
    golden = shared / "golden" / "cinema_small"
    values = json.loads((golden / "config.json").read_text())
    names = [name for name in BackboneConfig.__dataclass_fields__ if name in values]
    config = BackboneConfig(**{n: tuple(values[n]) if isinstance(values[n], list) else values[n] for n in names})
    backbone = load_classifier(golden / "classifier.safetensors", config)
    trained = [value.numpy().copy() for value in backbone.pred_head_dict.state_dict().values()]
    expected = load_file(golden / "expected.safetensors")
    with torch.no_grad():
        logits, cls, sax = backbone(expected["input"]), *backbone.features(expected["input"])
        model = DualLoRAModel(backbone, plan_of(tiny_job(plain(n_blocks=n_blocks))), 0).eval()
        model.load_values([Role.HEAD], dict(zip(model.of_roles([Role.HEAD]), trained, strict=True)))
        found = model.features(model.trunk(expected["input"]))
        assert torch.equal(model(expected["input"]), logits)
        assert torch.equal(found[0], cls)
        assert torch.equal(found[1], sax)
    assert torch.allclose(logits, expected["logits_all"], rtol=0, atol=1e-5)
    assert torch.allclose(found[0], expected["features_cls"], rtol=0, atol=1e-5)
    assert torch.allclose(found[1], expected["features_sax"], rtol=0, atol=1e-5)


def test_trained_adapters_act_and_forward_is_trunk_then_tail():
    model = tiny_model(plain())
    x = tiny_images()
    with torch.no_grad():
        shake(model, [Role.HEAD])
        before = model(x)
        shake(model, GLOBAL | LOCAL)
        trunk = model.trunk(x)
        assert torch.equal(model.tail(trunk), model(x))
        assert torch.equal(model(x), model.classifier(x))
        assert not torch.allclose(model(x), before, atol=1e-3)


def test_the_trunk_is_the_blocks_before_the_cut():
    model = tiny_model(LoRAConfig(n_blocks=2))
    assert model.cut == 1
    x, backbone = tiny_images(), model.classifier
    with torch.no_grad():
        tokens, skips = backbone.embed(x)
        expected = backbone.blocks[0](backbone.with_cls(tokens))
        trunk = model.trunk(x)
        assert torch.equal(trunk.tokens, expected)
        assert torch.equal(trunk.fusion_term, backbone.fusion_term(skips))
        shake(model)
        assert torch.equal(model.trunk(x).tokens, expected), "nothing that trains may reach the trunk"
    assert trunk.tokens.shape == (2, 1 + TINY.n_tokens, TINY.embed_dim)
    assert trunk.fusion_term.shape == (2, TINY.n_tokens, TINY.embed_dim)


def test_the_trunk_runs_in_evaluation_mode_and_without_gradients():
    model = tiny_model(plain(), drop_path=0.5).train()
    shake(model, [Role.HEAD])
    x = tiny_images(8).requires_grad_()
    one, other = model.trunk(x), model.trunk(x)
    assert torch.equal(one.tokens, other.tokens), "stochastic depth would make cached features a lottery"
    assert not one.tokens.requires_grad
    assert all(module.training for module in model.modules()), "the mode is put back"
    assert not torch.equal(model.tail(one), model.tail(one)), "the adapted blocks do drop paths in training"


@pytest.mark.parametrize(
    ("adapters", "acting", "reason"),
    [
        (VARIANTS["global"].adapters, GLOBAL, "the shared part"),
        (VARIANTS["local"].adapters, LOCAL, "the private part"),
        (VARIANTS["both"].adapters, GLOBAL | LOCAL, "as trained"),
        ((False, False), [], "the backbone"),
    ],
)
def test_variants_switch_adapters_off(adapters, acting, reason):
    model, reference = tiny_model(plain()), tiny_model(plain())
    shake(model, seed=1)
    full = model.values(TRAINED)
    for role in (Role.HEAD, *acting):
        reference.load_values([role], {name: full[name] for name in reference.of_roles([role])})
    x = tiny_images()
    with torch.no_grad():
        before = model(x)
        with model.using(*adapters):
            assert torch.allclose(model(x), reference(x), atol=1e-6), reason
        assert torch.equal(model(x), before), "afterwards everything is on again"


def test_switching_off_ends_with_its_block_also_when_nested_or_broken():
    model = tiny_model()
    layer = model.get_submodule(f"{BLOCK}.attn.q")
    with model.using(True, False):
        with model.using(False, False):
            assert (layer.global_active, layer.local_active) == (False, False)
        assert (layer.global_active, layer.local_active) == (True, False)
    with pytest.raises(KeyError), model.using(False, True):
        raise KeyError
    assert (layer.global_active, layer.local_active) == (True, True)


def test_the_start_depends_on_seed_and_name_only():
    one = tiny_model(plain(), seed=3).values(TRAINED)
    torch.manual_seed(99)
    assert same(one, tiny_model(plain(), seed=3).values(TRAINED)), "not on the global random state"
    fewer = tiny_model(plain(n_blocks=1, targets=("kv",)), seed=3).values(TRAINED)
    assert all(np.array_equal(fewer[name], one[name]) for name in fewer), "not on what else is adapted"
    other = tiny_model(plain(), seed=4).values(TRAINED)
    random = [name for name in one if name.endswith("_a")]
    assert len(random) == 4 * 2
    assert all((one[name] != other[name]).all() for name in random), "on the seed"
    flat = [one[name].ravel()[:24].tobytes() for name in random]
    assert len(set(flat)) == len(flat), "and on the name: no two start alike"


def test_the_start_is_loras():
    for name, value in tiny_model(plain(rank_global=64)).values(GLOBAL | LOCAL).items():
        if name.endswith("_b"):
            assert not value.any(), name
        else:
            bound = value.shape[-1] ** -0.5
            assert np.abs(value).max() <= bound, name
            assert value.std() == pytest.approx(bound / 3**0.5, rel=0.25), f"{name} is uniform over the bound"
            assert value.dtype == np.float32


def test_heads_start_at_zero():
    assert not any(value.any() for value in tiny_model().values([Role.HEAD]).values())


@pytest.mark.parametrize("policy", ["local", "shared", "global"])
@pytest.mark.parametrize("method", list(METHODS))
def test_the_server_starts_where_every_site_starts(method, policy):
    lora = LoRAConfig(head_policy=policy)
    job = JobConfig(backbone="cinema-tiny", method=method, lora=lora)
    model = model_of(job)
    assert same(initial_global_state(job), model.values(model.plan.sent))
    sent = set(initial_global_state(job))
    assert sent & HEADS == (HEADS if Role.HEAD in model.plan.sent else set())
    shared = {name for name in model.of_roles(model.plan.sent) if name in SHARED}
    assert bool(shared) is (model.plan.lora.head_policy == "shared")
    assert sent & SHARED == shared
    assert not any("local" in name for name in sent)


@pytest.mark.parametrize("method", list(METHODS))
def test_the_skeleton_has_the_models_names_shapes_and_roles(method):
    job = JobConfig(backbone="cinema-tiny", method=method)
    bones, model = skeleton(job), model_of(job)
    for roles in (GLOBAL, LOCAL, [Role.HEAD], [Role.WEIGHTS], [Role.NORM], [Role.FROZEN]):
        expected = {name: value.shape for name, value in model.of_roles(roles).items()}
        assert {name: value.shape for name, value in bones.of_roles(roles).items()} == expected
    assert bones.sent_pairs() == model.sent_pairs()
    assert all(parameter.is_meta for parameter in bones.parameters()), "no memory: the server has no backbone"


def test_global_pairs_are_b_and_a_of_every_adapted_layer():
    model = tiny_model(plain(n_blocks=1))
    assert model.sent_pairs() == (
        (f"{BLOCK}.attn.q.global_b", f"{BLOCK}.attn.q.global_a"),
        (f"{BLOCK}.attn.kv.global_b", f"{BLOCK}.attn.kv.global_a"),
    )
    shared = tiny_model(LoRAConfig(n_blocks=1))
    heads = [f"classifier.pred_head_dict.{head}" for head in ("sax", "cls")]
    assert shared.sent_pairs() == (*model.sent_pairs(), *((f"{n}.global_b", f"{n}.global_a") for n in heads))


@pytest.mark.parametrize("make", [tiny_model, lambda lora: skeleton(tiny_job_with(lora))])
def test_more_blocks_than_the_backbone_has_are_refused(make):
    with refused("lora.n_blocks", 4, "at most 3"):
        make(LoRAConfig(n_blocks=4))


def tiny_job_with(lora: LoRAConfig) -> JobConfig:
    return JobConfig(backbone="cinema-tiny", lora=lora)


def test_adapting_twice_is_refused():
    classifier = tiny_model().classifier
    with pytest.raises(TypeError, match=r"attn.q is a DualLoRALinear"):
        DualLoRAModel(classifier, plan_of(tiny_job()), 0)
    assert not any(
        isinstance(module.base, DualLoRALinear) for module in classifier.modules() if hasattr(module, "base")
    )


def test_values_are_copies_and_come_back():
    model = tiny_model()
    shake(model)
    values = model.values(TRAINED)
    frozen = digest(model.of_roles([Role.FROZEN]))
    kept = {name: value.copy() for name, value in values.items()}
    shake(model, seed=5)
    assert same(values, kept), "later training must not reach into what was taken out"
    model.load_values(TRAINED, values)
    assert same(model.values(TRAINED), kept)
    values[next(iter(values))][:] = 7
    assert same(model.values(TRAINED), kept), "nor the other way round"
    assert digest(model.of_roles([Role.FROZEN])) == frozen


@pytest.mark.parametrize(
    ("change", "message", "reason"),
    [
        (lambda v: v.pop(f"{BLOCK}.attn.q.global_a"), "attn.q.global_a is missing", "partly loaded is not loaded"),
        (lambda v: v.update(extra=np.zeros(1)), "extra is unexpected", "unknown names are refused"),
        (
            lambda v: v.update({f"{BLOCK}.attn.q.global_a": np.zeros((8, 1), np.float32)}),
            r"attn.q.global_a has shape \(8, 1\), expected \(8, 24\)",
            "a shape that would broadcast must not pass",
        ),
    ],
)
def test_values_that_do_not_fit_are_refused(change, message, reason):
    model = tiny_model()
    values = model.values(GLOBAL)
    change(values)
    with pytest.raises(ValueError, match=message):
        model.load_values(GLOBAL, values)
