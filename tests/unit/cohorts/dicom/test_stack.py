"""The short-axis cine among a study's pictures: what belongs to it, and what makes it unusable."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.unit.cohorts.dicom.reading import ROW, read, without
from tests.unit.cohorts.dicomfiles import (
    ENHANCED_MR,
    SECRETS,
    SHAPE,
    SPACING,
    Change,
    directions,
    picture,
    position,
    save,
    write_study,
)


def of_slice(wanted: int, change: Change) -> Change:
    return lambda dataset, k, t: change(dataset, k, t) if k == wanted else dataset


def turned(degrees: float) -> Change:
    """Turn a slice about its x axis, through its middle."""

    def change(dataset: Dataset, k: int, t: int) -> Dataset:
        x, y, normal = directions()
        angle = np.deg2rad(degrees)
        turned_y = np.cos(angle) * y + np.sin(angle) * normal
        half = (SHAPE[1] - 1) / 2 * SPACING[1]
        dataset.ImageOrientationPatient = [float(f"{value:.6f}") for value in (*x, *turned_y)]
        dataset.ImagePositionPatient = [float(f"{value:.5f}") for value in position(k) + half * (y - turned_y)]
        return dataset

    return change


def two_slices(dataset: Dataset, k: int, t: int) -> Dataset | None:
    return dataset if k < 2 else None


def five_frames(dataset: Dataset, k: int, t: int) -> Dataset | None:
    return dataset if t < 5 else None


def other_matrix(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.Rows -= 1
    dataset.PixelData = dataset.PixelData[: -2 * dataset.Columns]
    return dataset


def other_pixels(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.PixelSpacing = [1.5, 1.5]
    return dataset


def shifted(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.ImagePositionPatient = [a + 6 * b for a, b in zip(position(k), directions()[0], strict=True)]
    return dataset


def no_times(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.TriggerTime, dataset.InstanceNumber = 0, 1
    return dataset


def twice_at_one_time(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.TriggerTime = float(20 + 70 * max(t, 1))
    return dataset


def enhanced(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.SOPClassUID = ENHANCED_MR
    return dataset


def unknown_maker(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.Manufacturer = "Zebrowski & Sons"
    return dataset


def cut_off(dataset: Dataset, k: int, t: int) -> Dataset:
    dataset.PixelData = dataset.PixelData[:100]
    return dataset


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (without(1, 4), "incomplete-cine", "slice 2 of 5 has 9 frames, most others have 10"),
        (without(4, *range(5)), "incomplete-cine", "slice 5 of 5 has 5 frames"),
        (without(2), "bad-geometry", "slices 2 and 3 of 4 are 16.00 mm apart, others 8.00 mm"),
        (
            of_slice(3, turned(4.0)),
            "bad-geometry",
            "slice 4 of 5 is not parallel to the others, but turned by 4.0 degrees",
        ),
        (of_slice(4, other_matrix), "bad-geometry", "slice 5 of 5 has 48 x 43 pixels"),
        (of_slice(4, other_pixels), "bad-geometry", "slice 5 of 5 has pixels of"),
        (of_slice(2, shifted), "bad-geometry", "slice 3 of 5 is shifted by 6.0 mm within its plane"),
        (no_times, "incomplete-cine", "nothing tells the frames of a slice apart"),
        (twice_at_one_time, "incomplete-cine", "10 pictures at 9 trigger times"),
        (enhanced, "unsupported-dicom", "Enhanced (multi-frame) form"),
        (unknown_maker, "unknown-vendor", "fill in the column vendor"),
        (of_slice(2, cut_off), "unreadable-file", "slice 3, frame 1 is truncated or damaged"),
        (two_slices, "no-cine", "most parallel slices with so many pictures: 2"),
        (five_frames, "no-cine", "no 3 parallel slices with 8 or more frames"),
    ],
)
def test_what_does_not_fit_is_refused_and_others_go_on(tmp_path: Path, change: Change, reason: str, words: str) -> None:
    write_study(tmp_path / "dicom/p1", change)
    write_study(tmp_path / "dicom/p2", seed=1)
    outcome = read(tmp_path / "dicom", ROW + "p2,NOR,c1\n")
    (refusal,) = outcome.refused
    assert (refusal.subject, refusal.dataset, refusal.source, refusal.reason) == ("p1", "dicom", "p1", reason)
    assert words in refusal.detail
    assert not any(secret.split("^")[0] in refusal.detail for secret in SECRETS.values())
    assert [item.subject for item in outcome.subjects] == ["p2"]


def test_a_stack_that_was_acquired_twice_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "dicom/p1"
    voxels = write_study(folder)
    study = generate_uid(entropy_srcs=["study 0"])
    for k, t in np.ndindex(SHAPE[2:]):
        again = picture(voxels[:, :, k, t], k, t, study, "1.2.9", TriggerTime=25.0 + 71 * t)
        save(again, folder / f"again{k}-{t}")
    (refusal,) = read(tmp_path / "dicom").refused
    assert refusal.reason == "incomplete-cine"
    assert "slice 1 of 5 is there 2 times" in refusal.detail
