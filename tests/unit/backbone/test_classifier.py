import numpy as np
import pytest
import torch

from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.backbone.classifier import position_embedding
from med_duallora.errors import ConfigError


@pytest.fixture
def x(tiny):
    return torch.rand(3, 2, *tiny.image_size, generator=torch.Generator().manual_seed(0))


def test_pieces_make_up_the_whole(model, x):
    tokens, skips = model.embed(x)
    hidden = model.with_cls(tokens)
    assert hidden.shape == (3, 1 + model.config.n_tokens, model.config.embed_dim)
    for block in model.blocks:
        hidden = block(hidden)
    features = model.finish(hidden, model.fusion_term(skips))
    assert torch.equal(model.head(*features), model(x))


def test_reductions_of_the_logits(model, x):
    patch, cls = model(x, reduce="patch"), model(x, reduce="cls")
    assert torch.allclose(model(x), (patch + cls) / 2, atol=1e-6)
    assert not torch.allclose(patch, cls, atol=1e-3)


def test_unknown_reduction_is_refused(model, x):
    with pytest.raises(ConfigError, match=r"reduce = 'max'.*all, patch, cls"):
        model(x, reduce="max")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 1, 32, 32, 4), r"must be \(batch, 2, X, Y, Z\)"),
        ((2, 32, 32, 4), r"must be \(batch, 2, X, Y, Z\)"),
        ((1, 2, 40, 32, 4), "multiple of"),
    ],
    ids=["one frame", "no batch axis", "not divisible"],
)
def test_input_that_does_not_fit_is_refused(model, shape, message):
    with pytest.raises(ConfigError, match=message):
        model(torch.zeros(shape))


def test_position_embedding_enumerates_the_grid_as_numpys_meshgrid_does():
    embedding = position_embedding(12, (2, 3, 1))[0]
    x, y, _ = (axis.ravel() for axis in np.meshgrid(np.arange(2), np.arange(3), np.arange(1)))
    assert torch.allclose(embedding[:, 0], torch.from_numpy(np.sin(x)).float())
    assert torch.allclose(embedding[:, 6], torch.from_numpy(np.cos(y)).float())


def test_position_embedding_is_padded_to_the_token_width():
    assert not position_embedding(10, (2, 2, 2))[0, :, 6:].any()


def test_larger_input_gets_an_interpolated_position_embedding(model):
    tokens, _ = model.embed(torch.zeros(1, 2, 64, 32, 8))
    assert tokens.shape == (1, 4 * 2 * 8, model.config.embed_dim)
    grid = model.token_embedding.pos_embed.reshape(1, *model.config.grid_size, -1)
    larger = model.token_embedding.position((4, 2, 8)).reshape(1, 4, 2, 8, -1)
    # at the corners trilinear interpolation without aligned corners repeats the nearest value
    assert torch.allclose(larger[0, 0, 0, 0], grid[0, 0, 0, 0], atol=1e-6)
    assert torch.allclose(larger[0, -1, -1, -1], grid[0, -1, -1, -1], atol=1e-6)


def test_gradient_checkpointing_switches_every_block_and_keeps_the_gradient(model, x):
    assert not model.gradient_checkpointing
    model(x).sum().backward()
    plain = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing = True
    assert model.gradient_checkpointing
    model(x).sum().backward()
    assert all(torch.allclose(p.grad, plain[name], atol=1e-5) for name, p in model.named_parameters())


def test_base_preset_has_the_published_tensors():
    with torch.device("meta"):
        model = build_classifier_on_meta()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # 250 in the published classifier file, where the fixed position embedding is stored too
    assert len(shapes) == 249
    assert shapes["enc_down_dict.sax.conv_blocks.0.patch_embed.conv.weight"] == (64, 2, 4, 4, 1)
    assert shapes["enc_down_dict.sax.patch_embed.proj.weight"] == (768, 512)
    n_parameters = sum(p.numel() for p in model.parameters())
    assert round(n_parameters / 1e6, 1) == 87.7


def build_classifier_on_meta():
    from med_duallora.backbone import CineMAClassifier

    return CineMAClassifier(BackboneConfig.preset("cinema-base"))


def test_mini_preset_is_small():
    model = build_classifier(BackboneConfig.preset("cinema-mini"))
    assert 2e6 < sum(p.numel() for p in model.parameters()) < 4e6
