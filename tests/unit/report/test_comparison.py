from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.report import read_run
from med_duallora.report.comparison import Comparison, compare, compare_at
from med_duallora.report.content import build
from med_duallora.report.finished import Evaluation, Run, SitePredictions
from med_duallora.report.headline import headline
from med_duallora.report.joining import choice_table, comparison_table
from med_duallora.report.tables import result_tables
from med_duallora.support.proportions import difference_interval, mean_interval, wilson_interval
from tests.unit.report.conftest import scores, site_evaluation


@pytest.fixture
def run(server: Path) -> Run:
    return read_run(server)


def of(run: Run, **sites: dict[str, float]) -> Run:
    return replace(run, evaluation=Evaluation("last", 0, sites, {}))


@pytest.mark.parametrize(
    ("interval", "word"),
    [
        pytest.param((0.01, 0.3), "gain shown", id="above 0"),
        pytest.param((-0.03, 0.31), "no gain shown", id="0 inside: no gain, however large the difference"),
        pytest.param((0.0, 0.3), "no gain shown", id="0 at its edge"),
        pytest.param((-0.3, -0.01), "loss shown", id="below 0"),
    ],
)
def test_the_word_comes_from_the_interval(interval: tuple[float, float], word: str) -> None:
    assert Comparison(0.14, *interval, is_paired=True).word == word
    assert Comparison(0.14, -0.03, 0.31, is_paired=True).text == "+0.14 (-0.03 to +0.31)"


def test_a_site_without_predictions_is_compared_by_its_counts(run: Run) -> None:
    found = compare_at(run, "siemens", "both", "backbone")  # 4 of 4 and 2 of 2 right, against 2 of 4 and 1 of 2
    assert found is not None
    parts = []
    for ours, theirs, n in ((4, 2, 4), (2, 1, 2)):
        estimates = [(hits / n, *wilson_interval(hits, n)) for hits in (ours, theirs)]
        parts.append((0.5, *difference_interval(estimates[0], estimates[1])))
    assert found.gain == 0.5
    assert (found.low, found.high) == pytest.approx(mean_interval(parts))
    assert not found.is_paired


def test_the_mean_counts_every_site_the_same(run: Run) -> None:
    sites = [compare_at(run, site, "both", "local") for site in ("siemens", "philips")]
    found = compare(run, "both", "local")
    assert found is not None
    assert found.gain == pytest.approx(sum(item.gain for item in sites if item) / 2)
    assert found.high - found.low < min(item.high - item.low for item in sites if item)


def test_the_same_answers_are_no_difference(run: Run) -> None:
    """Both models miss the same two of four diseased subjects, and the same one of two normal ones."""
    right = (True, True, False, False, True, False)
    kept = SitePredictions((1, 1, 1, 1, 0, 0), {"both": right, "backbone": right})
    half = site_evaluation((4, 2), both=scores(0.5, 0.5, 0.5), backbone=scores(0.5, 0.5, 0.5))
    alone = of(run, siemens=half)
    unpaired = compare(alone, "both", "backbone")
    paired = compare(replace(alone, predictions={"siemens": kept}), "both", "backbone")
    assert unpaired is not None and paired is not None
    assert (paired.gain, paired.low, paired.high) == pytest.approx((0, 0, 0), abs=1e-9)
    assert unpaired.low < -0.3
    assert paired.is_paired


@pytest.mark.parametrize(
    ("site", "why"),
    [
        ({}, "no score"),
        ({"both.balanced_accuracy": 0.8, "backbone.balanced_accuracy": 0.5}, "no counts"),
        (site_evaluation((3, 0), both={"sensitivity": 1.0}, backbone={"sensitivity": 0.5}), "one class"),
    ],
)
def test_what_cannot_be_compared_is_not(run: Run, site: dict[str, float], why: str) -> None:
    alone = of(run, ge=site)
    assert compare(alone, "both", "backbone") is None, why
    assert comparison_table(alone) is None, why


def test_a_mean_is_not_made_of_the_sites_that_tell_their_counts(run: Run) -> None:
    silent = {"both.balanced_accuracy": 0.8, "backbone.balanced_accuracy": 0.5}
    told = dict(run.evaluation.sites["siemens"])
    assert compare(of(run, ge=silent, siemens=told), "both", "backbone") is None
    text = headline(of(run, ge=silent, siemens=told))
    assert text.startswith("Mean balanced accuracy over the sites 0.90 with both adapters")


