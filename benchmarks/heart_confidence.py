"""Whether the confidence of a heart's place tells a place that is right from one that is wrong.

    python benchmarks/heart_confidence.py --acdc DIR [--half odd|even]

Raw ACDC with its label maps, which are used only to judge. Every patient is altered in several ways: some leave the
heart where it can be found, others leave little or nothing to find. A place is right within 25 mm of the centre of the
left ventricle's bounding box at ED, and sure where its confidence is high enough for the crop to follow it. The
threshold was chosen on the odd half.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from med_duallora.cohorts import acdc
from med_duallora.cohorts.heart_place import CONFIDENT, find_heart
from med_duallora.cohorts.nifti_stream import files_sha256
from med_duallora.cohorts.stacks import load_stacks
from med_duallora.cohorts.subject import RawSubject
from med_duallora.cohorts.volume import LV
from med_duallora.support.progress import track

Array = np.ndarray[Any, np.dtype[Any]]

RIGHT = 25.0  # mm


@dataclass(frozen=True)
class Patient:
    """ED and ES (X, Y, Z), voxel size in mm, and the ventricle's centre as a voxel index."""

    ed: Array
    es: Array
    spacing: tuple[float, float, float]
    centre: Array


def main() -> None:
    """Alter every patient of a half, find the heart, and print how sure and how right the places are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acdc", type=Path, required=True, metavar="DIR", help="raw ACDC")
    parser.add_argument("--half", choices=("odd", "even"), default="even", help="of the patients (default: even)")
    options = parser.parse_args()
    patients = [_patient(raw) for raw in acdc.read(options.acdc)[0][options.half == "even" :: 2]]
    found: dict[str, list[tuple[bool, bool]]] = {}
    for index, patient in enumerate(track(patients, "finding hearts", len(patients))):
        other = patients[(index + 7) % len(patients)]
        for name, frames, centre in _altered(patient, other, np.random.default_rng(index)):
            place = find_heart(frames, patient.spacing)
            off = np.hypot(*((np.array(place.centre) - centre) * patient.spacing[:2]))
            found.setdefault(name, []).append((place.confidence >= CONFIDENT, bool(off <= RIGHT)))
    _print(found)


def _patient(raw: RawSubject) -> Patient:
    stacks = load_stacks(raw, files_sha256([source.path for _, source in raw.sources()])[1])
    lv = np.nonzero((stacks.ed_labels == raw.label_numbers.index(LV)).any(axis=2))
    centre = np.array([(axis.min() + axis.max()) / 2 for axis in lv])
    return Patient(stacks.ed.astype(np.float64), stacks.es.astype(np.float64), stacks.spacing, centre)


def _altered(patient: Patient, other: Patient, rng: np.random.Generator) -> Iterator[tuple[str, Array, Array]]:
    """Yield a name, frames (X, Y, Z, 2) and the ventricle's centre in them, which may lie outside."""
    ed, es, centre = patient.ed, patient.es, patient.centre
    both = np.stack([ed, es], axis=3)
    bright = float(np.percentile(ed, 99))
    per_mm = 1 / np.array(patient.spacing[:2])
    yield "as it is", both, centre
    yield "noise, 10 % of the brightest", both + rng.normal(0, 0.1 * bright, both.shape), centre
    low, high = np.maximum(centre - 60 * per_mm, 0).astype(int), (centre + 60 * per_mm).astype(int)
    yield "field of view of 120 mm", both[low[0] : high[0], low[1] : high[1]], centre - low
    first = max(0, int(centre[0] - 35 * per_mm[0]))
    yield "heart at the border", both[first:], centre - [first, 0]
    yield "an arm that moves by 4 mm", _with_arm(both, bright, per_mm[0]), centre
    yield "ES moved by 6 mm", np.stack([ed, ndimage.shift(es, (5 * per_mm[0], 3 * per_mm[1], 0), order=1)], 3), centre
    yield "ED twice, noise of 2 %", ed[..., None] + rng.normal(0, 0.02 * bright, both.shape), centre
    yield "noise alone", rng.normal(0, 1, both.shape), centre
    yield "ES of another patient", np.stack([ed, _of_shape(other.es, ed.shape)], axis=3), centre
    below, above = int(centre[1] + 60 * per_mm[1]), int(centre[1] - 60 * per_mm[1])
    for part, start in ((both[:, below:], below), (both[:, : max(above, 0)], 0)):
        if part.shape[1] > 30:
            yield "the part 60 mm and more beside the heart", part, centre - [0, start]


def _with_arm(both: Array, bright: float, per_mm: float) -> Array:
    """Add a bright band of 15 mm along a border."""
    frames = both.copy()
    for frame, start in enumerate((4, 4 + round(4 * per_mm))):
        frames[start : start + round(15 * per_mm), ..., frame] += bright
    return frames


def _of_shape(stack: Array, shape: tuple[int, ...]) -> Array:
    """Cut or fill up with zeros."""
    result = np.zeros(shape)
    common = tuple(slice(0, min(pair)) for pair in zip(stack.shape, shape, strict=True))
    result[common] = stack[common]
    return result


def _print(found: dict[str, list[tuple[bool, bool]]]) -> None:
    print("| altered | n | sure and right | sure and wrong | unsure |\n|---|---|---|---|---|")
    for name, places in found.items():
        right = sum(sure and near for sure, near in places)
        wrong = sum(sure and not near for sure, near in places)
        print(f"| {name} | {len(places)} | {right} | {wrong} | {len(places) - right - wrong} |")


if __name__ == "__main__":
    main()
