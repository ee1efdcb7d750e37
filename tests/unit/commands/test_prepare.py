import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from med_duallora.cohorts import labelmap, table
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.cohorts.vocabulary import VENDORS
from med_duallora.commands import prepare
from med_duallora.errors import InputError
from tests.unit.cohorts.raw import MNMS_TABLE, mnms_row, write_acdc, write_csv, write_mnms


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    prepare.add_parser(parser.add_subparsers())
    options = parser.parse_args(["prepare", *map(str, arguments)])
    return int(options.run(options))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two ACDC patients and two M&Ms subjects."""
    write_acdc(tmp_path / "raw", {"patient001": "DCM", "patient061": "NOR"})
    write_mnms(tmp_path / "raw", [mnms_row("A0S9V9"), mnms_row("C0U9U9", VendorName="GE", Vendor="C")])
    return tmp_path / "raw"


def test_cohorts_are_prepared_and_summarised(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--out", tmp_path / "out", "--acdc", raw, "--mnms", raw) == 0
    text = capsys.readouterr().out
    assert "Read 4 subjects (acdc 2, mnms 2): 4 prepared (0 of them unchanged" in text
    assert "siemens   2         2 (1 + 1)" in text
    assert "Note: siemens: val is empty." in text
    assert "image centre" not in text
    assert f"Written to {tmp_path / 'out'}" in text
    assert run("--out", tmp_path / "out", "--acdc", raw, "--mnms", raw) == 0
    assert "4 of them unchanged" in capsys.readouterr().out


def test_refused_subjects_decide_the_exit_code(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = mnms_row("C0U9U9", VendorName="GE", Vendor="C", ED="0", ES="0")
    write_csv(raw / "OpenDataset" / MNMS_TABLE, [mnms_row("A0S9V9"), unlabelled])
    assert run("--out", tmp_path / "out", "--mnms", raw) == 1
    text = capsys.readouterr().out
    assert "1 unlabelled: ED and ES are not marked" in text
    assert "first: C0U9U9" in text
    assert str(tmp_path / "out" / "refused.csv") in text
    assert "--allow-refused" in text
    assert run("--out", tmp_path / "out", "--mnms", raw, "--allow-refused") == 0
    assert (tmp_path / "out/philips/cohort.csv").is_file()


def test_nothing_prepared_is_a_failure_all_the_same(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in raw.rglob("*_frame*.nii.gz"):
        path.unlink()
    assert run("--out", tmp_path / "out", "--acdc", raw, "--allow-refused") == 1
    assert "No subject could be prepared" in capsys.readouterr().out


def test_a_crop_without_a_segmentation_is_said(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in raw.rglob("patient001*_gt.nii.gz"):
        path.unlink()
    assert run("--out", tmp_path / "out", "--acdc", raw) == 0
    assert "1 subject(s) without segmentation were cropped around the heart" in capsys.readouterr().out
    subjects = PreparedCohort.read(tmp_path / "out/siemens").subjects
    assert [subject.crop_centre for subject in subjects] == ["motion", "segmentation"]


def test_a_label_map_adds_words_and_is_recorded(raw: Path, tmp_path: Path) -> None:
    row = mnms_row("A0S9V9", Pathology="HFpEF", VendorName="Hitachi", Vendor="")
    write_csv(raw / "OpenDataset" / MNMS_TABLE, [row, mnms_row("C0U9U9")])
    words = tmp_path / "words.csv"
    words.write_text("kind;text;name;label\npathology;HFpEF;HFPEF;1\nvendor;Hitachi;other;\n")
    assert run("--out", tmp_path / "out", "--mnms", raw) == 1
    assert run("--out", tmp_path / "out", "--mnms", raw, "--label-map", words) == 0
    (subject,) = PreparedCohort.read(tmp_path / "out/other").subjects
    assert (subject.pathology, subject.label, subject.vendor) == ("HFPEF", 1, "other")
    record = json.loads((tmp_path / "out/preparation.json").read_text())
    assert record["label_map"] == {"pathology": {"hfpef": "HFPEF"}, "vendor": {"hitachi": "other"}}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        ("kind,text,name\nvendor,Hitachi,hitachi\n", "row 2: name is 'hitachi'; vendors are siemens"),
        ("kind,text\n", "lacks the column 'name'"),
    ],
)
def test_a_bad_label_map_ends_the_command_before_it_writes(
    raw: Path, tmp_path: Path, content: str | None, named: str
) -> None:
    if content is not None:
        (tmp_path / "words.csv").write_text(content)
    with pytest.raises(InputError, match=named) as error:
        run("--out", tmp_path / "out", "--acdc", raw, "--label-map", tmp_path / "words.csv")
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_sites_are_told_by_a_column_or_simulated(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(raw / "OpenDataset" / MNMS_TABLE, [mnms_row("A0S9V9"), mnms_row("C0U9U9", Centre="St. Olav")])
    sources = ("--out", tmp_path / "out", "--acdc", raw, "--mnms", raw)
    assert run(*sources, "--site-column", "vendor, centre") == 0
    text = capsys.readouterr().out
    assert "siemens-acdc" in text
    assert "philips-mnms-st-olav is vendor 'philips', centre 'mnms-St. Olav'" in text
    assert run(*sources, "--simulated-sites", "2") == 0
    text = capsys.readouterr().out
    assert "4 of them unchanged" in text
    assert "The 2 sites are simulated" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["site-1", "site-2"]
    assert run(*sources, "--simulated-sites", "2", "--site-column", "dataset") == 0
    text = capsys.readouterr().out
    assert "The 4 sites are simulated: the subjects of each dataset were dealt out" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        *("acdc-1", "acdc-2", "mnms-1", "mnms-2")
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "at least one source"),
        (
            ["--acdc", ".", "--site-column", "hospital"],
            "--site-column 'hospital' makes no sites; choose from vendor, centre, dataset",
        ),
        (["--acdc", ".", "--simulated-sites", "1"], "there must be 2 to 100"),
        (["--acdc", "/does/not/exist"], "--acdc /does/not/exist does not exist"),
        (["--table", "/does/not/exist.csv"], "--table"),
        (["--mnms", "."], "holds no M&Ms cohort"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=named) as error:
        run("--out", tmp_path / "out", *arguments)
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "-1"), ("--seed", "x"), ("--seed", str(2**31)), ("--processes", "0"), ("--processes", "many")],
)
def test_bad_numbers_are_bad_usage(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("--out", "x", "--acdc", "y", option, value)
    assert stopped.value.code == 2
    assert "whole number between" in capsys.readouterr().err


def test_help_is_complete_and_imports_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    text = capsys.readouterr().out
    for option in (
        "--out",
        "--acdc",
        "--mnms",
        "--mnms2",
        "--table",
        "--dicom",
        "--seed",
        "--official-splits",
        "--processes",
    ):
        assert option in text
    for option in (
        "--site-column",
        "--simulated-sites",
        "--allow-refused",
        "--rotated-origin-shift",
        "Exit codes",
        "--label-map",
    ):
        assert option in text
    for column in (*table.COLUMNS, *table.OPTIONAL_COLUMNS, *labelmap.COLUMNS, *VENDORS):
        assert column in text
    code = "import sys, med_duallora.commands.prepare; sys.exit('nibabel' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
