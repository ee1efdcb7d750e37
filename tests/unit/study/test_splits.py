from collections import Counter

import pytest

from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.errors import CohortError
from med_duallora.study.splits import Dealt, deal, names_in_one_place, permuted, rows_of, write


@pytest.fixture
def ge(tiny_cohorts):
    return tiny_cohorts["ge"]


def labels_of(dealt: Dealt, split: str) -> Counter:
    return Counter(row["label"] for row in dealt.rows if row["split"] == split)


def test_a_split_is_stratified_and_every_seed_has_its_own(ge):
    found = deal(ge, "ge", 6, None, 0)
    assert labels_of(found, "train") == {"0": 3, "1": 3}
    assert labels_of(found, "test") == {"0": 2, "1": 2}
    assert deal(ge, "ge", 6, None, 0) == found
    others = {deal(ge, "ge", 6, None, seed).named("train") for seed in range(5)}
    assert len(others) > 1
    assert deal(ge, "siemens", 6, None, 0) != found, "sites draw apart"


def test_fewer_test_subjects_can_be_asked_for(ge):
    found = deal(ge, "ge", 6, 2, 0)
    assert labels_of(found, "test") == {"0": 1, "1": 1}
    assert len(found.rows) == 8, "the others take no part"


def test_a_class_that_is_too_small_is_said(ge):
    with pytest.raises(CohortError, match=r"of 5 normal \(NOR\) subjects, 5 would be trained on and none tested"):
        deal(ge, "ge", 10, None, 0)


def test_permuted_labels_change_training_subjects_alone_and_keep_their_numbers(ge):
    plain = deal(ge, "ge", 6, None, 0)
    found = [permuted(plain, "ge", seed) for seed in range(6)]
    assert all(labels_of(one, "train") == labels_of(plain, "train") for one in found)
    assert len({tuple(row["label"] for row in one.rows) for one in found}) > 1
    for one in found:
        for before, after in zip(plain.rows, one.rows, strict=True):
            assert before == after or before["split"] == "train"
            assert (after["pathology"] == "NOR") == (after["label"] == "0"), "the diagnosis goes with its label"


def test_permuted_labels_of_other_subjects_are_dealt_in_another_order(ge):
    """Else a control over several federations of one cohort would be one permutation, as often right in each."""
    plain = deal(ge, "ge", 6, None, 0)
    others = [
        Dealt(plain.folder, tuple({**row, "subject": f"{name}{row['subject']}"} for row in plain.rows))
        for name in "abcdef"
    ]
    assert permuted(plain, "ge", 0) == permuted(plain, "ge", 0)
    assert len({tuple(row["label"] for row in permuted(one, "ge", 0).rows) for one in others}) > 1


def test_a_written_cohort_points_at_the_same_volumes(ge, tiny_cohorts, tmp_path):
    parts = {site: deal(tiny_cohorts[site], site, 6, None, 1) for site in ("ge", "canon")}
    names = names_in_one_place({**parts, "twin": parts["ge"]})
    assert names["canon", "canon000"] == "canon000"
    assert names["ge", "ge000"] == "ge.ge000", "two sites have this one"
    folder = write(list(parts.values()), tmp_path / "all", lambda part, name: f"x{name}" if part.folder == ge else name)
    found = PreparedCohort.read(folder)
    assert len(found.subjects) == 20
    (subject,) = [item for item in PreparedCohort.read(ge).subjects if item.subject == "ge003"]
    (linked,) = [item for item in found.subjects if item.subject == "xge003"]
    assert (load_volume(linked) == load_volume(subject)).all()
    assert {row["split"] for row in rows_of(folder)} == {"train", "test"}