def test_the_table_answers_for_every_site(run: Run) -> None:
    table = comparison_table(run)
    assert table is not None
    assert table.header == ["site", "backbone + head", "local adapter only", "global adapter only"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["philips"][2].startswith("+0.00 (") and rows["philips"][2].endswith(" no gain shown")
    assert rows["mean over sites"][0].endswith(" gain shown")
    assert "from the counts alone" in table.note


def test_an_adapter_that_did_better_alone_is_named(run: Run) -> None:
    better = site_evaluation(
        (4, 4),
        backbone=scores(0.5, 0.5, 0.5),
        both=scores(0.75, 0.5, 0.7),
        local=scores(1.0, 0.75, 0.9),
        **{"global": scores(0.5, 0.5, 0.5)},
    )
    said = headline(of(run, ge=better))
    assert said.startswith("No gain shown over each site's own head: +0.12, 95 % interval -0.")
    assert "1 of 4 diseased test subjects were missed, 2 of 4 normal ones taken for diseased." in said
    assert "The local adapter with the other one switched off 0.88: better than both." in said
    assert "global adapter with" not in said


def test_a_site_that_only_evaluates_changes_no_mean_that_is_compared(run: Run) -> None:
    """It has the backbone's score and none of both adapters, so that one mean alone would have moved."""
    west = site_evaluation((4, 4), backbone=scores(0.0, 0.0, 0.1), **{"global": scores(1.0, 1.0, 1.0)})
    sites = {site: dict(found) for site, found in run.evaluation.sites.items()}
    joined = of(run, **sites, west=west)
    before, after = (headline(item).partition("(")[2].partition(")")[0] for item in (of(run, **sites), joined))
    assert after == before.replace("over the sites", "over the 2 of 3 sites that gave one")
    assert compare(joined, "both", "backbone") == compare(run, "both", "backbone")
    assert "The global adapter with" not in headline(joined)
    assert [item.value for item in build(joined).key_numbers[:2]] == [item.value for item in build(run).key_numbers[:2]]
    notes = [table.note for table in result_tables(joined)]
    assert all(note.endswith("one that only evaluates has no local adapter.") for note in notes)
    assert not any("only evaluates" in table.note for table in result_tables(run))


def test_the_mistakes_are_told_of_the_sites_with_both_adapters(run: Run) -> None:
    """A site that only evaluates, or holds its scores back, does not keep the others' mistakes out of it."""
    west = site_evaluation((4, 4), backbone=scores(0.0, 0.0, 0.1), **{"global": scores(1.0, 1.0, 1.0)})
    sites = {site: dict(found) for site, found in run.evaluation.sites.items()}
    assert "0 of 6 diseased test subjects were missed, 2 of 6 normal ones" in headline(run)
    for other in (west, {}):
        said = headline(of(run, **sites, west=other))
        assert "0 of 6 diseased test subjects were missed there, 2 of 6 normal ones taken for diseased." in said


def test_without_a_site_that_trains_there_is_nothing_to_compare(run: Run) -> None:
    west = site_evaluation((4, 4), backbone=scores(0.0, 0.0, 0.1), **{"global": scores(1.0, 1.0, 1.0)})
    said = headline(of(run, west=west))
    assert said.startswith("Balanced accuracy cannot be compared (1 site, 8 test subjects): no site gave one with both")
    assert "it takes a site that trains" in said


def test_training_alone_is_a_rival_of_its_own(run: Run) -> None:
    one = site_evaluation((40, 40), backbone=scores(0.5, 0.5, 0.5), both=scores(0.75, 0.5, 0.7), local=scores(0, 0, 0))
    assert "trained alone" not in headline(of(run, ge=one))
    for alone, said in (
        (scores(1.0, 0.75, 0.9), "(0.88, which was better): loss shown, -0.25, 95 % interval -0."),
        (scores(0.75, 0.5, 0.7), "(0.62): no gain shown, +0.00, 95 % interval -0."),
        (scores(0.25, 0.25, 0.7), "(0.25): gain shown, +0.38, 95 % interval +0."),
    ):
        told = of(run, ge=one | site_evaluation((40, 40), alone=alone))
        assert f"Against what each site trained alone {said}" in headline(told)
        table = comparison_table(told)
        assert table is not None
        assert table.header == ["site", "backbone + head", "trained alone", "local adapter only"]
        assert "a training of the site's own. One adapter only: the federated model with the other" in table.note


def test_what_each_site_uses_stands_beside_how_likely_joining_helped_it(run: Run) -> None:
    assert choice_table(run) is None, "an earlier version's run has neither"
    ge = site_evaluation((4, 4), both=scores(0.5, 0.5, 0.5), chosen=scores(1.0, 0.5, 0.9))
    sites = {"ge": {**ge, "choice": 2.0, "joining_helped": 0.061}, "canon": {**ge, "joining_helped": 0.5}, "west": {}}
    table = choice_table(of(run, **sites))
    assert table is not None
    assert table.rows == [
        ["ge", "trained alone", "0.06", "0.75"],
        ["canon", "–", "0.50", "0.75"],
        ["west", "–", "–", "–"],
    ]
    assert "at least 5 of each class; with fewer, both adapters stay without a choice" in table.note
