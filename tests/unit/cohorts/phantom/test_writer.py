import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts import acdc, mnms
from med_duallora.cohorts.phantom import Recipe, draw_subject, layouts, plan_cohort, write_cohort
from med_duallora.cohorts.phantom.layouts import frame_shares
from med_duallora.cohorts.phantom.solve import solve_phases
from med_duallora.errors import CohortError, ConfigError, MedDualLoRAError
from med_duallora.support.files import sha256_of_file
from tests.unit.refused import refused as refused_setting

RECIPE = Recipe("demo", seed=5, n_per_vendor=4)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_of_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def copy(cohort: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cohort, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"preset": "huge"}, "one of demo, study, pretrain"),
        ({"seed": -1}, "at least 0"),
        ({"n_per_vendor": 3}, "between 4 and 5000"),
        ({"n_per_vendor": 5001}, "between 4 and 5000"),
    ],
)
def test_recipes_are_checked(settings: dict[str, object], limit: str) -> None:
    ((key, value),) = settings.items()
    with refused_setting(key, value, limit):
        Recipe(**settings)


def test_the_readers_read_everything(cohort: Path) -> None:
    for reader, name, n_expected in ((acdc, "acdc", 2), (mnms, "mnms", 14)):
        subjects, refused = reader.read(cohort / name)
        assert len(subjects) == n_expected
        assert not refused
        for subject in subjects:
            assert all(source.path.is_file() for _, source in subject.sources())


def test_acdc_counts_frames_from_one_and_swaps_labels(cohort: Path) -> None:
    folder = next((cohort / "acdc").rglob("patient001"))
    info = dict(line.split(": ") for line in (folder / "Info.cfg").read_text().splitlines())
    assert info["ED"] == "1"
    assert info["ES"] == info["NbFrame"] == "3"
    cine = np.asarray(nib.load(folder / "patient001_4d.nii.gz").dataobj)
    assert np.array_equal(cine[..., 2], np.asarray(nib.load(folder / "patient001_frame03.nii.gz").dataobj))
    labels = np.asarray(nib.load(folder / "patient001_frame01_gt.nii.gz").dataobj)
    image = cine[..., 0]
    assert np.median(image[labels == 2]) < 0.6 * np.median(image[labels == 3])  # wall and LV cavity
    heart = draw_subject(plan_cohort("demo", 5, 4)[0].identity).anatomy
    voxel = np.prod(nib.load(folder / "patient001_frame01.nii.gz").header.get_zooms()) / 1000
    assert (labels == 3).sum() * voxel == pytest.approx(heart.lv_edv, rel=0.12)


def test_mnms_counts_frames_from_zero_and_labels_two_of_them(cohort: Path) -> None:
    subjects, _ = mnms.read(cohort / "mnms")
    for subject in subjects[:4]:
        labels = np.asarray(nib.load(subject.ed_segmentation.path).dataobj)
        sizes = {frame: int((labels[..., frame] == 1).sum()) for frame in range(labels.shape[3])}
        assert subject.ed.frame is not None and subject.es.frame is not None
        assert {frame for frame, size in sizes.items() if size} == {subject.ed.frame, subject.es.frame}
        assert sizes[subject.ed.frame] > sizes[subject.es.frame]


def test_frames_start_anywhere() -> None:
    plan = [entry for entry in plan_cohort("study", 0, 120) if entry.layout == "mnms"]
    assert {frame_shares(entry, cine=True) for entry in plan} == {(0.0, 0.55, 1.0), (1.0, 0.0, 0.55), (0.55, 1.0, 0.0)}


def test_the_truth_table_names_every_subject(cohort: Path) -> None:
    rows = list(csv.DictReader((cohort / "truth.csv").open()))
    plan = plan_cohort("demo", 5, 4)
    assert [row["subject"] for row in rows] == [entry.name for entry in plan]
    heart = draw_subject(plan[3].identity).anatomy
    assert float(rows[3]["lv_edv"]) == pytest.approx(heart.lv_edv, abs=1e-3)
    assert float(rows[3]["rv_ef"]) == pytest.approx(heart.rv_ef, abs=1e-3)
    assert float(rows[3]["mass_g"]) == pytest.approx(heart.mass, abs=1e-3)
    assert float(rows[3]["wall_mean_ed"]) < float(rows[3]["wall_max_ed"])
    assert solve_phases(heart)


def test_the_cohort_says_what_it_is(cohort: Path) -> None:
    text = (cohort / "README.txt").read_text()
    assert text.startswith("Synthetic phantoms - not for diagnosis.")
    assert "seed 5, 16 subjects" in text
    recipe = json.loads((cohort / "phantom.json").read_text())
    assert recipe == {"version": 2, "preset": "demo", "seed": 5, "n_per_vendor": 4}


def test_more_processes_give_the_same_files(cohort: Path, tmp_path: Path) -> None:
    assert write_cohort(tmp_path / "again", RECIPE, n_processes=2) == 16
    assert contents(tmp_path / "again") == contents(cohort)


def test_an_interrupted_cohort_is_completed(cohort: Path, copy: Path) -> None:
    whole = next((copy / "acdc").rglob("patient001"))
    before = (whole / "Info.cfg").stat().st_mtime_ns
    shutil.rmtree(next((copy / "acdc").rglob("patient002")))
    (copy / "truth.csv").unlink()
    (whole.parent / ".partial-left").mkdir()
    write_cohort(copy, RECIPE)
    assert contents(copy) == contents(cohort)
    assert not list(copy.rglob(".partial-*"))
    assert (whole / "Info.cfg").stat().st_mtime_ns == before


def test_another_recipe_never_mixes_in(copy: Path) -> None:
    with pytest.raises(CohortError, match="holds another phantom cohort"):
        write_cohort(copy, Recipe("demo", seed=6, n_per_vendor=4))


def test_a_damaged_recipe_is_another_cohort(copy: Path) -> None:
    (copy / "phantom.json").write_text("{")
    with pytest.raises(CohortError, match="holds another phantom cohort"):
        write_cohort(copy, RECIPE)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_foreign_place_is_left_alone(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mine"
    if kind == "folder":
        place.mkdir()
        (place / "thesis.txt").write_text("keep")
    else:
        place.write_text("keep")
    with pytest.raises(CohortError, match="is not a phantom cohort"):
        write_cohort(place, RECIPE)


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="processes = 0"):
        write_cohort(tmp_path / "out", RECIPE, n_processes=0)


def test_an_unwritable_place_is_reported(tmp_path: Path, bound_by_modes: None) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(MedDualLoRAError, match="cannot write below"):
        write_cohort(tmp_path / "closed" / "out", RECIPE)


def test_a_subject_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(layouts, "write_nifti", fail)
    with pytest.raises(MedDualLoRAError, match="disk full"):
        write_cohort(tmp_path / "out", RECIPE)
    assert not [path for path in (tmp_path / "out").rglob("*") if "patient" in path.name or "partial" in path.name]


def test_the_pool_says_that_labels_are_not_used(tmp_path: Path) -> None:
    assert write_cohort(tmp_path / "pool", Recipe("pretrain", n_per_vendor=4)) == 4
    assert "unlabelled pool" in (tmp_path / "pool" / "LABELS_ARE_NOT_USED.txt").read_text()
    assert not (tmp_path / "pool" / "mnms").exists()
    assert not list((tmp_path / "pool").rglob("*_4d.nii.gz"))
    subjects, refused = acdc.read(tmp_path / "pool" / "acdc")
    assert len(subjects) == 4
    assert not refused
