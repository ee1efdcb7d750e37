"""Which cohorts are the same subjects, cut into sites in another way."""

import csv
from dataclasses import replace

import pytest

from med_duallora.cohorts.prepared import COHORT_TABLE
from med_duallora.study.families import families
from med_duallora.study.plan import Cohort
from med_duallora.study.splits import Dealt, rows_of, write


@pytest.fixture
def cut(cohort, tmp_path):
    """Cuts the subjects of two sites into two others, so many rows further on, and calls the federation something."""
    rows = [(folder, row) for folder in cohort.sites.values() for row in rows_of(folder)]

    def make(name: str, first: int, **changed: str) -> Cohort:
        turned = rows[first:] + rows[:first]
        sites = {}
        for site, part in (("x", turned[:10]), ("y", turned[10:])):
            dealt = [Dealt(folder, ({**row, **changed},)) for folder, row in part]
            sites[site] = write(dealt, tmp_path / name / site)
        return Cohort.of(tmp_path / name, sites, is_synthetic=True)

    return make


def test_cohorts_of_the_same_subjects_belong_together(cut, cohort):
    one, two, other = cut("one", 0), cut("two", 3), replace(cohort, name="as-it-was")
    assert families([one, other, two]) == [["one", "as-it-was", "two"]]
    assert families([one]) == []


def test_other_scans_under_the_same_names_are_other_subjects(cut):
    assert families([cut("one", 0), cut("two", 0, source_sha256="f" * 64)]) == []
    assert families([cut("three", 0), cut("four", 0, label="1")]) == []
    assert families([cut("five", 0), cut("six", 0, remarks="simulated scanner")]) == []


def test_a_name_that_two_sites_use_is_not_one_subject(cut):
    cohorts = [cut("one", 0), cut("two", 3)]
    for found in cohorts:
        table = found.sites["y"] / COHORT_TABLE
        rows = rows_of(found.sites["y"])
        rows[0]["subject"] = rows_of(found.sites["x"])[0]["subject"]
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    assert families(cohorts) == []
