import pytest

from med_duallora.report.finished import Evaluation
from med_duallora.report.summary import (
    by_site,
    counts,
    extent,
    macro,
    macro_interval,
    pooled,
    pooled_counts,
)
from med_duallora.support.proportions import Counts
from tests.unit.report.conftest import evaluation as evaluation_record
from tests.unit.report.conftest import scores, site_evaluation


@pytest.fixture
def evaluation() -> Evaluation:
    record = evaluation_record()
    return Evaluation("best", None, record["sites"], {})


def test_macro_counts_every_site_the_same(evaluation: Evaluation) -> None:
    assert macro(evaluation, "both", "balanced_accuracy") == pytest.approx((1.0 + 0.75) / 2)


def test_pooled_counts_every_subject_the_same(evaluation: Evaluation) -> None:
    assert pooled_counts(evaluation, "both") == Counts(hits=6, n_positive=6, rejections=4, n_negative=6)
    assert pooled(evaluation, "both", "sensitivity") == 1.0
    assert pooled(evaluation, "both", "specificity") == pytest.approx(4 / 6)
    assert pooled(evaluation, "both", "balanced_accuracy") == pytest.approx((1 + 4 / 6) / 2)


def test_predictions_of_different_sites_are_never_ranked_together(evaluation: Evaluation) -> None:
    assert pooled(evaluation, "both", "auroc") is None


def test_the_worst_site_is_named(evaluation: Evaluation) -> None:
    found = extent(evaluation, "both", "balanced_accuracy")
    assert found is not None
    assert (found.where, found.worst, found.spread) == ("philips", 0.75, 0.25)


def test_equally_bad_sites_are_counted(evaluation: Evaluation) -> None:
    found = extent(evaluation, "backbone", "auroc")
    assert found is not None
    assert (found.where, found.spread) == ("2 sites", 0.0)


def test_an_undefined_score_is_left_out_not_taken_as_zero() -> None:
    one_class = site_evaluation((3, 0), both={"sensitivity": 2 / 3})
    both_classes = site_evaluation((2, 2), both=scores(1.0, 0.5, 0.8))
    found = Evaluation("last", None, {"ge": one_class, "canon": both_classes}, {})
    assert by_site(found, "both", "auroc") == {"canon": 0.8}
    assert macro(found, "both", "balanced_accuracy") == 0.75
    assert counts(one_class, "both") == Counts(hits=2, n_positive=3, rejections=0, n_negative=0)
    assert pooled(found, "both", "sensitivity") == pytest.approx(4 / 5)


def test_nothing_is_made_up_where_no_site_has_the_score() -> None:
    empty = Evaluation("last", None, {"ge": {}}, {})
    assert macro(empty, "both", "auroc") is None
    assert extent(empty, "both", "auroc") is None
    assert counts({}, "both") is None
    assert pooled(empty, "both", "sensitivity") is None
    assert counts({"n_positive": 2.0, "n_negative": 1.0, "both.sensitivity": 0.5}, "both") is None


def test_a_site_without_counts_leaves_the_mean_without_interval() -> None:
    known = {"both.balanced_accuracy": 0.75, "both.sensitivity": 1.0, "both.specificity": 0.5}
    counted = {**known, "n_positive": 4, "n_negative": 4}
    assert macro_interval(Evaluation("last", 0, {"a": counted}, {}), "both") is not None
    assert macro_interval(Evaluation("last", 0, {"a": counted, "b": known}, {}), "both") is None
    assert macro_interval(Evaluation("last", 0, {}, {}), "both") is None
