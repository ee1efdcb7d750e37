"""docs/results.md says what the tables of results beside it hold."""

import csv
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

from tests.conftest import REPOSITORY

RESULTS = REPOSITORY / "docs" / "results"
PAGE = REPOSITORY / "docs" / "results.md"
SECTIONS = {"phantoms": "## Phantoms: four", "untouched": "## Phantoms that nothing", "patients": "## Real hearts"}
WITH_RECIPES = ("phantoms", "patients")
ROW = re.compile(
    r"^\| \**`([a-z-]+)`\** \| (\d+) \| (0\.\d{3}) \([^)]+\) \| (0\.\d{3}) \| (0\.\d{3}) \| (0\.\d{3}) \|", re.M
)
RECIPE_ROW = re.compile(
    r"^\| (phantoms|patients) \| `([a-z-]+)` \| (\d+) \| (0\.\d{3}) \([^)]+\) \| (0\.\d{3}) \|", re.M
)

Rows = list[dict[str, str]]


def rows_of(path: Path, key: str) -> dict[str, Rows]:
    """The rows of each method, or recipe, as a whole."""
    found = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["variant"] == "both":
                found[row[key]].append(row)
    return found


def macro(rows: Rows, score: str) -> float:
    by_site = defaultdict(list)
    for row in rows:
        by_site[row["site"]].append(float(row[score]))
    return mean(mean(values) for values in by_site.values())


def n_splits(rows: Rows) -> int:
    return len({(row["cohort"], row["seed"]) for row in rows})


def section(kind: str) -> str:
    return re.split(r"^## ", PAGE.read_text(encoding="utf-8").split(SECTIONS[kind], 1)[1], maxsplit=1, flags=re.M)[0]


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_row_of_the_page_is_a_mean_of_the_table(kind):
    table = rows_of(RESULTS / kind / "results.csv", "arm")
    shown = {name: cells for name, *cells in ROW.findall(section(kind))}
    assert set(shown) == set(table), "every method that was run, and no other"
    for name, (number, balanced, sensitivity, specificity, auroc) in shown.items():
        rows = table[name]
        assert n_splits(rows) == int(number)
        said = {"balanced_accuracy": balanced, "sensitivity": sensitivity, "specificity": specificity, "auroc": auroc}
        for score, text in said.items():
            assert float(text) == pytest.approx(macro(rows, score), abs=6e-4), (name, score)


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_generated_page_is_of_the_same_runs(kind):
    text = (RESULTS / kind / "study.md").read_text(encoding="utf-8")
    for name, rows in rows_of(RESULTS / kind / "results.csv", "arm").items():
        found = re.search(rf"^\| \**{name}\** \| \**(\d+)\** \| \**(0\.\d{{3}}) ", text, re.M)
        assert found and int(found[1]) == n_splits(rows), name
        assert float(found[2]) == pytest.approx(macro(rows, "balanced_accuracy"), abs=6e-4), name


def test_every_recipe_of_the_page_is_a_mean_of_its_table():
    tables = {kind: rows_of(RESULTS / kind / "recipes.csv", "recipe") for kind in WITH_RECIPES}
    shown = RECIPE_ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert {(kind, recipe) for kind, recipe, *_ in shown} == {
        (kind, recipe) for kind, table in tables.items() for recipe in table
    }
    for kind, recipe, number, balanced, auroc in shown:
        rows = tables[kind][recipe]
        assert {row["arm"] for row in rows} == {"med-duallora"}
        assert n_splits(rows) == int(number)
        assert float(balanced) == pytest.approx(macro(rows, "balanced_accuracy"), abs=6e-4), (kind, recipe)
        assert float(auroc) == pytest.approx(macro(rows, "auroc"), abs=6e-4), (kind, recipe)


@pytest.mark.parametrize(("kind", "synthetic"), [("phantoms", "yes"), ("untouched", "yes"), ("patients", "no")])
def test_no_subject_is_in_the_tables_and_each_says_what_its_subjects_are(kind, synthetic):
    for path in (RESULTS / kind).glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert not any("subject" in column for column in rows[0])
        assert {row["synthetic"] for row in rows} == {synthetic}
    for path in (RESULTS / kind).iterdir():
        assert path.suffix == ".png" or not re.search(r"patient\d{3}", path.read_text(encoding="utf-8")), path.name
