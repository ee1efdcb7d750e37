import dataclasses
import json

import pytest

from med_duallora.backbone import BackboneConfig
from tests.unit.refused import refused


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
    ("change", "limit"),
    [
        ({"n_heads": 7}, "a divisor of embed_dim 768"),
        ({"image_size": (190, 192, 16)}, "a multiple of the total reduction (16, 16, 1)"),
        ({"image_size": (192, 192)}, "three numbers of at least 1"),
        ({"patch_size": (4, 0, 1)}, "three numbers of at least 1"),
        ({"scale_factor": (2, 2)}, "three numbers of at least 1"),
        ({"conv_chans": ()}, "one positive number per convolutional stage"),
        ({"conv_chans": (16, 0)}, "one positive number per convolutional stage"),
        ({"embed_dim": 4, "n_heads": 2}, "at least 6 (sine and cosine of three axes)"),
        ({"depth": 0}, "at least 1"),
        ({"n_frames": 0}, "at least 1"),
        ({"in_chans": 0}, "at least 1"),
        ({"conv_n_blocks": 0}, "at least 1"),
        ({"mlp_ratio": 0}, "at least 1"),
        ({"in_plane_mm": 1.5}, "a whole number of at least 1 (prepared pixels are 1 mm)"),
        ({"in_plane_mm": 0.0}, "a whole number of at least 1 (prepared pixels are 1 mm)"),
    ],
)
def test_impossible_architecture_is_refused(change, limit):
    name, value = next(iter(change.items()))
    with refused(f"backbone.{name}", value, limit):
        dataclasses.replace(BackboneConfig(), **change)


def test_unknown_preset_lists_the_known_ones():
    with refused("backbone", "cinema-huge", "one of cinema-base, cinema-mini, cinema-tiny"):
        BackboneConfig.preset("cinema-huge")


def test_to_dict_is_json():
    values = BackboneConfig.preset("cinema-mini").to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["conv_chans"] == [16, 32]
