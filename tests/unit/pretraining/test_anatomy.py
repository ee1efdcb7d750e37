import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from med_duallora.backbone import BackboneConfig, build_classifier, load_classifier
from med_duallora.cohorts.phantom.truth import TARGETS
from med_duallora.errors import ArtifactError, CheckpointError, CohortError
from med_duallora.pretraining import loop
from med_duallora.pretraining.anatomy import AnatomyConfig, AnatomyRegressor, AnatomyTrainer, learn_anatomy
from med_duallora.pretraining.anatomy_pool import MARGIN, AnatomyPool
from med_duallora.pretraining.appearance import AppearanceConfig
from med_duallora.pretraining.export import export
from med_duallora.pretraining.label_maps import N_MAPS, START_LOGIT
from med_duallora.pretraining.marks import MARKS
from med_duallora.pretraining.run import PretrainConfig, pretrain
from tests.unit.refused import refused
from tests.unit.truths import truth_of

SMALL = BackboneConfig.preset("cinema-tiny")
TINY = AnatomyConfig(preset="cinema-tiny", n_steps=6, batch_size=4, lr=3e-3)
NO_CHANGE = AppearanceConfig(
    rotation_degrees=0, shift=0, gamma=0, field=0, noise=0, blur=0, bend=0, texture=0, tissue=0
)
N = 40


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def discs() -> AnatomyPool:
    """Forty subjects with a bright disc, the left ventricle, whose radii decide all values."""
    rng = np.random.default_rng(0)
    width = int(MARGIN * SMALL.image_size[0])
    x, y = np.mgrid[:width, :width] - (width - 1) / 2
    volumes, values = [], []
    for _ in range(N):
        radii = rng.uniform(4, 10), rng.uniform(3, 6)
        frames = [np.where(np.hypot(x, y) < radius, 200, 30) for radius in radii]
        volumes.append(np.stack([np.repeat(f[..., None], 5, 2) for f in frames]).astype(np.uint8))
        values.append([np.log(radii[i % 2]) for i in range(len(TARGETS))])
    maps = tuple((3 * (volume > 100)).astype(np.uint8) for volume in volumes)
    return AnatomyPool(tuple(volumes), np.array(values, np.float32), "0" * 64, maps)


def test_the_pool_keeps_a_margin_around_the_backbones_image(mapped_cohort, tmp_path):
    path = truth_of(mapped_cohort, tmp_path / "truth.csv")
    pool = AnatomyPool.load(mapped_cohort, path, SMALL)
    assert {volume.shape[:3] for volume in pool.volumes} == {(2, *(int(MARGIN * n) for n in SMALL.image_size[:2]))}
    again = truth_of(mapped_cohort, tmp_path / "again.csv", 11.0)
    assert AnatomyPool.load(mapped_cohort, again, SMALL).content != pool.content
    assert [maps.shape for maps in pool.maps] == [volume.shape for volume in pool.volumes]
    assert AnatomyPool.load(mapped_cohort, path, SMALL, with_maps=False).maps == ()


def test_an_unchanged_view_is_what_the_classifier_reads(mapped_cohort, tmp_path):
    from med_duallora.backbone.inputs import to_input
    from med_duallora.cohorts.prepared import PreparedCohort, load_volume

    subjects = PreparedCohort.read(mapped_cohort).subjects
    path = truth_of(mapped_cohort, tmp_path / "truth.csv")
    pool = AnatomyPool.load(mapped_cohort, path, SMALL)
    trainer = AnatomyTrainer(dataclasses.replace(TINY, appearance=NO_CHANGE), pool)
    changed, maps = trainer.view(0, np.random.default_rng(0))
    view = changed.numpy()
    read = to_input(load_volume(subjects[0]), SMALL)
    assert view.shape == read.shape
    assert np.abs(view - read).max() < 0.01
    assert maps.shape == (N_MAPS, *SMALL.image_size)
    for frame in range(2):  # what is bright was called heart: the maps lie on their images
        heart = maps[3 * frame : 3 * frame + 3].sum(0).numpy()
        assert view[frame][heart > 0.9].mean() > view[frame][heart < 0.1].mean() + 0.3


def test_held_out_subjects_are_spread_over_the_pool_and_never_trained_on(discs):
    train, held_out = discs.split()
    assert held_out == [9, 19, 29, 39]
    assert sorted(train + held_out) == list(range(N))


@pytest.mark.parametrize(("n_subjects", "n_held_out"), [(4, 2), (5, 2), (20, 4), (100, 5), (1600, 80), (5000, 79)])
def test_how_many_subjects_are_held_out(discs, n_subjects, n_held_out):
    pool = dataclasses.replace(discs, volumes=discs.volumes[:1] * n_subjects)
    train, held_out = pool.split()
    assert (len(train), len(held_out)) == (n_subjects - n_held_out, n_held_out)


