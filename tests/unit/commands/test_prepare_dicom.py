"""``prepare --dicom`` as a whole: what it writes, what it never writes, and what it leaves behind."""

import csv
import sys
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from med_duallora.cohorts.dicom.workplace import PREFIX, workplace
from med_duallora.cohorts.prepared import PreparedCohort
from med_duallora.errors import InputError
from tests.unit.cohorts.dicomfiles import ED, ES, SECRETS, write_study
from tests.unit.commands.test_prepare import run


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two usable studies, one that lacks a picture, and one in a folder with the patient's name."""
    root = tmp_path_factory.mktemp("studies")
    write_study(root / "dicom/p1")
    write_study(root / "dicom/p2", seed=1, series_per_slice=True)
    write_study(root / "dicom/p3", lambda dataset, k, t: None if (k, t) == (1, 1) else dataset, seed=2)
    write_study(root / f"dicom/{SECRETS['PatientID']}", seed=3)
    rows = ["subject,pathology,ed_frame,es_frame", "p1,HCM,,", "p2,NOR,1,5", "p3,HCM,,"]
    (root / "table.csv").write_text("\n".join(rows) + f"\n{SECRETS['PatientID']},DCM,,\n")
    return root


def prepare(studies: Path, out: Path) -> int:
    return run("--out", out, "--dicom", studies / "dicom", "--dicom-table", studies / "table.csv", "--processes", 1)


def test_studies_are_prepared_and_reused(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert prepare(studies, out) == 1
    text = capsys.readouterr().out
    assert "Read 4 subjects (dicom 4): 3 prepared (0 of them unchanged" in text
    assert "slice 2 of 5 has 9 frames" in text
    assert "ED and ES of 2 subject(s) were chosen by the size of the blood pool" in text
    assert "1 subject(s) are called dicom-..." in text
    cohort = {item.subject: item for item in PreparedCohort.read(out / "ge").subjects}
    assert [cohort["p1"].frames, cohort["p2"].frames] == ["automatic", "given"]
    assert {item.dataset for item in cohort.values()} == {"dicom"}
    assert prepare(studies, out) == 1
    assert "3 prepared (3 of them unchanged" in capsys.readouterr().out
    assert not list(out.rglob(f"{PREFIX}*"))


def test_frames_of_the_table_and_of_the_rule_give_the_same_volumes(studies: Path, tmp_path: Path) -> None:
    prepare(studies, tmp_path / "out")
    table = tmp_path / "table.csv"
    table.write_text(f"subject,pathology,ed_frame,es_frame\np1,HCM,{ED},{ES}\n")
    run("--out", tmp_path / "given", "--dicom", studies / "dicom/p1", "--dicom-table", table)
    hashes = []
    for out in ("out", "given"):
        subjects = {item.subject: item for item in PreparedCohort.read(tmp_path / out / "ge").subjects}
        hashes.append((subjects["p1"].ed_voxels_sha256, subjects["p1"].es_voxels_sha256))
    assert hashes[0] == hashes[1]


def test_nothing_of_the_identity_is_written_or_printed(
    studies: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    from med_duallora.cohorts.dicom import reader
    from med_duallora.cohorts.nifti import write_nifti

    write = write_nifti

    def kept(path: Path, *values: object) -> None:
        write(path, *values)
        import gzip

        written.append(gzip.decompress(path.read_bytes()) + str(path).encode())

    monkeypatch.setattr(reader, "write_nifti", kept)
    prepare(studies, tmp_path / "out")
    captured = capfd.readouterr()
    written += [(captured.out + captured.err).encode()]
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        written += [str(path.relative_to(tmp_path)).encode(), content]
        written += [gzip_content(content)] if path.suffix == ".gz" else []
    words = {word for text in SECRETS.values() for word in text.replace("^", " ").split() if len(word) > 3}
    everything = b"\n".join(written).lower()
    assert len(written) > 10
    assert [word for word in words if word.lower().encode() in everything] == []
    assert b"1.2.826.0.1.3680043" not in everything, "the root of all UIDs that the tests make"


def gzip_content(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content)


def test_without_a_table_every_study_says_what_is_needed(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", tmp_path / "out", "--dicom", studies / "dicom/p1") == 1
    assert "a table is needed that says the diagnosis: --dicom-table CSV" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--dicom", "/does/not/exist"], "--dicom /does/not/exist is not a folder"),
        (["--dicom-table", "x.csv"], "at least one source"),
        (["--acdc", ".", "--dicom-table", "x.csv"], "which is not given"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, arguments: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        run("--out", tmp_path / "out", *arguments)
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_refusals_name_the_study_and_not_the_file_that_was_there_for_a_while(tmp_path: Path) -> None:
    def black(dataset: Dataset, k: int, t: int) -> Dataset:
        dataset.PixelData = bytes(len(dataset.PixelData))
        return dataset

    write_study(tmp_path / "dicom/p1", black)
    write_study(tmp_path / "dicom/p2", seed=1)
    write_study(tmp_path / "dicom/p3", seed=2)
    rows = ["subject,pathology,ed_frame,es_frame,name", "p1,HCM,1,5,", "p2,HCM,,,same", "p3,HCM,,,same"]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    prepare(tmp_path, tmp_path / "out")
    refused = {row["reason"]: row for row in csv.DictReader((tmp_path / "out/refused.csv").open())}
    assert refused["constant-image"]["source"] == "p1"
    assert refused["duplicate-subject"]["source"] == "p3"
    assert refused["duplicate-subject"]["detail"] == "p3 has the same name as p2"
    assert PREFIX not in (tmp_path / "out/refused.csv").read_text()


def test_without_pydicom_nothing_is_written(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match="pip install") as error:
        prepare(studies, tmp_path / "out")
    assert error.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_cleared_but_not_what_another_run_uses(tmp_path: Path) -> None:
    leftover = tmp_path / f"{PREFIX}old"
    leftover.mkdir()
    with workplace(tmp_path) as first, workplace(tmp_path) as second:
        assert first.is_dir()
        assert second.is_dir()
        assert not leftover.exists()
    assert not list(tmp_path.iterdir())
