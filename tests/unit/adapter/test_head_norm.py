from dataclasses import replace

import numpy as np
import pytest
import torch

from med_duallora.adapter.head_norm import HeadNorm
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.settings.config import LoRAConfig
from med_duallora.site.prediction import fit_head_norm
from tests.unit.tiny import shake, tiny_images, tiny_model
from tests.unit.trainee import predicted, trainee


@pytest.fixture
def summaries() -> torch.Tensor:
    """Features that vary by a hundredth of their mean, as pooled features of a masked autoencoder do."""
    generator = torch.Generator().manual_seed(0)
    return 1 + 0.01 * torch.randn(12, 6, generator=generator)


def test_training_standardises_over_the_batch(summaries):
    found = HeadNorm(6, active=True).train()(summaries)
    assert found.mean(0).abs().max() < 1e-4
    assert ((found.std(0, correction=0) - 1).abs() < 0.1).all()


def test_evaluation_uses_the_fitted_statistics(summaries):
    norm = HeadNorm(6, active=True).eval()
    norm.fit(summaries[:8])
    expected = (summaries - summaries[:8].mean(0)) / torch.sqrt(summaries[:8].var(0, correction=0) + 1e-5)
    assert torch.allclose(norm(summaries), expected, atol=1e-4)
    assert torch.equal(norm(summaries[:1]), norm(summaries)[:1]), "a subject's value does not depend on the others"


def test_with_labels_zero_lies_between_the_classes_however_many_subjects_each_has(summaries):
    labels = torch.tensor([1] * (len(summaries) - 3) + [0] * 3)
    norm = HeadNorm(summaries.shape[1], active=True).eval()
    norm.fit(summaries, labels)
    standard = norm(summaries)
    assert torch.allclose(standard[labels == 0].mean(0), -standard[labels == 1].mean(0), atol=1e-3)
    plain = HeadNorm(summaries.shape[1], active=True).eval()
    plain.fit(summaries)
    assert torch.equal(norm.scale, plain.scale)
    assert not torch.allclose(norm.mean, plain.mean)
    norm.fit(summaries, torch.ones(len(summaries)))  # one class alone has no other side
    assert torch.allclose(norm.mean, plain.mean, atol=1e-6)


def test_evaluation_before_a_fit_changes_no_bit(summaries):
    assert torch.equal(HeadNorm(6, active=True).eval()(summaries), summaries)


def test_inactive_changes_nothing(summaries):
    norm = HeadNorm(6, active=False).train()
    norm.fit(summaries)
    assert torch.equal(norm(summaries), summaries)
    assert torch.equal(norm.eval()(summaries), summaries)


def test_a_constant_feature_stays_finite(summaries):
    summaries[:, 2] = 3.0
    assert torch.isfinite(HeadNorm(6, active=True).train()(summaries)).all()
    assert torch.isfinite(HeadNorm(6, active=True).train()(summaries[:1])).all(), "a batch of one"


def test_statistics_are_neither_sent_nor_kept():
    model = tiny_model()
    assert not list(model.head_norm.parameters())
    assert not [name for name in model.state_dict() if "head_norm" in name]


def test_the_plain_head_is_that_of_cinema():
    model = tiny_model(LoRAConfig(head_norm="none"))
    shake(model)
    x = tiny_images(4)
    with torch.no_grad():
        plain = model.classifier.head(*model.features(model.trunk(x)))
        assert torch.equal(model(x), plain)
        model.train()
        assert torch.equal(model(x), plain), "the plain head sees no batch"


def test_predictions_rest_on_the_reference_alone(tiny_cohorts):
    cohort = PreparedCohort.read(tiny_cohorts["philips"])
    train, test = cohort.split("train"), cohort.split("test")
    it = trainee()
    shake(it.model)
    found = predicted(it.model, it.source, test, it.job.train, reference=train)
    alone = predicted(it.model, it.source, test[:1], it.job.train, reference=train)
    assert np.allclose(found[:1], alone, atol=1e-6)
    other = predicted(it.model, it.source, test, it.job.train, reference=train[: len(train) // 2])
    assert not np.allclose(found, other), "other training subjects, other statistics"


@pytest.mark.parametrize(("n_normal", "counts"), [(2, False), (3, True)])
def test_a_class_of_one_or_two_people_moves_nothing(summaries, n_normal, counts):
    """Half of the centre would be what one person looks like."""
    labels = torch.ones(len(summaries), dtype=torch.long)
    labels[:n_normal] = 0
    plain, centred = HeadNorm(summaries.shape[1], active=True), HeadNorm(summaries.shape[1], active=True)
    plain.fit(summaries)
    centred.fit(summaries, labels)
    assert torch.equal(plain.mean, centred.mean) is not counts


@pytest.mark.parametrize("labelled", [True, False])
def test_labels_count_where_they_shall(labelled, tiny_cohorts):
    train = PreparedCohort.read(tiny_cohorts["philips"]).split("train")
    others = [replace(subject, label=int(row == 0)) for row, subject in enumerate(train)]
    it, means = trainee(), []
    shake(it.model)
    for subjects in (train, others):
        fit_head_norm(it.model, it.source, subjects, it.job.train, labelled=labelled)
        means.append(it.model.head_norm.mean.clone())
    assert torch.equal(means[0], means[1]) is not labelled


def test_every_variant_has_statistics_of_its_own(tiny_cohorts):
    train = PreparedCohort.read(tiny_cohorts["philips"]).split("train")
    it = trainee()
    shake(it.model)
    predicted(it.model, it.source, train, it.job.train, reference=train)
    both = it.model.head_norm.mean.clone()
    with it.model.using(False, False):
        predicted(it.model, it.source, train, it.job.train, reference=train)
    assert not torch.allclose(both, it.model.head_norm.mean)


def test_statistics_come_back_as_they_were() -> None:
    fitted, other = HeadNorm(3, active=True).eval(), HeadNorm(3, active=True).eval()
    fitted.fit(torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 7.0]]))
    other.use(fitted.statistics())
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(other(x), fitted(x))
    assert HeadNorm(3, active=False).statistics() == {}


@pytest.mark.parametrize(
    ("active", "statistics"),
    [
        (True, {}),
        (True, {"mean": np.zeros(3, np.float32)}),
        (True, {"mean": np.zeros(2, np.float32), "scale": np.ones(2, np.float32)}),
        (False, {"mean": np.zeros(3, np.float32), "scale": np.ones(3, np.float32)}),
    ],
)
def test_statistics_of_another_head_are_refused(active: bool, statistics: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="statistics of another head"):
        HeadNorm(3, active=active).use(statistics)