def test_values_are_standardised_by_those_that_are_trained_on(discs):
    values = np.concatenate([discs.values[:, :-1], np.ones((N, 1), np.float32)], axis=1)
    trainer = AnatomyTrainer(TINY, dataclasses.replace(discs, values=values))
    trained = trainer.values[trainer.train]
    n_targets = len(TARGETS)
    assert trained.shape[1] == n_targets * (1 + len(MARKS))
    assert torch.allclose(trained.mean(0), torch.zeros(trained.shape[1]), atol=1e-5)
    # a value that all subjects share cannot be scaled, and neither can its nearness to marks
    varying = torch.arange(trained.shape[1]) % n_targets != n_targets - 1
    assert torch.allclose(trained.std(0, unbiased=False)[varying], torch.ones(int(varying.sum())), atol=1e-4)
    assert float(trained[:, ~varying].abs().max()) < 1e-5


def test_radii_of_discs_it_never_saw_are_learned(discs, tmp_path):
    config = dataclasses.replace(TINY, n_steps=120, batch_size=8, appearance=NO_CHANGE, map_weight=0, dropout=0)
    curve = learn_anatomy(config, discs, tmp_path / "run.safetensors", say=silent).curve
    assert curve[-1]["held_out_loss"] < 0.6 * curve[0]["held_out_loss"]
    assert curve[-1]["R2 lv_edv"] > 0.5


def test_maps_of_discs_it_never_saw_are_learned(discs, tmp_path):
    config = dataclasses.replace(TINY, n_steps=60, batch_size=8, appearance=NO_CHANGE)
    curve = learn_anatomy(config, discs, tmp_path / "run.safetensors", say=silent).curve
    assert curve[-1]["maps"] < 0.5 * curve[0]["maps"]


def test_without_a_weight_maps_are_neither_needed_nor_predicted(discs, tmp_path):
    config = dataclasses.replace(TINY, map_weight=0.0)
    state = learn_anatomy(config, dataclasses.replace(discs, maps=()), tmp_path / "run.safetensors", say=silent)
    assert not any(name.startswith("anatomy_maps") for name in state.weights)
    assert "maps" not in state.curve[-1]


def test_features_are_left_out_at_random_and_keep_their_mean(discs):
    trainer = AnatomyTrainer(dataclasses.replace(TINY, batch_size=100, dropout=0.25), discs)
    seen = trainer.seen(3)
    assert seen.shape == (100, 2 * SMALL.embed_dim)
    assert sorted(set(seen.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert float(seen.mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(seen, trainer.seen(3))
    assert not torch.equal(seen, trainer.seen(4))
    x = torch.rand(100, 2, *SMALL.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert not torch.allclose(trainer.model(x, seen)[0], trainer.model(x)[0])
    assert AnatomyTrainer(dataclasses.replace(TINY, dropout=0), discs).seen(0) is None


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_an_impossible_dropout_is_refused(dropout):
    with refused("pretrain.dropout", limit="at least 0 and below 1"):
        dataclasses.replace(TINY, dropout=dropout)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), 1e4])
def test_an_impossible_weight_is_refused(weight):
    with refused("pretrain.map_weight", limit="between 0 and 1000"):
        dataclasses.replace(TINY, map_weight=weight)


def test_log_lines_name_the_targets(discs, tmp_path):
    lines: list[str] = []
    curve = learn_anatomy(TINY, discs, tmp_path / "run.safetensors", say=lines.append).curve
    assert all(f"R2 {name}" in lines[0] and f"R2 {name}" in curve[0] for name in TARGETS)


def test_regressor_sees_what_the_classifier_sees():
    regressor, classifier = AnatomyRegressor(SMALL), build_classifier(SMALL, seed=5)
    regressor.start_from(classifier)
    x = torch.rand(2, 2, *SMALL.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        cls, patches = classifier.features(x)
        expected = regressor.anatomy_head(torch.cat([cls[:, 0], patches.mean(1)], 1))
        values, maps = regressor(x)
        assert torch.allclose(values, expected, atol=1e-5)
        assert torch.equal(maps, torch.full_like(maps, START_LOGIT))
        assert AnatomyRegressor(SMALL, with_maps=False)(x)[1] is None


def test_every_weight_is_trained(discs):
    trainer = AnatomyTrainer(TINY, discs)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    for step in range(2):
        loop.do_step(trainer, step)
    assert [name for name, p in trainer.model.named_parameters() if torch.equal(p, before[name])] == []


def test_same_seed_gives_the_same_weights(discs, tmp_path):
    weights = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        weights.append(learn_anatomy(TINY, discs, tmp_path / "run.safetensors", say=silent).weights)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    other = learn_anatomy(dataclasses.replace(TINY, seed=1), discs, tmp_path / "run.safetensors", say=silent).weights
    assert not torch.equal(other["anatomy_head.weight"], weights[0]["anatomy_head.weight"])


class Interrupted(Exception):
    pass


def test_resumed_run_ends_with_the_uninterrupted_runs_weights_and_curve(discs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_INTERVAL_S", -1.0)
    whole = learn_anatomy(TINY, discs, tmp_path / "whole.safetensors", say=silent)
    path, lines = tmp_path / "cut.safetensors", []

    def say(line):
        if len(lines) == 3:
            raise Interrupted
        lines.append(line)

    with pytest.raises(Interrupted):
        learn_anatomy(TINY, discs, path, say=say)
    resumed = learn_anatomy(TINY, discs, path, resume=True, say=silent)
    assert resumed.curve == whole.curve
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in whole.weights.items())


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"init_sha256": "f" * 64}, {"appearance": AppearanceConfig(noise=0)}])
def test_run_of_another_recipe_is_not_resumed(discs, tmp_path, change):
    path = tmp_path / "run.safetensors"
    learn_anatomy(TINY, discs, path, say=silent)
    with pytest.raises(ArtifactError, match="another recipe"):
        learn_anatomy(dataclasses.replace(TINY, **change), discs, path, resume=True, say=silent)


