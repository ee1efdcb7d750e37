import csv
import json
from dataclasses import replace
from pathlib import Path

from med_duallora.cohorts.prepare_folders import subject_folders
from med_duallora.cohorts.prepare_one import RECORD, Prepared
from med_duallora.cohorts.prepare_tables import (
    Preparation,
    PrepareOptions,
    cohort_row,
    split_counts,
    write_tables,
)
from med_duallora.cohorts.prepared import COLUMNS
from med_duallora.cohorts.subject import ImageSource, RawSubject, Refusal

IMAGE = ImageSource(Path("x"))
RAW = RawSubject("s1", "table", "HCM", "ge", "Oslo, Norway", IMAGE, IMAGE)
PREPARED = Prepared("s1", "ab" * 32, 8, (1.2999999523162842, 1.2999999523162842, 9.6), "image")


def test_a_row_has_the_documented_columns() -> None:
    row = cohort_row(RAW, "val", PREPARED)
    assert tuple(row) == COLUMNS
    assert (row["label"], row["split"], row["n_slices"], row["crop_centre"]) == (1, "val", 8, "image")
    # The header's 32-bit 1.3 mm, as a person writes it.
    assert (row["spacing_x"], row["spacing_z"]) == ("1.3", "9.6")
    assert (row["dataset"], row["frames"], row["crop_confidence"], row["remarks"]) == ("table", "given", "", "")


def test_remarks_and_confidence_are_written_so_that_they_can_be_read_back() -> None:
    said = replace(PREPARED, crop_confidence=0.456, remarks=("one; with a semicolon", "two: 1.5 mm"))
    row = cohort_row(RAW, "val", said)
    assert (row["crop_confidence"], row["remarks"]) == ("0.46", "one, with a semicolon; two: 1.5 mm")


def test_tables_say_what_happened_and_stale_output_goes(tmp_path: Path) -> None:
    for vendor, name in (("ge", "s1"), ("ge", "gone"), ("canon", "moved")):
        (tmp_path / vendor / name).mkdir(parents=True)
        (tmp_path / vendor / name / RECORD).write_text("{}")
        (tmp_path / vendor / name / f"{name}_sax_ed.nii.gz").write_text("")
    for name in ("cohort.csv", "preparation.json"):
        (tmp_path / "canon" / name).write_text("old")
    (tmp_path / "ge/notes").mkdir()  # not ours
    refused = [Refusal("s2", "acdc", "folder", "empty-lv", 'a "quoted", detail')]
    result = Preparation({"table": 2}, {"ge": [cohort_row(RAW, "train", PREPARED)]}, refused)
    write_tables(tmp_path, result, PrepareOptions(seed=5))
    assert subject_folders(tmp_path) == [tmp_path / "ge/s1"]
    assert (tmp_path / "ge/notes").is_dir()
    assert not (tmp_path / "canon").exists()
    with (tmp_path / "ge/cohort.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["centre"] == "Oslo, Norway"
    with (tmp_path / "refused.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["detail"] == 'a "quoted", detail'
    summary = json.loads((tmp_path / "preparation.json").read_text())
    assert (summary["n_prepared"], summary["n_refused"], summary["n_refused_by_reason"]) == (1, 1, {"empty-lv": 1})


def test_counts_are_by_split_and_pathology() -> None:
    rows = [{"split": "train", "pathology": name} for name in ("NOR", "HCM", "NOR")]
    assert split_counts(rows) == {"train": {"HCM": 1, "NOR": 2}, "val": {}, "test": {}}
