import numpy as np
import pytest
import torch

from med_duallora.backbone import BackboneConfig
from med_duallora.backbone.layers import patchify
from med_duallora.cohorts.nifti import read_nifti, write_nifti
from med_duallora.cohorts.prepared import PreparedCohort, label_path, load_volume
from med_duallora.errors import CohortError
from med_duallora.pretraining.label_maps import (
    N_MAPS,
    START_LOGIT,
    entropy_of,
    in_cells,
    map_error,
    map_head,
    one_hot,
    small_label_maps,
)

SMALL = BackboneConfig.preset("cinema-tiny")
MINI = BackboneConfig.preset("cinema-mini")


@pytest.fixture
def subject(mapped_cohort):
    return PreparedCohort.read(mapped_cohort).subjects[0]


def test_maps_are_the_nearest_labels_on_the_backbones_grid(subject):
    maps = small_label_maps(subject, load_volume(subject).shape, MINI)
    n_frames, nx, ny, nz = load_volume(subject).shape
    assert maps.shape == (n_frames, -(-nx // 2), -(-ny // 2), nz)
    assert maps.dtype == np.uint8
    assert set(np.unique(maps)) == {0, 1, 2, 3}


def test_one_map_per_label_and_frame():
    labels = np.zeros((2, 4, 4, 1), np.uint8)
    labels[0, 0, 0], labels[0, 1, 1], labels[1, 2, 2] = 1, 3, 2
    maps = one_hot(labels)
    assert maps.shape == (N_MAPS, 4, 4, 1)
    assert maps.sum(dim=(1, 2, 3)).tolist() == [1, 0, 1, 0, 1, 0]
    assert maps[2, 1, 1, 0] == 1  # left ventricle at ED


@pytest.mark.parametrize("config", [SMALL, MINI], ids=["cinema-tiny", "cinema-mini"])
def test_cells_lie_in_the_token_of_their_place(config):
    """One voxel at a time: the token is the one whose patch of the image holds the voxel."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        place = [int(rng.integers(n)) for n in config.image_size]
        maps = torch.zeros(1, N_MAPS, *config.image_size)
        channel = int(rng.integers(N_MAPS))
        maps[0, channel, place[0], place[1], place[2]] = 1
        cells = in_cells(maps, config)
        assert cells.shape == (1, config.n_tokens, map_head(config).out_features)
        image = patchify(maps.permute(0, 2, 3, 4, 1), config.reduction).flatten(1, 3)
        token, value = (int(i) for i in cells[0].nonzero()[0])
        assert token == int(image[0].nonzero()[0][0])
        assert value % N_MAPS == channel
        assert float(cells.sum()) == 0.25  # a cell has four voxels


def test_a_head_says_the_same_everywhere_at_first():
    said = map_head(SMALL)(torch.rand(2, SMALL.n_tokens, SMALL.embed_dim))
    assert torch.equal(said, torch.full_like(said, START_LOGIT))


def test_whoever_knows_the_mean_shares_alone_has_an_error_of_one():
    shares = (torch.rand(3, 4, 5 * N_MAPS, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    means = shares.reshape(-1, N_MAPS).mean(0)
    entropy = entropy_of(means)
    logits = torch.logit(means).repeat(5).expand_as(shares)
    assert torch.allclose(map_error(logits, shares, entropy), torch.ones(N_MAPS), atol=1e-5)
    assert float(map_error(40 * (shares - 0.5), shares, entropy).max()) < 1e-6
    assert torch.isfinite(entropy_of(torch.tensor([0.0, 1.0]))).all()


def test_a_damaged_label_map_is_named(subject):
    path = label_path(subject.es_path)
    image = read_nifti(path)
    for data, said in (
        (image.data + np.uint8(4), "holds the label"),
        (image.data[..., :-1], "has shape"),
        (image.data.astype(np.float32), "prepared volume holds uint8"),
    ):
        write_nifti(path, data, image.affine)
        with pytest.raises(CohortError, match=said) as error:
            small_label_maps(subject, load_volume(subject).shape, SMALL)
        assert path.name in str(error.value)
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))
    with pytest.raises(CohortError) as error:
        small_label_maps(subject, load_volume(subject).shape, SMALL)
    assert "without a segmentation" not in str(error.value), (
        "a link that leads nowhere is not a map that was never made"
    )
    path.unlink()
    with pytest.raises(CohortError, match="without a segmentation"):
        small_label_maps(subject, load_volume(subject).shape, SMALL)


def test_maps_of_another_heart_are_refused(subject):
    """One by one they would pass: of another size, of no heart, ED and ES confused."""
    ed, es = (label_path(path) for path in (subject.ed_path, subject.es_path))
    images = {path: read_nifti(path) for path in (ed, es)}
    shape = load_volume(subject).shape

    def refused(said, changed):
        for path, data in changed.items():
            write_nifti(path, data, images[path].affine)
        with pytest.raises(CohortError, match=said):
            small_label_maps(subject, shape, SMALL)
        for path, image in images.items():
            write_nifti(path, image.data, image.affine)

    refused("have the shape", {path: image.data[10:] for path, image in images.items()})
    refused(
        r"_ed_gt\.nii\.gz holds no right ventricle and no wall",
        {ed: np.where(images[ed].data == 3, 3, 0).astype(np.uint8)},
    )
    refused("holds a larger left ventricle than .*: ED and ES are confused", {ed: images[es].data, es: images[ed].data})
    small_label_maps(subject, shape, SMALL)
