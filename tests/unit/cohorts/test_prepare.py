import fcntl
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import acdc, mnms, mnms2
from med_duallora.cohorts import prepare as module
from med_duallora.cohorts.csvfile import read_rows
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.cohorts.prepare import prepare_cohorts
from med_duallora.cohorts.prepare_one import prepare_one
from med_duallora.cohorts.prepare_tables import Preparation, PrepareOptions
from med_duallora.cohorts.prepared import PreparedCohort, load_volume
from med_duallora.cohorts.subject import RawSubject, Refusal
from med_duallora.errors import CohortError, MedDualLoRAError
from tests.unit.cohorts.raw import mnms_row, oblique_affine, texture, write_acdc, write_mnms

OPTIONS = PrepareOptions(seed=3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten ACDC patients (Siemens) and two M&Ms subjects (Philips, GE)."""
    root = tmp_path_factory.mktemp("template")
    groups = ("NOR", "NOR", "NOR", "NOR", "DCM", "DCM", "HCM", "MINF", "RV", "RV")
    write_acdc(root, {f"patient{i:03d}": group for i, group in enumerate(groups, 1)})
    write_mnms(root, [mnms_row("A0S9V9"), mnms_row("B3P3R1", VendorName="GE", Vendor="C")])
    return root


@pytest.fixture
def raw(template: Path, tmp_path: Path) -> Path:
    """A copy of the template that a test may change."""
    return shutil.copytree(template, tmp_path / "raw")


def read(raw: Path) -> tuple[list[RawSubject], list[Refusal]]:
    both = (acdc.read(raw), mnms.read(raw))
    return [item for found, _ in both for item in found], [item for _, unusable in both for item in unusable]


def prepare(raw: Path, out: Path, options: PrepareOptions = OPTIONS) -> Preparation:
    return prepare_cohorts(out, *read(raw), options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_cohort_per_vendor(raw: Path, tmp_path: Path) -> None:
    result = prepare(raw, tmp_path / "out")
    assert {vendor: len(rows) for vendor, rows in result.cohorts.items()} == {"siemens": 10, "philips": 1, "ge": 1}
    assert (result.n_prepared, result.n_reused, result.refused) == (12, 0, [])
    cohort = PreparedCohort.read(tmp_path / "out" / "siemens")
    assert [len(cohort.split(name)) for name in ("train", "val", "test")] == [6, 2, 2]
    assert {subject.label for subject in cohort.split("val")} == {0, 1}
    assert load_volume(cohort.subjects[0]).shape == (2, 64, 58, 5)
    assert not (tmp_path / "out" / "canon").exists()


def test_the_summary_accounts_for_every_subject(raw: Path, tmp_path: Path) -> None:
    (raw / "database/training/patient002/patient002_frame01.nii.gz").unlink()
    (raw / "database/training/patient003/Info.cfg").write_text("ED: 0\nES: 0\nGroup: NOR\n")
    prepare(raw, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "preparation.json").read_text())
    assert summary["n_read"] == 12 == summary["n_prepared"] + summary["n_refused"]
    assert summary["n_read_by_dataset"] == {"acdc": 10, "mnms": 2}
    assert summary["n_refused_by_reason"] == {"missing-file": 1, "unlabelled": 1}
    assert (summary["seed"], summary["preparation"]) == (3, "cinema-sax-3")
    assert set(summary["versions"]) == {"med_duallora", "python", "numpy", "nibabel"}
    assert sum(sum(split.values()) for split in summary["cohorts"]["siemens"].values()) == 8
    lines = (tmp_path / "out" / "refused.csv").read_text().splitlines()
    assert lines[0] == "subject,dataset,source,reason,detail"
    assert [line.split(",")[0] for line in lines[1:]] == ["patient002", "patient003"]
    # The cohort of one vendor goes to one site, so it says itself how it came about.
    assert json.loads((tmp_path / "out/ge/preparation.json").read_text())["seed"] == 3


def test_cohorts_of_phantoms_say_so_and_others_do_not(raw: Path, tmp_path: Path) -> None:
    write_acdc(tmp_path / "phantoms", {"patient901": "NOR", "patient902": "DCM"})
    (tmp_path / "phantoms" / "phantom.json").write_text("{}")
    (phantoms, _), (philips_and_ge, _) = acdc.read(tmp_path / "phantoms"), mnms.read(raw)
    out = tmp_path / "out"
    assert prepare_cohorts(out, [*phantoms, *philips_and_ge], [], OPTIONS).synthetic == {"siemens"}
    said = {
        vendor: json.loads((out / vendor / "preparation.json").read_text())["synthetic"]
        for vendor in ("siemens", "philips", "ge", ".")
    }
    assert said == {"siemens": True, "philips": False, "ge": False, ".": False}
    prepare_cohorts(tmp_path / "only", phantoms, [], OPTIONS)
    assert json.loads((tmp_path / "only" / "preparation.json").read_text())["synthetic"] is True


def test_a_second_run_changes_no_file(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")}
    texts = contents(tmp_path / "out")
    assert prepare(raw, tmp_path / "out").n_reused == 12
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.nii.gz")} == before
    assert contents(tmp_path / "out") == texts


def test_processes_give_what_one_process_gives(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "one")
    environment = dict(os.environ)
    result = prepare(raw, tmp_path / "two", replace(OPTIONS, n_processes=2))
    assert result.n_prepared == 12
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert dict(os.environ) == environment  # the limit of one BLAS thread holds for the processes only


def test_a_changed_source_is_redone_alone(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out")
    write_nifti(raw / "database/training/patient001/patient001_frame09.nii.gz", texture(1), oblique_affine())
    assert prepare(raw, tmp_path / "out").n_reused == 11


def test_another_seed_only_changes_the_split(raw: Path, tmp_path: Path) -> None:
    before = prepare(raw, tmp_path / "out").cohorts["siemens"]
    result = prepare(raw, tmp_path / "out", replace(OPTIONS, seed=4))
    assert result.n_reused == 12
    assert before != result.cohorts["siemens"]


def test_the_origin_shift_is_an_option(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out")
    affine = nib.load(tmp_path / "out/ge/B3P3R1/B3P3R1_sax_ed.nii.gz").affine
    assert prepare(raw, tmp_path / "out", replace(OPTIONS, rotated_origin_shift=True)).n_reused == 0
    assert not np.allclose(nib.load(tmp_path / "out/ge/B3P3R1/B3P3R1_sax_ed.nii.gz").affine, affine, atol=0.1)


def test_official_splits_are_kept(raw: Path, tmp_path: Path) -> None:
    write_acdc(raw, {"patient101": "NOR", "patient102": "RV"}, part="testing")
    result = prepare(raw, tmp_path / "out", replace(OPTIONS, official_splits=True))
    splits = {row["subject"]: row["split"] for row in result.cohorts["siemens"]}
    assert {name for name, split in splits.items() if split == "test"} == {"patient101", "patient102"}
    assert "val" in splits.values()
    assert result.notes[0].startswith("philips")


def test_the_split_is_as_asked_and_is_recorded(raw: Path, tmp_path: Path) -> None:
    half = {"train": 0.5, "val": 0.0, "test": 0.5}
    result = prepare(raw, tmp_path / "out", replace(OPTIONS, fractions=half))
    assert "val" not in {row["split"] for rows in result.cohorts.values() for row in rows}
    for place in (tmp_path / "out", tmp_path / "out/siemens"):
        assert json.loads((place / "preparation.json").read_text())["fractions"] == half


def test_official_splits_are_checked_before_the_work(raw: Path, tmp_path: Path) -> None:
    subjects, _ = read(raw)
    with pytest.raises(CohortError, match="no official split"):
        prepare_cohorts(
            tmp_path / "out", [replace(subjects[0], official_split=None)], [], PrepareOptions(official_splits=True)
        )
    assert not (tmp_path / "out").exists()


def test_repeated_names_are_refused(raw: Path, tmp_path: Path) -> None:
    write_acdc(raw, {"patient001": "DCM"}, part="testing")
    result = prepare(raw, tmp_path / "out")
    assert [(item.subject, item.reason) for item in result.refused] == [("patient001", "duplicate-subject")]
    assert "testing" in result.refused[0].source
    assert result.n_prepared == 12


def test_the_same_bytes_under_two_names_are_refused(raw: Path, tmp_path: Path) -> None:
    """Otherwise one person could be trained on and tested on."""
    folder = shutil.copytree(raw / "database/training/patient001", raw / "database/training/patient011")
    for file in folder.iterdir():
        file.rename(file.with_name(file.name.replace("patient001", "patient011")))
    result = prepare(raw, tmp_path / "out")
    assert [(item.subject, item.reason) for item in result.refused] == [("patient011", "duplicate-subject")]
    assert "patient001" in result.refused[0].detail
    assert not (tmp_path / "out/siemens/patient011").exists()


def test_a_subject_that_moves_to_another_vendor_leaves_no_copy(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out")
    subjects, _ = read(raw)
    moved = [replace(item, vendor="canon") if item.vendor == "ge" else item for item in subjects]
    prepare_cohorts(tmp_path / "out", moved, [], OPTIONS)
    assert (tmp_path / "out/canon/B3P3R1/B3P3R1_sax_ed.nii.gz").is_file()
    assert not (tmp_path / "out/ge").exists()


def test_another_cohorts_output_is_not_mixed_in(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(CohortError, match=r"10 prepared subject.*siemens/patient001"):
        prepare_cohorts(tmp_path / "out", *mnms.read(raw), OPTIONS)
    assert contents(tmp_path / "out") == before


def test_a_second_run_at_the_same_time_is_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(CohortError, match="another run"):
            prepare(raw, tmp_path / "out")
    finally:
        os.close(descriptor)
    assert prepare(raw, tmp_path / "out").n_prepared == 12


def test_what_a_killed_run_left_is_cleared(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out/siemens/.partial-abc").mkdir(parents=True)
    (tmp_path / "out/siemens/.partial-abc/x.nii.gz").write_bytes(b"half")
    (tmp_path / "out/.partial-refused.csv").write_bytes(b"half")
    prepare(raw, tmp_path / "out")
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_an_interrupted_run_is_continued(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def stop_at_the_fifth(*task: object) -> object:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(task)
        return original(*task)

    original = prepare_one
    monkeypatch.setattr(module, "prepare_one", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        prepare(raw, tmp_path / "out")
    assert not (tmp_path / "out/siemens/cohort.csv").exists()
    monkeypatch.undo()
    assert prepare(raw, tmp_path / "out").n_reused == 4


def test_an_unusable_destination_is_bad_input(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="cannot be used"):
        prepare(raw, tmp_path / "file")


def test_a_failed_write_is_an_error(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_tables", full)
    with pytest.raises(MedDualLoRAError, match="No space left on device; make room there") as error:
        prepare(raw, tmp_path / "out")
    assert error.value.exit_code == 1


def die(*_: object) -> None:
    os._exit(1)


def test_a_dead_process_is_an_error(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "prepare_one", die)
    with pytest.raises(MedDualLoRAError, match="a process died"):
        prepare(raw, tmp_path / "out", replace(OPTIONS, n_processes=2))


# Made with the CineMA reference implementation, see ../shared/golden/README.md.
GOLDEN = [
    ("siemens", "patient001", "acdc/train"),
    ("siemens", "patient061", "acdc/train"),
    ("philips", "A0S9V9", "mnms/train"),
    ("ge", "B3P3R1", "mnms/train"),
    ("siemens", "001", "mnms2"),
    ("ge", "002", "mnms2"),
]


@pytest.fixture(scope="module")
def golden(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference cohorts, prepared."""
    root, out = shared / "golden/preprocess/raw", tmp_path_factory.mktemp("golden")
    subjects = [item for reader in (acdc, mnms, mnms2) for item in reader.read(root)[0]]
    assert prepare_cohorts(out, subjects, [], OPTIONS).n_prepared == 6
    return out


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case[1])
@pytest.mark.parametrize("phase", ["ed", "es"])
def test_parity_with_the_reference(golden: Path, shared: Path, case: tuple[str, str, str], phase: str) -> None:
    vendor, subject, expected = case
    name = f"{subject}_sax_{phase}"
    reference = shared / "golden/preprocess/expected" / expected / subject
    own, theirs = (nib.load(folder / f"{name}.nii.gz") for folder in (golden / vendor / subject, reference))
    assert own.shape == theirs.shape
    # The affine holds the crop window: the position of the first voxel that was kept.
    assert np.allclose(own.affine, theirs.affine, atol=1e-4)
    difference = np.abs(np.asarray(own.dataobj).astype(int) - np.asarray(theirs.dataobj))
    assert difference.max() <= 1
    assert np.mean(difference == 0) >= 0.99
    labels = [nib.load(folder / f"{name}_gt.nii.gz") for folder in (golden / vendor / subject, reference)]
    assert np.array_equal(*(np.asarray(image.dataobj) for image in labels))
    assert np.allclose(labels[0].affine, labels[1].affine, atol=1e-4)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case[1])
def test_metadata_agrees_with_the_reference(golden: Path, shared: Path, case: tuple[str, str, str]) -> None:
    vendor, subject, expected = case
    cohort = {item.subject: item for item in PreparedCohort.read(golden / vendor).subjects}
    folder = shared / "golden/preprocess/expected" / expected
    table = folder.parent / f"{folder.name}_metadata.csv"
    if table.is_file():  # the reference wrote none for M&Ms-2
        (row,) = (row for _, row in read_rows(table, ("pid",)) if row["pid"] == subject)
        assert (cohort[subject].pathology, str(cohort[subject].n_slices)) == (row["pathology"], row["n_slices"])
    assert load_volume(cohort[subject]).shape[3] == cohort[subject].n_slices
