"""Cohorts by hospital, by combinations and by simulated sites; and one output folder whose sites change."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from med_duallora.cohorts import acdc, mnms
from med_duallora.cohorts import prepare as module
from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_tables import Preparation, PrepareOptions
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.cohorts.site_names import Sites
from med_duallora.errors import CohortError, ConfigError
from tests.unit.cohorts.raw import mnms_row, write_acdc, write_mnms

ROWS = [mnms_row("A0S9V9"), mnms_row("B3P3R1", VendorName="GE", Vendor="C", Centre="3"), mnms_row("C1", Centre="3")]
BY_CENTRE = Sites(("centre",))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six ACDC patients (Siemens, one hospital), three M&Ms subjects (Philips and GE, two hospitals)."""
    root = tmp_path_factory.mktemp("raw")
    groups = ("NOR", "NOR", "NOR", "DCM", "DCM", "DCM")
    write_acdc(root, {f"patient{i:03d}": group for i, group in enumerate(groups, 1)})
    write_mnms(root, ROWS)
    return root


def prepare(raw: Path, out: Path, sites: Sites = Sites(), seed: int = 3) -> Preparation:  # noqa: B008
    subjects = [item for reader in (acdc, mnms) for item in reader.read(raw)[0]]
    return prepare_cohorts(out, subjects, [], PrepareOptions(seed=seed, sites=sites))


def layout(out: Path) -> dict[str, set[str]]:
    """Return what lies in each cohort's folder."""
    return {folder.name: {item.name for item in folder.iterdir()} for folder in out.iterdir() if folder.is_dir()}


def test_one_cohort_per_hospital(raw: Path, tmp_path: Path) -> None:
    result = prepare(raw, tmp_path, BY_CENTRE)
    assert {site: len(rows) for site, rows in result.cohorts.items()} == {"acdc": 6, "mnms-2": 1, "mnms-3": 2}
    assert [item.vendor for item in PreparedCohort.read(tmp_path / "mnms-3").subjects] == ["ge", "philips"]
    splits = PreparedCohort.read(tmp_path / "acdc")
    assert [len(splits.split(name)) for name in ("train", "val", "test")] == [2, 2, 2]
    assert {subject.label for subject in splits.split("test")} == {0, 1}, "stratified within the site"
    assert "mnms-2: test is empty" in result.notes
    said = json.loads((tmp_path / "mnms-3/preparation.json").read_text())
    assert (said["site"], said["site_columns"], said["simulated_sites"]) == ({"centre": "mnms-3"}, ["centre"], None)


def test_one_cohort_per_combination(raw: Path, tmp_path: Path) -> None:
    result = prepare(raw, tmp_path, Sites(("vendor", "centre")))
    assert list(result.cohorts) == ["ge-mnms-3", "philips-mnms-2", "philips-mnms-3", "siemens-acdc"]
    assert result.told_by["ge-mnms-3"] == {"vendor": "ge", "centre": "mnms-3"}


def test_simulated_sites_say_that_they_are(raw: Path, tmp_path: Path) -> None:
    result = prepare(raw, tmp_path, Sites((), n_simulated=3))
    assert {site: len(rows) for site, rows in result.cohorts.items()} == {"site-1": 3, "site-2": 3, "site-3": 3}
    for place in ("preparation.json", "site-1/preparation.json"):
        said = json.loads((tmp_path / place).read_text())
        assert (said["simulated_sites"], said["site_columns"]) == (3, [])


def test_simulated_sites_of_each_vendor_say_which(raw: Path, tmp_path: Path) -> None:
    result = prepare(raw, tmp_path, Sites(("dataset",), 2))
    assert result.told_by["acdc-1"] == result.told_by["acdc-2"] == {"dataset": "acdc"}
    said = json.loads((tmp_path / "mnms-2" / "preparation.json").read_text())
    assert (said["site"], said["site_columns"], said["simulated_sites"]) == ({"dataset": "mnms"}, ["dataset"], 2)


@pytest.mark.parametrize("other", [BY_CENTRE, Sites(("vendor", "dataset")), Sites((), n_simulated=4)])
def test_other_sites_in_the_same_folder_leave_nothing_behind_and_prepare_nothing_anew(
    raw: Path, tmp_path: Path, other: Sites
) -> None:
    prepare(raw, tmp_path / "out")
    before = layout(tmp_path / "out")
    result = prepare(raw, tmp_path / "out", other)
    assert result.n_reused == result.n_prepared == 9
    prepare(raw, tmp_path / "fresh", other)
    assert layout(tmp_path / "out") == layout(tmp_path / "fresh")
    for site in result.cohorts:
        assert (tmp_path / "out" / site / "cohort.csv").read_text() == (
            tmp_path / "fresh" / site / "cohort.csv"
        ).read_text()
    assert prepare(raw, tmp_path / "out").n_reused == 9
    assert layout(tmp_path / "out") == before


def test_another_seed_of_simulated_sites_moves_subjects(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path, Sites((), n_simulated=3))
    before = layout(tmp_path)
    assert prepare(raw, tmp_path, Sites((), n_simulated=3), seed=4).n_reused == 9
    assert layout(tmp_path) != before
    for site in layout(tmp_path):
        assert len(PreparedCohort.read(tmp_path / site).subjects) == 3


def test_a_run_that_is_killed_after_moving_leaves_no_table_that_is_wrong(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(raw, tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "_prepare_into", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, tmp_path, BY_CENTRE)
    assert not list(tmp_path.glob("*/cohort.csv"))
    assert prepare(raw, tmp_path, BY_CENTRE).n_reused == 9


def test_another_output_and_another_program_s_cohort_below_are_left_alone(raw: Path, tmp_path: Path) -> None:
    """Both hold files of the names that prepare writes itself."""
    prepare(raw, tmp_path / "inner", BY_CENTRE)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/cohort.csv").write_text("not of prepare")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    prepare(raw, tmp_path)
    prepare(raw, tmp_path, BY_CENTRE)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_subject_of_no_source_is_found_in_any_cohort(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path, BY_CENTRE)
    shutil.copytree(tmp_path / "acdc/patient001", tmp_path / "elsewhere/stranger")
    for file in (tmp_path / "elsewhere/stranger").glob("patient001*"):
        file.rename(file.with_name(file.name.replace("patient001", "stranger")))
    with pytest.raises(CohortError, match="elsewhere/stranger"):
        prepare(raw, tmp_path)
    assert (tmp_path / "acdc/cohort.csv").is_file(), "and nothing was changed"


def test_sites_are_checked_before_the_work(raw: Path, tmp_path: Path) -> None:
    subjects, _ = mnms.read(raw)
    unclear = [replace(subjects[0], centre="St. Olav"), replace(subjects[1], centre="St Olav")]
    with pytest.raises(CohortError, match="would both be called 'st-olav'"):
        prepare_cohorts(tmp_path / "out", unclear, [], PrepareOptions(sites=BY_CENTRE))
    with pytest.raises(CohortError, match="cannot be dealt out"):
        prepare(raw, tmp_path / "out", Sites((), n_simulated=50))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="'hospital'"):
        Sites(("hospital",))
