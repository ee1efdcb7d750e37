import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from med_duallora.cohorts.examination import ERROR, NOTE, WARNING, Examination, cohorts_at, examine
from med_duallora.errors import InputError
from med_duallora.settings.policy import SitePolicy

from .conftest import copy_of, edit, image, rewrite_image, set_all

FLOOR = SitePolicy(min_subjects=5)


def examined(*folders: Path, policy: SitePolicy = FLOOR) -> list[Examination]:
    return examine(list(folders), policy, "this site")


def texts(found: Examination, severity: str) -> list[str]:
    return [finding.text for finding in found.findings if finding.severity == severity]


def test_a_healthy_cohort_is_fit_and_raises_no_alarm(cohort: Path) -> None:
    (found,) = examined(cohort)
    assert found.is_fit
    assert found.sentence() == (
        "ge is fit to join: 30 subjects (15 normal (NOR), 15 diseased; 10 train, 10 val, 10 test)."
    )
    assert found.findings == ()
    assert len(found.measured) == 30
    assert not found.synthetic


def one_class_to_train(folder: Path) -> None:
    edit(folder, lambda rows: [row.update(label="1", pathology="DCM") for row in rows if row["split"] == "train"])


def damaged(folder: Path) -> None:
    image(folder, "ge003", "es").write_bytes(b"\x1f\x8b damaged")


def missing(folder: Path) -> None:
    image(folder, "ge003", "es").unlink()


def leaked(folder: Path) -> None:
    copy_of(folder, "ge003", "ge025")


def twice_in_training(folder: Path) -> None:
    copy_of(folder, "ge003", "ge005")


def table_of_another_program(folder: Path) -> None:
    (folder / "cohort.csv").write_text("subject,split\nge001,train\n")


def label_out_of_range(folder: Path) -> None:
    edit(folder, lambda rows: rows[4].update(label="7"))


def blank(folder: Path) -> None:
    rewrite_image(image(folder, "ge003", "es"), lambda voxels: np.full_like(voxels, 9))


def one_image_twice(folder: Path) -> None:
    shutil.copy(image(folder, "ge003", "ed"), image(folder, "ge003", "es"))


def label_against_pathology(folder: Path) -> None:
    edit(folder, lambda rows: rows[3].update(pathology="NOR"))


def exchanged(folder: Path) -> None:
    with_label_maps(folder, lambda number: 35 if number == 3 else 50, lambda number: 50 if number == 3 else 35)


