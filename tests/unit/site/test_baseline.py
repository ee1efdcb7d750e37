from dataclasses import replace

import numpy as np
import pytest
import torch

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import TrainingAborted
from med_duallora.settings.config import JobConfig, TrainConfig
from med_duallora.site.baseline import backbone_probabilities, pooled_features
from med_duallora.site.feature_cache import FeatureCache
from med_duallora.site.features import FeatureSource
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import TINY, shake, tiny_model

JOB = JobConfig(backbone="cinema-tiny")
ONE_VIEW = TrainConfig(n_views=0)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    folder = write_tiny_cohort(tmp_path_factory.mktemp("cohort") / "ge", "ge", 3, n_subjects=10)
    return PreparedCohort.read(folder).subjects


def source_of(drop_path: float = 0.0) -> FeatureSource:
    return FeatureSource(tiny_model(drop_path=drop_path), JOB, "0" * 64, None)


def probabilities(source, train, test, settings=ONE_VIEW, **options):
    return backbone_probabilities(source.model, source, train, test, settings, **options)


def test_a_head_on_frozen_features_learns_what_they_show(subjects):
    source = source_of()
    train, test = subjects[:6], subjects[6:]
    found = probabilities(source, train, test)
    labels = np.array([subject.label for subject in test])
    assert found.shape == (4,)
    assert ((found >= 0) & (found <= 1)).all()
    assert found[labels == 1].min() > found[labels == 0].max(), "the discs contract differently, and that is plain"
    flipped = [replace(subject, label=1 - subject.label) for subject in train]
    assert np.allclose(probabilities(source, flipped, test), 1 - found, atol=1e-6), "it learns from the labels alone"


def test_the_baseline_sees_neither_adapters_nor_heads_nor_stochastic_depth(subjects):
    source = source_of(drop_path=0.5)
    expected = probabilities(source, subjects[:6], subjects[6:])
    shake(source.model)
    source.model.train()
    assert np.array_equal(probabilities(source, subjects[:6], subjects[6:]), expected)
    layers = [module for module in source.model.modules() if hasattr(module, "global_active")]
    assert all(layer.global_active and layer.local_active for layer in layers), "the adapters are on again"


def test_features_are_the_class_token_and_the_mean_patch_token(subjects):
    source = source_of()
    found = pooled_features(source.model, source, subjects[:2], 0)
    with torch.no_grad():
        cls, patches = source.model.features(source.batch(subjects[:2], [0, 0]))
    assert found.shape == (2, 2 * TINY.embed_dim)
    assert np.allclose(found[:, : TINY.embed_dim], cls[:, 0], atol=1e-6)
    assert np.allclose(found[:, TINY.embed_dim :], patches.mean(1), atol=1e-6)


def test_the_head_is_fitted_on_every_view_of_the_adapters_training(subjects, monkeypatch):
    seen = []
    plain = FeatureSource.batch

    def watched(self, chosen, views, should_stop):
        seen.append((chosen[0].subject, views[0]))
        return plain(self, chosen, views, should_stop)

    monkeypatch.setattr(FeatureSource, "batch", watched)
    probabilities(source_of(), subjects[:4], subjects[6:8], TrainConfig(n_views=2))
    train = [(subject.subject, view) for view in range(3) for subject in subjects[:4]]
    assert seen == train + [(subject.subject, 0) for subject in subjects[6:8]]


def test_without_test_subjects_there_is_nothing_to_say(subjects):
    assert probabilities(source_of(), subjects[:6], []).shape == (0,)


def test_it_can_be_stopped(subjects):
    asked = iter([False, False, True])
    with pytest.raises(TrainingAborted):
        probabilities(source_of(), subjects[:6], subjects[6:], should_stop=lambda: next(asked))


def test_what_the_frozen_backbone_says_is_computed_once(subjects, tmp_path):
    """With a cache, also by another job on the same backbone; never by a model whose tail is another one."""

    def source() -> FeatureSource:
        return FeatureSource(tiny_model(), JOB, "0" * 64, FeatureCache(tmp_path / "cache", 2**24, b"s" * 32))

    plain, first, again, other = source_of(), source(), source(), source()
    expected = pooled_features(plain.model, plain, subjects[:2], 0)
    assert np.array_equal(pooled_features(first.model, first, subjects[:2], 0), expected)
    shake(again.model)
    assert np.array_equal(pooled_features(again.model, again, subjects[:2], 0), expected), "adapters are not in it"
    assert (again.cache.n_hits, again.cache.n_misses) == (2, 0)
    norm = next(part for part in other.model.classifier.blocks[-1].modules() if isinstance(part, torch.nn.LayerNorm))
    norm.weight.data.mul_(1.5)
    assert not np.allclose(pooled_features(other.model, other, subjects[:2], 0), expected)
    with pytest.raises(TrainingAborted):
        source().summary(subjects[0], 0, "any", lambda: True)
