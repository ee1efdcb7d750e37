import pytest
import torch
from safetensors.torch import load_file

from med_duallora.backbone import BackboneConfig
from med_duallora.errors import ConfigError
from med_duallora.pretraining.mae import DECODERS, DecoderConfig, MaskedAutoencoder, PatchMask, take

TINY = BackboneConfig.preset("cinema-tiny")


def mask_of(n_samples: int = 3, seed: int = 0, ratio: float = 0.75) -> PatchMask:
    return PatchMask.draw(n_samples, TINY.n_tokens, ratio, torch.Generator().manual_seed(seed))


def test_three_quarters_are_masked_each_sample_in_its_own_way():
    mask = mask_of()
    assert mask.visible.shape == (3, 4)
    assert mask.masked.shape == (3, 12)
    together = torch.cat([mask.visible, mask.masked], dim=1).sort(1).values
    assert torch.equal(together, torch.arange(16).expand(3, -1))
    assert not torch.equal(mask.visible[0], mask.visible[1])


@pytest.mark.parametrize("ratio", [0.999, 0.0])
def test_mask_needs_a_visible_and_a_masked_patch(ratio):
    with pytest.raises(ConfigError, match="patches visible"):
        mask_of(ratio=ratio)


def test_encoder_sees_nothing_of_the_masked_patches(mae, image):
    mask = mask_of()
    patches = mae.patches(image)
    noise = patches.clone().scatter_(
        1, mask.masked.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), torch.rand(3, 12, patches.shape[-1])
    )
    assert not torch.equal(noise, patches)
    assert torch.equal(mae.encode(noise, mask), mae.encode(patches, mask))


def test_visible_patches_see_each_other_through_the_stem(mae, image):
    mask = PatchMask(torch.tensor([[0, 1, 2, 3]]), torch.arange(4, 16).unsqueeze(0))
    patches = mae.patches(image[:1])
    changed = patches.clone()
    changed[:, 1] = 0
    tokens = []
    for values in (patches, changed):
        hook = []
        handle = mae.blocks[0].register_forward_pre_hook(lambda _, inputs, hook=hook: hook.append(inputs[0]))
        mae.encode(values, mask)
        handle.remove()
        tokens.append(hook[0])
    # the first patch's own token differs before any attention: the depth-wise convolution carried it over
    assert not torch.allclose(tokens[0][:, 1], tokens[1][:, 1], atol=1e-6)


def test_encoding_everything_visible_is_the_backbones_plain_forward_pass(mae, image):
    everything = PatchMask(torch.arange(16).expand(3, -1), torch.empty(3, 0, dtype=torch.long))
    tokens, skips = mae.token_embedding(image)
    hidden = mae.with_cls(tokens)
    for block in mae.blocks:
        hidden = block(hidden)
    plain = torch.cat(mae.finish(hidden, mae.fusion_term(skips)), dim=1)
    assert torch.allclose(mae.encode(mae.patches(image), everything), plain, atol=1e-5)


def test_loss_counts_masked_patches_only(mae, image):
    mask = mask_of()
    patches = mae.patches(image)
    predicted = mae.decode(mae.encode(patches, mask), mask)
    assert predicted.shape == (3, 12, 16 * 16)
    expected = (predicted - take(patches, mask.masked)).square().mean()
    assert torch.allclose(mae(image, mask), expected)


def test_normalised_target_has_mean_zero_and_unit_deviation(mae, image):
    mask = mask_of()
    predicted = mae.decode(mae.encode(mae.patches(image), mask), mask)
    target = take(mae.patches(image), mask.masked)
    target = (target - target.mean(-1, keepdim=True)) / target.std(-1, keepdim=True)
    loss = (predicted - target).square().mean()
    assert torch.allclose(mae(image, mask, norm_target=True), loss, rtol=1e-4)


def test_frames_that_move_count_by_their_weight():
    model = MaskedAutoencoder(TINY, DECODERS["cinema-tiny"], seed=1, n_frames=2)
    pair = torch.rand(3, 2, *TINY.image_size, generator=torch.Generator().manual_seed(0))
    mask = mask_of()
    patches = model.patches(pair)
    assert patches.shape == (3, 16, 2 * 16 * 16)
    error = model.decode(model.encode(patches, mask), mask) - take(patches, mask.masked)
    # channel runs fastest: even values are ED, odd ones ES
    half_difference = (error[..., 0::2] - error[..., 1::2]) / 2
    assert torch.allclose(model(pair, mask), error.square().mean(), rtol=1e-5)
    more = 4 * half_difference.square().mean()
    assert torch.allclose(model(pair, mask, motion_weight=5.0), error.square().mean() + more, rtol=1e-5)


def test_motion_weight_is_nothing_to_a_single_frame(mae, image):
    mask = mask_of()
    assert torch.equal(mae(image, mask, motion_weight=9.0), mae(image, mask))


def test_attention_starts_as_similarity(mae):
    attention = mae.decoder.blocks[0].attn
    assert torch.equal(attention.kv.weight[:12], attention.q.weight)
    assert not torch.equal(attention.kv.weight[12:], attention.q.weight)


def test_blank_patches_have_a_finite_normalised_loss(mae):
    assert mae(torch.zeros(1, 1, *TINY.image_size), mask_of(1), norm_target=True).isfinite()


def test_every_parameter_learns(mae, image):
    mae(image, mask_of()).backward()
    silent = [name for name, p in mae.named_parameters() if p.grad is None or not p.grad.any()]
    # keys' biases cancel in the softmax, but kv is one layer, so nothing at all may be silent
    assert not silent


def test_image_of_another_size_is_refused(mae):
    with pytest.raises(ConfigError, match=r"image of shape \(1, 2, 32, 32, 4\)"):
        mae.patches(torch.zeros(1, 2, 32, 32, 4))


@pytest.mark.parametrize("values", [(10, 1, 3), (0, 1, 1), (8, 0, 2)], ids=["heads", "width", "depth"])
def test_impossible_decoder_is_refused(values):
    with pytest.raises(ConfigError, match="n_heads must divide embed_dim"):
        DecoderConfig(*values)


def test_names_are_those_of_the_published_checkpoint(shared):
    golden = load_file(shared / "golden" / "cinema_small" / "mae.safetensors")
    theirs = {name: tuple(t.shape) for name, t in golden.items() if "lax" not in name and "pos_embed" not in name}
    config = BackboneConfig(image_size=(64, 64, 8), conv_chans=(16, 32), embed_dim=48, depth=4, n_heads=4)
    n_blocks = len({name.split(".")[2] for name in theirs if name.startswith("decoder.blocks")})
    ours = MaskedAutoencoder(config, DecoderConfig(32, n_blocks, 4)).state_dict()
    assert {name: tuple(t.shape) for name, t in ours.items()} == theirs


def test_every_preset_has_a_decoder():
    assert set(DECODERS) == {"cinema-base", "cinema-mini", "cinema-tiny"}
