import dataclasses

import numpy as np
import pytest

from med_duallora.backbone import BackboneConfig, build_classifier
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import CohortError
from med_duallora.pretraining.probe import pooled_features, probe, probe_value


@pytest.fixture(scope="module")
def subjects(tiny_cohorts):
    return [subject for folder in tiny_cohorts.values() for subject in PreparedCohort.read(folder).subjects]


def test_features_are_cls_and_mean_patch_of_each_subject(subjects):
    config = BackboneConfig.preset("cinema-tiny")
    features = pooled_features(build_classifier(config).eval(), subjects[:3], "features")
    assert features.shape == (3, 2 * config.embed_dim)
    assert np.isfinite(features).all()


def test_informative_features_are_recognised_and_noise_is_not(subjects):
    labels = np.array([subject.label for subject in subjects])
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(subjects), 6))
    told = noise + 4 * labels[:, None]
    assert probe(told, subjects, seed=0).auroc == 1.0
    assert probe(told, subjects, seed=0).balanced_accuracy > 0.9
    assert np.mean([probe(noise, subjects, seed).auroc for seed in range(4)]) == pytest.approx(0.5, abs=0.25)


def test_probe_repeats(subjects):
    features = np.random.default_rng(1).normal(size=(len(subjects), 5))
    assert probe(features, subjects, 3) == probe(features, subjects, 3)


def test_linear_values_are_told_and_noise_is_not(subjects):
    rng = np.random.default_rng(2)
    features = rng.normal(size=(len(subjects), 4))
    assert probe_value(features, features @ np.arange(4.0), subjects, seed=0) > 0.9
    assert probe_value(features, rng.normal(size=len(subjects)), subjects, seed=0) < 0.5


def test_vendor_without_enough_subjects_of_a_label_is_refused(subjects):
    healthy = [dataclasses.replace(s, label=0) if s.vendor == "ge" else s for s in subjects]
    with pytest.raises(CohortError, match="ge has 0 subjects of label 1"):
        probe(np.zeros((len(subjects), 2)), healthy, seed=0)
