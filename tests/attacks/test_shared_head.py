"""What a curious server learns from the pair of a shared head, measured: what is open by design, and what closes it."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from med_duallora.boundary.contract import EgressContract, demands_of
from med_duallora.cohorts.prepared import PreparedCohort, PreparedSubject
from med_duallora.errors import ConfigError
from med_duallora.settings.policy import SitePolicy
from med_duallora.site.head import summaries_of
from tests.conftest import write_tiny_cohort
from tests.unit.trainee import JOB, trainee

HEADS = ("cls", "sax")
Vectors = dict[str, np.ndarray]
LEARNED = [
    (
        "the direction between the classes' mean features of a site, read from one round's update",
        "open, see docs/privacy.md; policy.head_leaves none refuses the job",
    ),
    (
        "which class a site has more of, read from the update along the mean feature",
        "the site's own standardisation (lora.head_norm) leaves nothing along it",
    ),
]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedSubject, ...]:
    folder = write_tiny_cohort(tmp_path_factory.mktemp("told") / "ge", "ge", 5, 32, (30, 1, 1))
    return PreparedCohort.read(folder).subjects


def one_round(subjects: Sequence[PreparedSubject], *settings: str) -> tuple[Vectors, np.ndarray]:
    """Return what the server gets of the heads' A after round 1, and what the heads read, which stays at the site."""
    site = trainee("train.batch_size=8", "train.n_views=0", *settings)
    read = summaries_of(site.model, site.source, subjects, 0, precision="fp32")
    site.train(subjects)
    sent = site.model.values(site.model.plan.sent)
    return {head: sent[f"classifier.pred_head_dict.{head}.global_a"][0] for head in HEADS}, read


def halves(vector: np.ndarray) -> Vectors:
    return dict(zip(HEADS, np.split(vector, 2), strict=True))


def between_the_classes(read: np.ndarray, labels: np.ndarray) -> Vectors:
    """Return how the classes' means differ, normal less diseased, in features that the site standardised."""
    standardised = (read - read.mean(axis=0)) / np.sqrt(read.var(axis=0) + 1e-5)
    return halves(standardised[labels == 0].mean(axis=0) - standardised[labels == 1].mean(axis=0))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_one_round_tells_how_the_classes_mean_features_differ(subjects: tuple[PreparedSubject, ...]) -> None:
    """So it is said in docs/privacy.md; a site to which this is too much sets ``head_leaves`` to ``none``."""
    labels = np.array([subject.label for subject in subjects])
    told, read = one_round(subjects)
    truth = between_the_classes(read, labels)
    exchanged = [dataclasses.replace(subject, label=1 - subject.label) for subject in subjects]
    other, _ = one_round(exchanged)
    for head in HEADS:
        assert cosine(told[head], truth[head]) > 0.7
        assert cosine(other[head], truth[head]) < -0.7, "it is the labels that it tells of"


@pytest.mark.parametrize(("n_normal", "n_diseased"), [(4, 12), (12, 4)])
def test_which_class_is_larger_is_told_without_the_sites_standardisation_only(
    subjects: tuple[PreparedSubject, ...], n_normal: int, n_diseased: int
) -> None:
    normal, diseased = ([subject for subject in subjects if subject.label == label] for label in (0, 1))
    chosen = [*normal[:n_normal], *diseased[:n_diseased]]
    unweighted = "train.class_weight_threshold=1000"
    sign = 1 if n_normal > n_diseased else -1
    plain, read = one_round(chosen, unweighted, "lora.head_norm=none")
    default, _ = one_round(chosen, unweighted)
    mean = halves(read.mean(axis=0))
    for head in HEADS:
        assert sign * cosine(plain[head], mean[head]) > 0.5, "the attack works where features are read as they are"
        assert abs(cosine(default[head], mean[head])) < 0.4


def test_a_site_that_lets_nothing_of_its_head_out_tells_neither() -> None:
    with pytest.raises(ConfigError, match=r"policy\.head_leaves"):
        SitePolicy(head_leaves="none").check_job(**demands_of(JOB, EgressContract.for_job(JOB)))
    kept = JOB.with_overrides(["lora.head_policy=local"])
    contract = EgressContract.for_job(kept)
    SitePolicy(head_leaves="none").check_job(**demands_of(kept, contract))
    assert not any("pred_head" in name for name in contract.tensors)
