"""docs/results.md says what the table of results beside it holds."""

import csv
import re
from collections import defaultdict
from statistics import mean

import pytest

from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results"
PAGE = REPOSITORY / "docs" / "results.md"
ROW = re.compile(
    r"^\| \**`([a-z-]+)`\** \| (\d+) \| (0\.\d{3}) \([^)]+\) \| (0\.\d{3}) \| (0\.\d{3}) \| (0\.\d{3}) \|", re.M
)


@pytest.fixture(scope="module")
def table() -> dict[str, list[dict[str, str]]]:
    """The rows of each method as a whole."""
    found = defaultdict(list)
    with (RESULTS / "phantoms" / "results.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["variant"] == "both":
                found[row["arm"]].append(row)
    return found


def macro(rows: list[dict[str, str]], score: str) -> float:
    by_site = defaultdict(list)
    for row in rows:
        by_site[row["site"]].append(float(row[score]))
    return mean(mean(values) for values in by_site.values())


def test_every_row_of_the_page_is_a_mean_of_the_table(table):
    shown = {name: cells for name, *cells in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    assert set(shown) == set(table), "every method that was run, and no other"
    for name, (n_seeds, balanced, sensitivity, specificity, auroc) in shown.items():
        rows = table[name]
        assert len({row["seed"] for row in rows}) == int(n_seeds)
        said = {"balanced_accuracy": balanced, "sensitivity": sensitivity, "specificity": specificity, "auroc": auroc}
        for score, text in said.items():
            assert float(text) == pytest.approx(macro(rows, score), abs=6e-4), (name, score)


def test_the_generated_page_is_of_the_same_runs(table):
    text = (RESULTS / "phantoms" / "study.md").read_text(encoding="utf-8")
    for name, rows in table.items():
        assert re.search(rf"^\| \**{name}\** \| \**\d+\** \| \**{macro(rows, 'balanced_accuracy'):.3f} ", text, re.M), (
            name
        )


def test_no_subject_is_in_the_table(table):
    assert not any("subject" in column for rows in table.values() for column in rows[0])
    assert {row["synthetic"] for rows in table.values() for row in rows} == {"yes"}
