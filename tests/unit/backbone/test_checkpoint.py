import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from med_duallora.backbone import (
    BackboneConfig,
    build_classifier,
    initialise_head,
    load_classifier,
    packaged_checkpoint,
)
from med_duallora.backbone.checkpoint import FIRST_CONV, POSITION
from med_duallora.errors import CheckpointError
from med_duallora.pretraining.mae import DECODERS, MaskedAutoencoder

CLS_TOKEN = "encoder.cls_token"
Q_WEIGHT = "encoder.blocks.0.attn.q.weight"
HEAD = "pred_head_dict.sax.weight"


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def test_classifier_file_gives_the_same_model_back(classifier_file, model, tiny):
    loaded = load_classifier(classifier_file, tiny)
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_half_precision_tensors_are_widened(classifier_file, model, tiny):
    rewrite(classifier_file, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items()}))
    loaded = load_classifier(str(classifier_file), tiny)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded.encoder.cls_token, model.encoder.cls_token.half().float())


def test_stored_position_embedding_is_not_needed_and_not_used(classifier_file, model, tiny):
    wrong = torch.full((1, tiny.n_tokens, tiny.embed_dim), 7.0)
    rewrite(classifier_file, lambda tensors: tensors.update({POSITION: wrong}))
    loaded = load_classifier(classifier_file, tiny)
    assert torch.equal(loaded.token_embedding.pos_embed, model.token_embedding.pos_embed)


def test_autoencoder_file_repeats_the_first_convolution_without_division(mae_file, tiny):
    loaded = load_classifier(mae_file, tiny)
    stored = load_file(mae_file)[FIRST_CONV]
    found = loaded.state_dict()[FIRST_CONV]
    assert stored.shape[1] == 1
    assert torch.equal(found[:, :1], stored)
    assert torch.equal(found[:, 1:], stored)


def test_autoencoder_of_both_frames_is_taken_as_it_is(tmp_path, tiny):
    path = tmp_path / "pair.safetensors"
    save_file(MaskedAutoencoder(tiny, DECODERS["cinema-tiny"], n_frames=2).state_dict(), path)
    assert torch.equal(load_classifier(path, tiny).state_dict()[FIRST_CONV], load_file(path)[FIRST_CONV])


def test_head_of_an_autoencoder_file_does_not_depend_on_the_global_random_state(mae_file, tiny):
    heads: list[torch.Tensor] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        heads.append(load_classifier(mae_file, tiny).get_parameter("pred_head_dict.cls.weight"))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*heads)
    assert 0 < float(heads[0].detach().abs().max()) < 0.2


def test_other_views_of_an_autoencoder_file_are_dropped(mae_file, tiny):
    other = {
        "enc_down_dict.lax_2c.linear.weight": torch.zeros(2, 2),
        "enc_fusion_dict.lax_4c.norm.bias": torch.zeros(2),
    }
    expected = load_classifier(mae_file, tiny).state_dict()
    rewrite(mae_file, lambda tensors: tensors.update(other))
    assert all(torch.equal(tensor, expected[k]) for k, tensor in load_classifier(mae_file, tiny).state_dict().items())


def test_drop_path_and_classes_reach_the_model(mae_file, tiny):
    loaded = load_classifier(mae_file, tiny, n_classes=5, drop_path=0.25)
    assert loaded.blocks[0].drop_path == 0.25
    assert loaded(torch.zeros(1, 2, *tiny.image_size)).shape == (1, 5)


@pytest.mark.parametrize("kind", ["classifier_file", "mae_file"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(CLS_TOKEN), f"1 missing: {CLS_TOKEN}"),
        (lambda t: t.update(extra=torch.zeros(1)), "1 unexpected: extra"),
        (
            lambda t: t.update({Q_WEIGHT: torch.zeros(3, 24)}),
            rf"1 mis-shaped: {Q_WEIGHT} \(3, 24\) instead of \(24, 24\)",
        ),
        (lambda t: t.update({FIRST_CONV: torch.zeros(4, 3, 4, 4, 1)}), rf"mis-shaped: {re.escape(FIRST_CONV)}"),
        (lambda t: t[CLS_TOKEN].fill_(float("nan")), f"1 not finite numbers: {CLS_TOKEN}"),
        (lambda t: t.update({CLS_TOKEN: torch.zeros(1, 1, 24, dtype=torch.int32)}), f"not finite numbers: {CLS_TOKEN}"),
    ],
    ids=["missing", "unexpected", "mis-shaped", "another number of input channels", "not a number", "integers"],
)
def test_file_that_does_not_fit_is_refused_with_its_keys(request, tiny, kind, change, message):
    path = request.getfixturevalue(kind)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=message):
        load_classifier(path, tiny)


def test_classifier_with_other_heads_or_grid_is_refused(classifier_file, tiny):
    with pytest.raises(CheckpointError, match=rf"mis-shaped.*{HEAD} \(2, 24\) instead of \(3, 24\)"):
        load_classifier(classifier_file, tiny, n_classes=3)
    rewrite(classifier_file, lambda tensors: tensors.update({POSITION: torch.zeros(1, 99, 24)}))
    with pytest.raises(CheckpointError, match=rf"{re.escape(POSITION)} \(1, 99, 24\)"):
        load_classifier(classifier_file, tiny)


def test_error_counts_many_keys_and_names_the_first(classifier_file):
    with pytest.raises(CheckpointError, match=r"\d+ missing: .*and \d+ more; .*mis-shaped") as caught:
        load_classifier(classifier_file, BackboneConfig.preset("cinema-mini"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_text("a text, not tensors"), "not a safetensors file or is cut off"),
        (lambda path: path.write_bytes(b""), "not a safetensors file or is cut off"),
    ],
    ids=["missing", "directory", "text", "empty"],
)
def test_unreadable_file_is_refused(tmp_path, tiny, write, message):
    path = tmp_path / "weights.safetensors"
    write(path)
    with pytest.raises(CheckpointError, match=rf"weights\.safetensors.*{message}"):
        load_classifier(path, tiny)


@pytest.mark.parametrize("kept", [4, 100, -1], ids=["in the length", "in the header", "last byte"])
def test_truncated_file_is_refused(classifier_file, tiny, kept):
    classifier_file.write_bytes(classifier_file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="not a safetensors file or is cut off"):
        load_classifier(classifier_file, tiny)


def test_pickle_file_is_refused(tmp_path, model, tiny):
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_classifier(path, tiny)


def test_preset_without_a_shipped_checkpoint_says_what_to_do():
    with pytest.raises(CheckpointError, match=r"no checkpoint is shipped for backbone 'cinema-base'.*pretrain"):
        packaged_checkpoint("cinema-base")


def test_head_initialisation_follows_its_seed(tiny):
    first, second = build_classifier(tiny, seed=1), build_classifier(tiny, seed=2)
    assert torch.equal(first.pred_head_dict["sax"].weight, second.pred_head_dict["sax"].weight)
    initialise_head(second, seed=4)
    assert not torch.equal(first.pred_head_dict["sax"].weight, second.pred_head_dict["sax"].weight)
