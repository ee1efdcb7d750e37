import torch
from torch import nn

from med_duallora.backbone.layers import mix_dense
from med_duallora.pretraining.depthwise import depthwise_conv


def run(function, conv, x):
    x = x.clone().requires_grad_()
    conv.zero_grad()
    output = function(conv, x)
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    return [output.detach(), x.grad, conv.weight.grad, conv.bias.grad]


def test_output_and_gradients_are_torchs():
    conv = nn.Conv3d(3, 3, kernel_size=5, padding="same", groups=3)
    x = torch.randn(2, 6, 7, 4, 3)
    for ours, theirs in zip(run(depthwise_conv, conv, x), run(mix_dense, conv, x), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_gradients_match_finite_differences():
    conv = nn.Conv3d(2, 2, kernel_size=3, padding="same", groups=2)
    x = torch.randn(1, 4, 4, 3, 2)
    direction = torch.randn_like(x)
    (_, gradient, _, _) = run(depthwise_conv, conv, x)
    step = 1e-2
    with torch.no_grad():
        ends = [depthwise_conv(conv, x + sign * step * direction) for sign in (1, -1)]
        weights = torch.linspace(-1, 1, x.numel()).reshape(x.shape)
        numeric = float(((ends[0] - ends[1]) * weights).sum() / (2 * step))
    assert abs(numeric - float((gradient * direction).sum())) < 1e-3 * max(1, abs(numeric))


def test_it_computes_in_float32_under_autocast():
    conv = nn.Conv3d(3, 3, kernel_size=5, padding="same", groups=3)
    x = torch.randn(1, 5, 5, 5, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise_conv(conv, x)
    assert torch.allclose(found, mix_dense(conv, x), atol=1e-5)
