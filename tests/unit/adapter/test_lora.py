from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from med_duallora.adapter.lora import DualLoRALinear
from med_duallora.adapter.roles import Role, Start


class Spec(NamedTuple):
    """One layer: sizes, ranks and alphas of the global and the local adapter."""

    n_in: int
    n_out: int
    rank_global: int
    alpha_global: float
    rank_local: int
    alpha_local: float
    reason: str = ""

    @property
    def adapters(self) -> tuple[int, float, int, float]:
        return self[2:6]

    @property
    def scales(self) -> tuple[float, float]:
        scale_global = self.alpha_global / self.rank_global if self.rank_global else 0.0
        return scale_global, self.alpha_local / self.rank_local if self.rank_local else 0.0


def layer_of(spec: Spec, bias: bool = True, dtype: torch.dtype = torch.float32) -> DualLoRALinear:
    """A layer whose B factors are not zero, so that both paths act."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = started(DualLoRALinear(nn.Linear(spec.n_in, spec.n_out, bias=bias, dtype=dtype), *spec.adapters))
        for factor in (layer.global_b, layer.local_b):
            if factor is not None:
                nn.init.normal_(factor, std=0.5)
    return layer


def started(layer: DualLoRALinear) -> DualLoRALinear:
    """The layer with the first values that it declares."""
    for number, (name, said) in enumerate(layer.declared().items()):
        parameter = layer.get_parameter(name)
        generator = torch.Generator().manual_seed(number)
        parameter.data.copy_(said.start.first_value(tuple(parameter.shape), generator))
    return layer


def naive(layer: DualLoRALinear, x: torch.Tensor, s_global: float, s_local: float) -> torch.Tensor:
    """W0 x + b0 + s_g B_g A_g x + s_l B_l A_l x, term by term, for x (n, in)."""
    y = x @ layer.base.weight.T
    if layer.base.bias is not None:
        y = y + layer.base.bias
    if layer.global_a is not None:
        y = y + s_global * (x @ layer.global_a.T @ layer.global_b.T)
    if layer.local_a is not None:
        y = y + s_local * (x @ layer.local_a.T @ layer.local_b.T)
    return y


SPECS = [
    Spec(12, 12, 8, 16.0, 8, 16.0, "the default: scale 2 for both"),
    Spec(12, 24, 8, 16.0, 8, 16.0, "wide output, as kv"),
    Spec(24, 6, 4, 4.0, 4, 4.0, "narrow output, as fc2; scale 1"),
    Spec(10, 7, 1, 1.0, 5, 1.0, "different ranks"),
    Spec(10, 7, 5, 32.0, 1, 0.5, "different scales, one above and one below 1"),
    Spec(5, 6, 16, 16.0, 3, 6.0, "a rank above both dimensions"),
    Spec(9, 9, 6, 12.0, 0, 16.0, "no local adapter"),
    Spec(9, 9, 0, 16.0, 6, 12.0, "no global adapter"),
    Spec(1, 1, 1, 1.0, 1, 1.0, "the smallest layer"),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.reason)
def test_fused_forward_and_gradients_equal_the_formula(spec, bias):
    layer = layer_of(spec, bias=bias)
    x = torch.randn(5, spec.n_in, generator=torch.Generator().manual_seed(1), requires_grad=True)
    upstream = torch.randn(5, spec.n_out, generator=torch.Generator().manual_seed(2))
    factors = [getattr(layer, name) for name in layer.declared()]
    expected, found = naive(layer, x, *spec.scales), layer(x)
    assert torch.allclose(found, expected, rtol=0, atol=1e-6 * max(1.0, float(expected.detach().abs().max())))
    gradients = torch.autograd.grad(found, [x, *factors], upstream)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, [x, *factors], upstream), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-6 * max(1.0, float(theirs.abs().max())))


SIZES, RANKS, ALPHAS = st.integers(1, 20), st.integers(0, 8), st.floats(0.01, 1024)


@settings(max_examples=40, deadline=None)
@given(st.builds(Spec, SIZES, SIZES, RANKS, ALPHAS, RANKS, ALPHAS))
def test_fused_forward_equals_the_formula_in_float64(spec):
    layer = layer_of(spec, dtype=torch.float64)
    x = torch.randn(3, spec.n_in, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.allclose(layer(x), naive(layer, x, *spec.scales), rtol=1e-11, atol=1e-9)
    assert layer(x).dtype == torch.float64, "the adapters take the frozen layer's type"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.reason)
def test_a_new_layer_equals_its_frozen_layer_bit_for_bit(spec):
    base = nn.Linear(spec.n_in, spec.n_out)
    layer = started(DualLoRALinear(base, *spec.adapters))
    x = 100 * torch.randn(7, spec.n_in)
    assert torch.equal(layer(x), base(x))
    for a in (layer.global_a, layer.local_a):
        assert a is None or bool((a != 0).all()), "A starts random: with both factors at zero nothing would ever learn"


def test_a_starts_uniform_within_the_fan_in():
    layer = started(DualLoRALinear(nn.Linear(100, 10), 64, 1.0, 64, 1.0))
    for a in (layer.global_a, layer.local_a):
        assert 0.09 < float(a.detach().abs().max()) <= 0.1, "Kaiming-uniform with a = sqrt(5), as LoRA: 1 / sqrt(100)"


@pytest.mark.parametrize(
    ("use_global", "use_local", "reason"),
    [
        (True, True, "both adapters"),
        (True, False, "what the federation shares"),
        (False, True, "what the site keeps"),
        (False, False, "the backbone alone"),
    ],
)
def test_adapters_can_be_switched_off(use_global, use_local, reason):
    layer = layer_of(Spec(8, 6, 3, 6.0, 2, 1.0))
    x = torch.randn(4, 8)
    layer.global_active, layer.local_active = use_global, use_local
    expected = naive(layer, x, 2.0 * use_global, 0.5 * use_local)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-5), reason
    if not use_global and not use_local:
        assert torch.equal(layer(x), layer.base(x)), "no adapter: not even a rounding error"


@pytest.mark.parametrize(
    ("rank_global", "rank_local", "roles", "reason"),
    [
        (2, 3, {"global_a", "global_b", "local_a", "local_b"}, "both"),
        (2, 0, {"global_a", "global_b"}, "rank 0: no local adapter"),
        (0, 3, {"local_a", "local_b"}, "rank 0: no global adapter"),
        (0, 0, set(), "nothing is adapted"),
    ],
)
def test_declared_roles_and_shapes_are_the_adapters(rank_global, rank_local, roles, reason):
    layer = DualLoRALinear(nn.Linear(5, 7), rank_global, 1.0, rank_local, 1.0)
    declared = layer.declared()
    assert set(declared) == roles, reason
    names = {Role.GLOBAL_A: "global_a", Role.GLOBAL_B: "global_b", Role.LOCAL_A: "local_a", Role.LOCAL_B: "local_b"}
    assert all(names[said.role] == name for name, said in declared.items())
    assert {name for name, said in declared.items() if said.start is Start.RANDOM} == {n for n in roles if n[-1] == "a"}
    parameters = dict(layer.named_parameters())
    assert set(parameters) == roles | {"base.weight", "base.bias"}
    assert {name for name, value in parameters.items() if value.requires_grad} == roles, "the frozen layer is frozen"
    for name in roles:
        rank = rank_global if name.startswith("global") else rank_local
        assert tuple(parameters[name].shape) == ((rank, 5) if name.endswith("_a") else (7, rank)), name


def test_the_frozen_layer_gets_no_gradient():
    layer = layer_of(Spec(4, 4, 2, 2.0, 2, 2.0))
    layer(torch.randn(3, 4)).sum().backward()
    assert layer.base.weight.grad is None
    assert layer.base.bias.grad is None
    assert all(getattr(layer, name).grad is not None for name in layer.declared())


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_leading_axes_are_free(shape):
    layer = layer_of(Spec(6, 9, 2, 4.0, 3, 3.0))
    x = torch.randn(*shape)
    assert layer(x).shape == (*shape[:-1], 9)
    assert torch.allclose(layer(x).reshape(-1, 9), layer(x.reshape(-1, 6)), atol=1e-6)


@pytest.mark.parametrize(
    ("rank_global", "rank_local", "n_products", "reason"),
    [
        (4, 4, 3, "W0, and one pair for both adapters together"),
        (4, 0, 3, "W0, and one pair"),
        (0, 0, 1, "W0 alone"),
    ],
)
def test_both_paths_share_one_pair_of_products(monkeypatch, rank_global, rank_local, n_products, reason):
    layer = layer_of(Spec(6, 6, rank_global, 4.0, rank_local, 4.0))
    calls = []
    plain = functional.linear
    monkeypatch.setattr(functional, "linear", lambda *args: calls.append(args[1].shape) or plain(*args))
    layer(torch.randn(2, 6))
    assert len(calls) == n_products, reason
    if rank_global:
        assert calls[1] == (rank_global + rank_local, 6), "the first product of the pair has the sum of the ranks"


HELD = Spec(6, 5, 4, 8.0, 2, 4.0)


def test_components_that_are_held_act_as_before_and_neither_gradient_nor_decay_reaches_them():
    layer, x = layer_of(HELD), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    expected = layer(x)
    layer.hold(1)
    assert layer.scales() == HELD.scales, "alpha / r is the job's, whatever trains"
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-5)
    layer.local_active = False
    assert not torch.equal(layer(x), expected)
    layer.local_active = True
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        by_component = [layer.get_parameter("global_a").grad, layer.get_parameter("global_b").grad]
        assert by_component[0] is not None and by_component[1] is not None
        for gradient in (by_component[0], by_component[1].T):
            assert gradient[:1].any() and not gradient[1:].any()
        optimizer.step()
    layer.release()
    assert torch.equal(layer.get_parameter("global_a")[1:], before["global_a"][1:])
    assert torch.equal(layer.get_parameter("global_b")[:, 1:], before["global_b"][:, 1:])
    for name in ("global_a", "global_b", "local_a", "local_b"):
        assert not torch.equal(layer.get_parameter(name), before[name]), f"{name} trains"


def test_held_components_are_off_with_their_adapter():
    layer, x = layer_of(HELD), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    layer.global_active = False
    without = layer(x)
    layer.hold(1)
    assert torch.equal(layer(x), without)


@pytest.mark.parametrize("n_first", [4, 5, 256])
def test_nothing_is_held_where_all_components_train(n_first):
    layer, x = layer_of(HELD), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    expected, before = layer(x), layer.get_parameter("global_a").detach().clone()
    layer.hold(n_first)
    assert torch.equal(layer(x), expected) and torch.equal(layer.get_parameter("global_a"), before)
    layer.release()
    assert torch.equal(layer(x), expected) and torch.equal(layer.get_parameter("global_a"), before)
