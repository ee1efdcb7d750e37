"""A head that is fitted to a few subjects and written into the network."""

import numpy as np
import pytest
import torch

from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import CohortError
from med_duallora.site.baseline import backbone_probabilities
from med_duallora.site.head import CORRECTION_C, correct_head, few, fit_head, margin_of, summaries_of
from med_duallora.site.prediction import predict
from tests.conftest import write_tiny_cohort
from tests.unit.tiny import shake
from tests.unit.trainee import trainee


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory):
    folder = write_tiny_cohort(tmp_path_factory.mktemp("head") / "ge", "ge", 5, 12, (10, 1, 1))
    return PreparedCohort.read(folder).subjects


@pytest.mark.parametrize("head_norm", ["site", "none"])
@pytest.mark.parametrize("policy", ["local", "shared", "global"])
def test_the_network_says_what_the_regression_says(subjects, policy: str, head_norm: str) -> None:
    made = trainee(f"lora.head_policy={policy}", f"lora.head_norm={head_norm}")
    model, source, settings = made.model, made.source, made.job.train
    shake(model)
    views = [summaries_of(model, source, subjects, view, precision="fp32") for view in (0, 1)]
    regression = fit_head(model, views, [subject.label for subject in subjects])
    seen = model.head_norm(torch.from_numpy(views[0])).numpy()
    expected = regression.predict_proba(seen)[:, 1]
    assert expected.std() > 0.01, "a constant would pass for anything"
    assert predict(model, source, subjects, settings) == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize("head_norm", ["site", "none"])
@pytest.mark.parametrize("policy", ["shared", "global"])
def test_a_correction_is_the_best_head_near_the_present_one(subjects, policy: str, head_norm: str) -> None:
    """Of the summed loss of balanced classes and the squared change, no head beside the found one has less."""
    made = trainee(f"lora.head_policy={policy}", f"lora.head_norm={head_norm}")
    model = made.model
    shake(model)
    truth = np.array([subject.label for subject in subjects] * 2) == 1
    views = [summaries_of(model, made.source, subjects, view, precision="fp32") for view in (0, 1)]
    weight, bias = margin_of(model)
    correct_head(model, views, [subject.label for subject in subjects])
    seen = model.head_norm(torch.from_numpy(np.concatenate(views))).double().numpy()

    def cost(new_weight: np.ndarray, new_bias: float) -> float:
        signed = np.where(truth, 1, -1) * (seen @ new_weight + new_bias)
        change = (new_weight - weight) * seen.std(0)
        shares = np.where(truth, truth.mean(), 1 - truth.mean())
        return float((np.logaddexp(0, -signed) / (2 * shares)).sum() + change @ change / (2 * CORRECTION_C))

    found = margin_of(model)
    assert cost(*found) < cost(weight, bias)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = 1e-4 * rng.standard_normal(len(weight)) / seen.std(0)
        assert cost(*found) < cost(found[0] + step, found[1] + 1e-2 * rng.standard_normal())


def test_a_strict_correction_moves_the_intercept_alone(subjects, monkeypatch) -> None:
    monkeypatch.setattr("med_duallora.site.head.CORRECTION_C", 1e-12)
    made = trainee("lora.head_policy=shared")
    shake(made.model)
    views = [summaries_of(made.model, made.source, subjects, view, precision="fp32") for view in (0, 1)]
    weight, bias = margin_of(made.model)
    correct_head(made.model, views, [subject.label for subject in subjects])
    after, new_bias = margin_of(made.model)
    assert after == pytest.approx(weight, abs=1e-5)
    assert abs(new_bias - bias) > 1e-3


def test_a_correction_of_no_head_is_a_ridge_regression(subjects, monkeypatch) -> None:
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr("med_duallora.site.head.CORRECTION_C", 0.1)
    made = trainee("lora.head_policy=shared")  # fresh: its head is zero
    labels = [subject.label for subject in subjects]
    views = [summaries_of(made.model, made.source, subjects, view, precision="fp32") for view in (0, 1)]
    correct_head(made.model, views, labels)
    seen = made.model.head_norm(torch.from_numpy(np.concatenate(views))).double().numpy()
    scaled = (seen - seen.mean(0)) / seen.std(0)
    ridge = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=10_000)
    expected = ridge.fit(scaled, labels * 2).predict_proba(scaled[: len(subjects)])[:, 1]
    assert predict(made.model, made.source, subjects, made.job.train) == pytest.approx(expected, abs=2e-3)


def test_without_an_adapter_it_is_the_baseline_of_the_evaluation(subjects) -> None:
    made = trainee()  # fresh: every B is zero
    model, source, settings = made.model, made.source, made.job.train
    train, test = subjects[:8], subjects[8:]
    expected = backbone_probabilities(model, source, train, test, settings)
    views = [summaries_of(model, source, train, view, precision="fp32") for view in range(settings.n_views + 1)]
    fit_head(model, views, [subject.label for subject in train])
    assert predict(model, source, test, settings) == pytest.approx(expected, rel=0, abs=1e-5)


def test_few_subjects_are_of_both_classes_whatever_their_order(subjects) -> None:
    chosen = few(subjects, 6, seed=0)
    assert [subject.label for subject in chosen].count(1) == 3
    assert {*few(subjects[::-1], 6, seed=0)} == {*chosen}
    assert {*few(subjects, 6, seed=1)} != {*chosen}
    assert few(subjects, None, seed=0) == subjects
    uneven = [*(s for s in subjects if s.label == 0), *[s for s in subjects if s.label == 1][:3]]
    assert sum(subject.label for subject in few(uneven, 8, seed=0)) == 3, "where a class is short, the other fills up"


def test_too_few_are_refused_with_their_number(subjects) -> None:
    normal = [subject for subject in subjects if subject.label == 0]
    with pytest.raises(CohortError, match=r"6 normal \(NOR\) and 0 diseased subjects.*at least 3 of each class"):
        few(normal, None, seed=0)
    with pytest.raises(CohortError, match="5 are asked for, and a head needs at least 3 of each class"):
        few(subjects, 5, seed=0)
    with pytest.raises(CohortError, match="fewer than the 13 asked for"):
        few(subjects, 13, seed=0)


@pytest.mark.parametrize("k", [6, 7, 10, 12])
def test_as_many_are_chosen_as_were_asked_for(subjects, k: int) -> None:
    chosen = few(subjects, k, seed=3)
    assert len({subject.subject for subject in chosen}) == k
    assert abs(2 * sum(subject.label for subject in chosen) - k) <= 1


def test_summaries_depend_on_the_view(subjects) -> None:
    made = trainee()
    first, second = (summaries_of(made.model, made.source, subjects[:3], view, precision="fp32") for view in (0, 1))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
