from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from med_duallora.cohorts.montage import MontageRow, read_rows, write_montage
from med_duallora.cohorts.nifti import write_nifti
from med_duallora.errors import CohortError, InputError
from tests.unit.cohorts.raw import mnms_row, write_acdc, write_mnms


def image(folder: Path, name: str, shape: tuple[int, ...] = (20, 16, 5)) -> Path:
    path = folder / name
    write_nifti(
        path, np.random.default_rng(len(name)).integers(0, 200, shape).astype(np.int16), np.diag([1.5, 1.2, 8, 1])
    )
    return path


def row(synthetic: bool) -> MontageRow:
    stack = np.arange(12 * 10 * 3).reshape(12, 10, 3)
    return MontageRow("one", stack, stack[::-1], (1.5, 1.5), synthetic)


def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from matplotlib.figure import Figure

    found: list[str] = []
    monkeypatch.setattr(Figure, "suptitle", lambda _, text, **__: found.append(text))
    return found


def test_prepared_cohorts_are_shown_vendor_by_vendor(tiny_cohorts: dict[str, Path]) -> None:
    parent = next(iter(tiny_cohorts.values())).parent
    rows = read_rows([parent], 3)
    assert len(rows) == 12
    assert rows[0].ed.shape == (192, 192, 4)
    assert rows[0].ed.dtype == np.uint8
    one = read_rows([tiny_cohorts["ge"]], 2)
    assert [item.title.split("\n")[2] for item in one] == ["DCM", "NOR"]  # pathologies in turn
    assert not any(item.synthetic for item in rows)


@pytest.mark.parametrize("inner", ["", "acdc", "mnms"])
def test_raw_cohorts_are_shown(tmp_path: Path, inner: str) -> None:
    write_acdc(tmp_path / "acdc", {"patient001": "DCM", "patient061": "NOR"})
    write_mnms(tmp_path / "mnms", [mnms_row("A0S9V9"), mnms_row("C0U9U9", VendorName="GE", Vendor="C")])
    rows = read_rows([tmp_path / inner], 5)
    assert len(rows) == (2 if inner else 4)
    assert all(item.ed.ndim == 3 and item.ed.shape == item.es.shape for item in rows)
    assert not np.array_equal(rows[0].ed, rows[0].es)


def test_files_are_shown_in_pairs(tmp_path: Path) -> None:
    pair = [image(tmp_path, "ed.nii.gz"), image(tmp_path, "later_es.nii.gz")]
    (item,) = read_rows(pair, 1)
    assert item.title == "ed"
    assert item.spacing == pytest.approx((1.5, 1.2))


@pytest.mark.parametrize("name", ["phantom.json", "preparation.json"])
def test_phantoms_are_labelled(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = titles(monkeypatch)
    (tmp_path / name).write_text('{"synthetic": true}')
    rows = read_rows([image(tmp_path, "ed.nii.gz"), image(tmp_path, "es.nii.gz")], 1)
    write_montage(rows, tmp_path / "out.png")
    assert found == ["synthetic phantoms - not for diagnosis"]


@pytest.mark.parametrize(
    ("kinds", "expected", "reason"),
    [
        ((False, False), [], "scans need no label"),
        ((True, False), ["1 of 2 rows: synthetic phantoms - not for diagnosis"], "a mixture says which part"),
    ],
)
def test_only_phantoms_are_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[bool, ...], expected: list[str], reason: str
) -> None:
    found = titles(monkeypatch)
    write_montage([row(kind) for kind in kinds], tmp_path / "out.png")
    assert found == expected, reason


def test_the_picture_has_a_row_per_subject(tmp_path: Path) -> None:
    sizes = []
    for n in (1, 3):
        write_montage([row(True)] * n, tmp_path / "out.png")
        sizes.append(matplotlib.image.imread(tmp_path / "out.png").shape)
    assert sizes[0][1] == sizes[1][1]
    assert sizes[1][0] > 2 * sizes[0][0]


@pytest.mark.parametrize(
    ("names", "error", "match"),
    [
        (["nowhere"], InputError, "nowhere does not exist"),
        (["empty"], InputError, "is neither a prepared cohort nor a raw"),
        (["ed.nii.gz"], InputError, "has no partner"),
        (["ed.nii.gz", "other.nii.gz"], CohortError, r"has shape \(20, 16, 5\), but"),
        (["ed.nii.gz", "cine.nii.gz"], CohortError, "expected one stack of slices"),
        (["ed.nii.gz", "text.nii.gz"], CohortError, "unreadable-file"),
    ],
)
def test_unusable_paths_are_refused(tmp_path: Path, names: list[str], error: type[Exception], match: str) -> None:
    (tmp_path / "empty").mkdir()
    image(tmp_path, "ed.nii.gz")
    image(tmp_path, "other.nii.gz", (20, 16, 6))
    image(tmp_path, "cine.nii.gz", (20, 16, 5, 3))
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(error, match=match):
        read_rows([tmp_path / name for name in names], 1)


@pytest.mark.parametrize(
    ("rows", "name", "match"), [([], "out.png", "no subjects to show"), ([row(True)], "out.jpg", r"must end in \.png")]
)
def test_unusable_pictures_are_refused(tmp_path: Path, rows: list[MontageRow], name: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        write_montage(rows, tmp_path / name)


def test_real_subjects_are_shown(shared: Path, tmp_path: Path) -> None:
    pairs = [shared / "real_cmr" / f"{name}_sax_{phase}.nii.gz" for name in ("acdc", "mnms") for phase in ("ed", "es")]
    rows = read_rows(pairs, 1)
    assert not any(item.synthetic for item in rows)
    write_montage(rows, tmp_path / "real.png")
