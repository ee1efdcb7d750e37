import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from med_duallora.backbone.layers import Attention, Block, ConvBlock, PatchConv, PointConv, initialise, patchify


def test_patches_run_x_y_z_channel_with_channel_fastest():
    x = torch.arange(1 * 4 * 4 * 2 * 3).reshape(1, 4, 4, 2, 3)
    patches = patchify(x, (2, 2, 1))
    assert patches.shape == (1, 2, 2, 2, 12)
    assert torch.equal(patches[0, 1, 0, 1], x[0, 2:4, 0:2, 1].flatten())


@pytest.mark.parametrize("patch_size", [(4, 4, 1), (2, 2, 1), (1, 2, 3)])
def test_patch_convolution_is_torchs_strided_convolution(patch_size):
    conv = PatchConv(3, 5, patch_size)
    x = torch.randn(2, 8, 4, 6, 3)
    expected = F.conv3d(x.permute(0, 4, 1, 2, 3), conv.weight, conv.bias, stride=patch_size)
    assert torch.allclose(conv(x), expected.permute(0, 2, 3, 4, 1), atol=1e-5)


def test_point_convolution_is_torchs():
    conv = PointConv(3, 5)
    x = torch.randn(2, 4, 4, 2, 3)
    expected = F.conv3d(x.permute(0, 4, 1, 2, 3), conv.weight, conv.bias)
    assert torch.allclose(conv(x), expected.permute(0, 2, 3, 4, 1), atol=1e-5)


def test_linears_are_called_as_modules_so_that_adapters_can_replace_them():
    block = Block(dim=12, n_heads=3, mlp_ratio=2)
    called = []
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    block(torch.randn(1, 5, 12))
    assert called == ["attn.q", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2"]


def test_attention_in_bfloat16_on_cpu_is_close_to_float32():
    attention = Attention(12, 3)
    x = torch.randn(2, 7, 12)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(x)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), attention(x), atol=0.05)


def test_stochastic_depth_skips_branches_in_training_only():
    block = Block(dim=12, n_heads=3, mlp_ratio=2, drop_path=0.5)
    x = torch.randn(64, 3, 12)
    torch.manual_seed(0)
    changed = block.train()(x)
    untouched = (changed == x).flatten(1).all(1)
    # both branches are skipped with probability 1/4
    assert 4 < int(untouched.sum()) < 32
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


@pytest.mark.parametrize("block", [Block(12, 3, 2), ConvBlock(4)], ids=["transformer", "convolution"])
def test_gradient_checkpointing_changes_neither_output_nor_gradient(block):
    x = torch.randn(2, 6, 12) if isinstance(block, Block) else torch.randn(2, 4, 4, 2, 4)
    results = []
    for enabled in (False, True):
        block.gradient_checkpointing = enabled
        block.zero_grad()
        output = block(x.requires_grad_())
        output.square().sum().backward()
        results.append((output.detach(), [p.grad.clone() for p in block.parameters()]))
    (plain, plain_grads), (saved, saved_grads) = results
    assert torch.equal(plain, saved)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(plain_grads, saved_grads, strict=True))


def test_initialisation_depends_on_the_seed_alone():
    first, second, other = (Block(12, 3, 2) for _ in range(3))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for block, seed in ((first, 5), (second, 5), (other, 6)):
        initialise(block, seed)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.attn.q.weight, second.attn.q.weight)
    assert not torch.equal(first.attn.q.weight, other.attn.q.weight)
    assert not first.attn.q.bias.any()
    assert torch.equal(first.norm1.weight, torch.ones(12))
