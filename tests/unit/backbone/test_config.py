import dataclasses
import json

import pytest

from med_duallora.backbone import BackboneConfig
from med_duallora.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "grid", "reason"),
    [
        ("cinema-base", (12, 12, 16), "2304 tokens, as published"),
        ("cinema-mini", (4, 4, 14), "half the resolution, around the heart"),
        ("cinema-tiny", (2, 2, 4), "for tests"),
    ],
)
def test_presets_have_their_token_grid(name, grid, reason):
    config = BackboneConfig.preset(name)
    assert config.grid_size == grid
    assert config.n_tokens == grid[0] * grid[1] * grid[2]
    assert config.reduction == (16, 16, 1)


@pytest.mark.parametrize(
    ("name", "field_of_view"), [("cinema-base", 192), ("cinema-mini", 128), ("cinema-tiny", 192)], ids=str
)
def test_presets_look_at_their_field_of_view(name, field_of_view):
    config = BackboneConfig.preset(name)
    assert [n * config.in_plane_mm for n in config.image_size[:2]] == [field_of_view] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_heads": 7}, "n_heads = 7.*divisor of embed_dim 768"),
        ({"image_size": (190, 192, 16)}, r"image_size = \(190, 192, 16\).*multiple of"),
        ({"image_size": (192, 192)}, "image_size.*three numbers"),
        ({"patch_size": (4, 0, 1)}, "patch_size.*at least 1"),
        ({"scale_factor": (2, 2)}, "scale_factor.*three numbers"),
        ({"conv_chans": ()}, "conv_chans.*one positive number per"),
        ({"conv_chans": (16, 0)}, "conv_chans"),
        ({"embed_dim": 4, "n_heads": 2}, "embed_dim = 4.*at least 6"),
        ({"depth": 0}, "depth = 0.*at least 1"),
        ({"n_frames": 0}, "n_frames"),
        ({"in_chans": 0}, "in_chans"),
        ({"conv_n_blocks": 0}, "conv_n_blocks"),
        ({"mlp_ratio": 0}, "mlp_ratio"),
        ({"in_plane_mm": 1.5}, "in_plane_mm = 1.5.*whole number"),
        ({"in_plane_mm": 0.0}, "in_plane_mm"),
    ],
)
def test_impossible_architecture_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(BackboneConfig(), **change)


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"cinema-huge.*cinema-base, cinema-mini"):
        BackboneConfig.preset("cinema-huge")


def test_to_dict_is_json():
    values = BackboneConfig.preset("cinema-mini").to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["conv_chans"] == [16, 32]
