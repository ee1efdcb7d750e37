"""The true values of phantoms are read by name, and an impossible one is named."""

import numpy as np
import pytest

from med_duallora.cohorts.phantom.layouts import MNMS_PATHOLOGY
from med_duallora.cohorts.phantom.plan import plan_cohort
from med_duallora.cohorts.phantom.truth import TARGETS, check_same, read_values
from med_duallora.cohorts.vocabulary import canonical_pathology
from med_duallora.errors import CohortError
from tests.unit.truths import truth_table


def test_values_are_taken_by_name_and_volumes_as_logarithms(tmp_path):
    numbers = [[100.0 * row + column + 1 for column in range(len(TARGETS))] for row in range(3)]
    path = truth_table(tmp_path / "truth.csv", [[f"s{row}", *numbers[row]] for row in range(3)])
    values = read_values(path, ["s2", "s0"])
    for column, scale in enumerate(TARGETS.values()):
        for found, row in zip(values[:, column], (2, 0), strict=True):
            number = numbers[row][column]
            assert found == pytest.approx(np.log(number) if scale == "log" else number)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "", "many"])
def test_an_impossible_value_names_its_row(tmp_path, value):
    path = truth_table(
        tmp_path / "truth.csv", [["a", *[1.0] * len(TARGETS)], ["b", value, *[1.0] * (len(TARGETS) - 1)]]
    )
    with pytest.raises(CohortError, match=r"row 3: lv_edv is .* must be a number above 0"):
        read_values(path, ["a", "b"])


def test_a_subject_without_or_with_two_rows_is_refused(tmp_path):
    row = ["a", *[1.0] * len(TARGETS)]
    with pytest.raises(CohortError, match="no row for 1 of 2 subjects, such as b"):
        read_values(truth_table(tmp_path / "truth.csv", [row]), ["a", "b"])
    with pytest.raises(CohortError, match="row 3: subject a appears twice"):
        read_values(truth_table(tmp_path / "truth.csv", [row, row]), ["a"])


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_text("subject,label\na,0\n")
    with pytest.raises(CohortError, match="lv_edv"):
        read_values(path, ["a"])
    with pytest.raises(CohortError, match="phantom` writes it"):
        read_values(tmp_path / "nowhere.csv", ["a"])


def test_a_table_of_other_phantoms_under_the_same_names_is_refused(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("subject,pathology\na,NOR\nb,DCM\nc,HCM\n")
    check_same(path, {"a": "NOR", "c": "HCM"})
    with pytest.raises(
        CohortError, match=r"1 of 2 subjects have another disease there, such as b \(DCM instead of NOR"
    ):
        check_same(path, {"a": "NOR", "b": "NOR"})


def test_a_table_is_that_of_its_own_phantoms_in_whichever_layout_they_were_written(tmp_path):
    """Files like M&Ms name some diseases otherwise; `study --truth` once refused every cohort with an infarction."""
    cohort = plan_cohort("study", 21, 8)
    written = {
        entry.name: MNMS_PATHOLOGY.get(entry.identity.pathology) if entry.layout == "mnms" else None for entry in cohort
    }
    path = tmp_path / "truth.csv"
    rows = [f"{entry.name},{entry.identity.pathology}\n" for entry in cohort]
    path.write_text("subject,pathology\n" + "".join(rows))
    prepared = {entry.name: canonical_pathology(written[entry.name] or entry.identity.pathology) for entry in cohort}
    assert {"IHD", "MINF", "RV"} <= set(prepared.values())
    check_same(path, prepared)