def no_ventricle(folder: Path) -> None:
    with_label_maps(folder, lambda number: 0 if number == 3 else 50, lambda _: 35)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (
            one_class_to_train,
            "its train split has 0 normal (NOR) and 10 diseased subjects",
        ),
        (damaged, "prepare ge003 again"),
        (missing, "ge003_sax_es.nii.gz does not exist"),
        (leaked, "ge003 (train) and ge025 (test) are one scan"),
        (twice_in_training, "ge003 (train) and ge005 (train) are one scan"),
        (table_of_another_program, "lacks the column"),
        (label_out_of_range, "label is '7'"),
        (blank, "1 subject(s): a volume has one grey value only"),
        (one_image_twice, "1 subject(s): ED and ES are the same image"),
        (label_against_pathology, "label and pathology of 1 subject(s) contradict each other"),
        (exchanged, "1 subject(s): the left ventricle is not smaller at ES than at ED"),
        (no_ventricle, "1 subject(s): a label map shows no left ventricle"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_keeps_a_cohort_from_joining_is_an_error(cohort: Path, fault: Callable[[Path], None], says: str) -> None:
    fault(cohort)
    (found,) = examined(cohort)
    assert not found.is_fit
    assert found.sentence().startswith("ge cannot join yet: ")
    assert any(says in text for text in texts(found, ERROR)), texts(found, ERROR)


def test_one_bad_subject_hides_neither_another_one_nor_a_leak(cohort: Path) -> None:
    """Volumes are compared where the table has no identities, and only those that can be opened."""
    damaged(cohort)
    copy_of(cohort, "ge007", "ge025")
    image(cohort, "ge011", "ed").unlink()
    label_out_of_range(cohort)
    (found,) = examined(cohort, policy=SitePolicy.for_one_machine())
    errors = [finding for finding in found.findings if finding.severity == ERROR]
    assert {finding.subjects for finding in errors} == {("ge003",), ("ge004",), ("ge011",), ("ge007", "ge025")}
    assert len(found.measured) == 27
    assert len(found.cohort.subjects) == 28


def test_the_use_of_a_leaked_scan_is_said(cohort: Path) -> None:
    leaked(cohort)
    (text,) = texts(examined(cohort)[0], ERROR)
    assert "one is judged by what was learned from the other" in text


def too_bright(folder: Path) -> None:
    rewrite_image(image(folder, "ge007", "ed"), lambda voxels: np.maximum(voxels, 230))


def far_apart_slices(folder: Path) -> None:
    edit(folder, lambda rows: rows[7].update(spacing_z="30.0"))


def not_found(folder: Path) -> None:
    edit(folder, lambda rows: rows[7].update(crop_centre="image"))


def hardly_found(folder: Path) -> None:
    edit(folder, lambda rows: rows[7].update(crop_centre="motion", crop_confidence="0.20"))


def with_label_maps(folder: Path, ed_side: Callable[[int], int], es_side: Callable[[int], int]) -> None:
    """Write label maps with a square left ventricle of so many pixels' side for each subject's number."""
    for number in range(30):
        for phase, side in (("ed", ed_side(number)), ("es", es_side(number))):
            path = image(folder, f"ge{number:03d}", phase)
            labels = np.zeros((192, 192, 4), np.uint8)
            labels[90 : 90 + side, 90 : 90 + side] = 3
            nib.save(nib.Nifti1Image(labels, np.diag([1, 1, 10, 1])), str(path).replace(".nii", "_gt.nii"))


def tiny_heart(folder: Path) -> None:
    """Label maps of 100 mL at ED for all but one, which has 4 mL."""
    with_label_maps(folder, lambda number: 10 if number == 7 else 50, lambda number: 7 if number == 7 else 35)


def tiny_motion(folder: Path) -> None:
    """One subject without label maps moves in a small spot only."""

    def spot(voxels: np.ndarray) -> np.ndarray:
        moved = np.zeros_like(voxels)
        moved[90:102, 90:102] = 90
        return np.clip(voxels.astype(int) - moved, 0, 255).astype(np.uint8)

    shutil.copy(image(folder, "ge007", "ed"), image(folder, "ge007", "es"))
    rewrite_image(image(folder, "ge007", "es"), spot)


def label_map(folder: Path, phase: str = "ed") -> Path:
    return Path(str(image(folder, "ge007", phase)).replace(".nii", "_gt.nii"))


def damaged_label_map(folder: Path) -> None:
    with_label_maps(folder, lambda _: 50, lambda _: 35)
    label_map(folder, "es").write_bytes(b"damaged")


def label_map_of_another_shape(folder: Path) -> None:
    with_label_maps(folder, lambda _: 50, lambda _: 35)
    rewrite_image(label_map(folder, "es"), lambda labels: labels[:, :, 1:])


def cut_heart(folder: Path) -> None:
    with_label_maps(folder, lambda _: 50, lambda _: 35)
    rewrite_image(label_map(folder), lambda labels: np.roll(labels, 52, axis=0))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (too_bright, "mean grey value of ED and ES"),
        (far_apart_slices, "raw distance of slices, mm: far from the median of 10: ge007 30"),
        (not_found, "1 subject(s) were cropped at the image's centre"),
        (hardly_found, "1 heart(s) were found by their motion with low confidence"),
        (tiny_heart, "left ventricle at ED by its label map, mL: far from the median of 100: ge007 4"),
        (tiny_motion, "spread of what moves around its middle, mm (without label maps): far from the median"),
        (damaged_label_map, "1 subject(s): a label map is damaged"),
        (label_map_of_another_shape, "1 subject(s): a label map has another shape than its image"),
        (cut_heart, "1 subject(s): the left ventricle reaches the edge of the picture"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_who_should_be_looked_at_is_a_warning_that_names_him(
    cohort: Path, fault: Callable[[Path], None], says: str
) -> None:
    fault(cohort)
    (found,) = examined(cohort)
    assert found.is_fit, "somebody should look, but nothing keeps it from joining"
    warned = [finding for finding in found.findings if finding.severity == WARNING]
    assert any(says in finding.text and finding.subjects == ("ge007",) for finding in warned), warned
    assert all(finding.subjects == ("ge007",) for finding in warned), "nobody else is accused"


def test_what_is_good_to_know_is_a_note(cohort: Path) -> None:
    edit(cohort, set_all(remarks="pixdim and sform disagree: 1 x 1 x 1 against 1.5 x 1.5 x 10"))
    edit(cohort, lambda rows: rows[5].update(remarks="pixdim and sform disagree: 1 x 1 x 1 against 1.4 x 1.4 x 10"))
    edit(cohort, lambda rows: rows[0].update(vendor="philips", frames="automatic"))
    (cohort.parent / "refused.csv").write_text("subject,dataset,source,reason,detail\na,table,x,empty-lv,y\n")
    (found,) = examined(cohort)
    notes = " | ".join(texts(found, NOTE))
    assert found.is_fit
    assert "ED and ES of 1 subject(s) were chosen automatically" in notes
    assert "scanners of 2 vendors are one site here (ge 29, philips 1)" in notes
    assert "remark of the preparation on 30 subject(s): pixdim and sform disagree; cohort.csv has the details" in notes
    assert notes.count("remark of the preparation") == 1, "what follows a colon is a detail"
    assert "the preparation refused 1 subject(s)" in notes


def test_a_class_that_can_be_told_by_the_centre_is_a_warning(cohort: Path) -> None:
    edit(cohort, lambda rows: [row.update(centre=f"centre {row['label']}") for row in rows])
    (found,) = examined(cohort)
    assert found.is_fit
    (text,) = texts(found, WARNING)
    assert text.startswith("no centre has both normal (NOR) and diseased subjects: a model can learn the centre")
    edit(cohort, lambda rows: rows[0].update(centre="centre 1"))
    assert examined(cohort)[0].findings == (), "one subject of the other class there, and it is not a rule any more"


def test_words_of_another_program_are_not_judged(cohort: Path) -> None:
    edit(cohort, lambda rows: [row.update(pathology=f"word {row['label']}") for row in rows])
    assert examined(cohort)[0].findings == ()


@pytest.mark.parametrize(
    ("policy", "severity", "says"),
    [
        (SitePolicy(min_subjects=6), WARNING, "lets numbers leave only from 6 of each class on"),
        (SitePolicy(min_subjects=6), ERROR, "leaves this site only from 6 of each class on (policy.min_subjects)"),
        (SitePolicy(min_train_subjects=11), ERROR, "leaves this site only from 11 in all on (policy.min_train_subj"),
        (SitePolicy(metrics_leave=False), NOTE, "lets no metric leave"),
    ],
)
def test_what_the_privacy_floor_keeps_back_is_said(cohort: Path, policy: SitePolicy, severity: str, says: str) -> None:
    (found,) = examined(cohort, policy=policy)
    assert any(says in text for text in texts(found, severity))
    (again,) = examined(cohort, policy=SitePolicy(min_subjects=5))
    assert again.findings == (), "five of each class are at least five"


def test_a_scan_at_two_sites_is_an_error_of_both(cohort: Path, tmp_path: Path) -> None:
    twin = tmp_path / "prepared" / "twin"
    shutil.copytree(cohort, twin)
    names = [f"ge{number:03d}" for number in range(30) if number != 3]
    for name in names:
        for phase in ("ed", "es"):
            rewrite_image(image(twin, name, phase), lambda voxels: np.where(voxels > 100, voxels - 1, voxels))
    first, second = examined(cohort, twin)
    for found in (first, second):
        assert texts(found, ERROR) == [
            "ge003 (train, ge) and ge003 (train, twin) are one scan: the ED image of one is the ED image of the other "
            "and the ES image of one is the ES image of the other; it counts twice. Keep one of them and prepare again"
        ]


def test_cohorts_are_found_where_they_are_and_directly_below(cohort: Path, tmp_path: Path) -> None:
    assert cohorts_at([cohort]) == [cohort]
    assert cohorts_at([cohort.parent, cohort]) == [cohort], "each once"
    with pytest.raises(InputError, match=r"holds no prepared cohort.*`med-duallora prepare` makes one"):
        cohorts_at([cohort / "ge001"])
    with pytest.raises(InputError, match="does not exist, or is not a folder"):
        cohorts_at([tmp_path / "nowhere"])


def test_an_examination_writes_nothing(cohort: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in cohort.parent.rglob("*"))
    examined(cohort)
    assert sorted((path, path.stat().st_mtime_ns) for path in cohort.parent.rglob("*")) == before
