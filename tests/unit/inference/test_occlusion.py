from collections.abc import Sequence

import numpy as np
import pytest

from med_duallora.backbone import BackboneConfig
from med_duallora.backbone.inputs import to_input
from med_duallora.inference.occlusion import occlusion, window_of


def scan(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (2, 24, 18, 3)).astype(np.uint8)


class Model:
    """Says how varied the voxels of one rectangle are, and counts what it was asked."""

    def __init__(self, rectangle: tuple[slice, slice]) -> None:
        self.rectangle = rectangle
        self.asked: list[int] = []

    def __call__(self, volumes: Sequence[np.ndarray]) -> np.ndarray:
        self.asked.append(len(volumes))
        assert all(volume.dtype == np.uint8 for volume in volumes)
        return np.array([volume[:, self.rectangle[0], self.rectangle[1]].std() / 255 for volume in volumes])


def test_only_the_part_that_the_model_looks_at_changes_anything() -> None:
    model = Model((slice(8, 16), slice(6, 12)))
    found = occlusion(model, scan(), grid=(3, 3))
    assert found.edges_x == (0, 8, 16, 24)
    assert found.edges_y == (0, 6, 12, 18)
    assert found.change[1, 1] < -0.2, "without its details"
    found.change[1, 1] = 0
    assert not found.change.any()


def test_all_slices_and_both_frames_are_blanked_and_keep_their_brightness() -> None:
    seen: list[np.ndarray] = []

    def model(volumes: Sequence[np.ndarray]) -> np.ndarray:
        seen.extend(volumes)
        return np.zeros(len(volumes))

    whole = scan()
    occlusion(model, whole, grid=(2, 2))
    first, blanked, *_ = seen
    assert (first == whole).all()
    part = blanked[:, :12, :9]
    assert (part == part[:, :1, :1]).all()
    assert np.abs(part[:, 0, 0] - whole[:, :12, :9].mean(axis=(1, 2))).max() <= 0.5
    assert (blanked[:, 12:] == whole[:, 12:]).all()
    assert (blanked[:, :, 9:] == whole[:, :, 9:]).all()


def test_the_window_is_divided_and_nothing_else() -> None:
    model = Model((slice(0, 4), slice(0, 18)))
    found = occlusion(model, scan(), window=(4, 20, 3, 15), grid=(2, 3))
    assert found.edges_x == (4, 12, 20)
    assert found.edges_y == (3, 7, 11, 15)
    assert not found.change.any(), "the model looks beside the window"


def test_the_model_is_asked_in_batches() -> None:
    model = Model((slice(0, 4), slice(0, 4)))
    occlusion(model, scan(), grid=(3, 3), n_together=4)
    assert model.asked == [1, 4, 4, 1]


@pytest.mark.parametrize(
    ("shape", "window", "grid"),
    [
        ((2, 24, 18), None, (2, 2)),
        ((2, 3, 18, 3), None, (4, 2)),
        ((2, 24, 18, 3), (0, 25, 0, 18), (2, 2)),
        ((2, 24, 18, 3), (-1, 20, 0, 18), (2, 2)),
        ((2, 24, 18, 3), (4, 5, 0, 18), (2, 2)),
        ((2, 24, 18, 3), None, (0, 2)),
    ],
)
def test_parts_that_are_not_there_are_refused(
    shape: tuple[int, ...], window: tuple[int, ...] | None, grid: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"shape|parts"):
        occlusion(Model((slice(0, 1), slice(0, 1))), np.zeros(shape, np.uint8), window, grid)


@pytest.mark.parametrize("preset", ["cinema-tiny", "cinema-mini", "cinema-base"])
@pytest.mark.parametrize("size", [(192, 192), (150, 200), (201, 129)])
def test_the_window_is_what_the_backbone_reads(preset: str, size: tuple[int, int]) -> None:
    backbone = BackboneConfig.preset(preset)
    volume = np.full((2, *size, 4), 9, np.uint8)
    x0, x1, y0, y1 = window_of(volume.shape, backbone)
    outside = volume.copy()
    outside[:, x0:x1, y0:y1] = 0
    assert not to_input(outside, backbone).any(), "nothing beside the window is read"
    for place in ((x0, y0), (x1 - 1, y1 - 1)):
        edge = np.zeros_like(volume)
        edge[:, place[0], place[1]] = 255
        assert to_input(edge, backbone).any(), "its corners are read"