def test_three_subjects_are_too_few(discs, tmp_path):
    few = AnatomyPool(discs.volumes[:3], discs.values[:3], discs.content, discs.maps[:3])
    with pytest.raises(CohortError, match="too few"):
        learn_anatomy(TINY, few, tmp_path / "run.safetensors", say=silent)


@pytest.fixture
def start(pool, tmp_path):
    """What a masked autoencoder left, with its manifest."""
    config = PretrainConfig(preset="cinema-tiny", n_steps=2, batch_size=2)
    state = pretrain(config, pool, tmp_path / "mae.run.safetensors", say=silent)
    export(tmp_path / "mae.safetensors", config, pool, state, "phantoms without labels")
    return tmp_path / "mae.safetensors"


def test_a_run_starts_from_a_masked_autoencoder(discs, start):
    weights = AnatomyTrainer(TINY, discs, start).model.state_dict()
    stored = load_file(start)
    assert torch.equal(weights["encoder.blocks.0.attn.q.weight"], stored["encoder.blocks.0.attn.q.weight"].float())


def test_a_start_of_another_architecture_is_refused(discs, start):
    with pytest.raises(CheckpointError, match="does not fit"):
        AnatomyTrainer(dataclasses.replace(TINY, preset="cinema-mini"), discs, start)


def test_checkpoint_and_manifest_say_where_they_come_from(discs, start, tmp_path):
    config = dataclasses.replace(TINY, n_steps=2, init_sha256="0" * 64)
    state = learn_anatomy(config, discs, tmp_path / "run.safetensors", say=silent, init=start)
    out = tmp_path / "w.safetensors"
    manifest = export(out, config, discs, state, "phantoms of a test", init=start)
    assert json.loads(out.with_suffix(".json").read_text()) == manifest
    assert manifest["objective"].startswith("anatomy (lv_edv, ")
    assert "label maps" in manifest["objective"]
    assert manifest["command"].startswith(
        "med-duallora pretrain --data DATA --out OUT --truth TRUTH --init INIT --map-weight 1 --backbone cinema-tiny "
        "--steps 2"
    )
    origin = json.loads(start.with_suffix(".json").read_text())
    assert manifest["init"] == {key: origin[key] for key in ("objective", "sha256", "command", "data")}
    assert str(tmp_path) not in json.dumps(manifest)
    assert out.with_suffix(".png").is_file()
    start.with_suffix(".json").write_text("{}")
    assert export(out, config, discs, state, "", init=start)["init"] == {"sha256": origin["sha256"]}
    start.with_suffix(".json").unlink()
    assert export(out, config, discs, state, "", init=start)["init"] == {"sha256": origin["sha256"]}


def test_classifier_loads_what_was_exported(discs, tmp_path):
    state = learn_anatomy(TINY, discs, tmp_path / "run.safetensors", say=silent)
    export(tmp_path / "w.safetensors", TINY, discs, state, "phantoms of a test")
    model = load_classifier(tmp_path / "w.safetensors", SMALL)
    for name in ("encoder.cls_token", "enc_down_dict.sax.conv_blocks.0.patch_embed.conv.weight"):
        assert torch.equal(model.state_dict()[name], state.weights[name].half().float())
