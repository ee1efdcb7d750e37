"""How far from a segmentation's centre the heart is found without one.

    python benchmarks/heart_place.py [--acdc DIR] [--mnms DIR] [--out rows.csv]

Raw cohorts with label maps, which are used only to judge: the heart is found from ED and ES, and, where there is a
cine, from that as well. Distances, in mm, are from the place that was found to the centre of the left ventricle's
bounding box at ED. "Inside" counts the subjects whose whole left ventricle, at ED and ES, lies in the 192 mm crop
around the place; "unsure" those whose confidence is too low to be used. Odd and even are the subjects' places in their
cohort: the finder was developed on the odd ones of ACDC.
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from med_duallora.cohorts import acdc, mnms
from med_duallora.cohorts.crop_centre import CONFIDENT, cine_frames
from med_duallora.cohorts.heart_place import HeartPlace, find_heart
from med_duallora.cohorts.nifti_stream import files_sha256
from med_duallora.cohorts.stacks import Stacks, load_stacks
from med_duallora.cohorts.subject import RawSubject
from med_duallora.cohorts.volume import CROP_SIZE, LV
from med_duallora.errors import SubjectRefused
from med_duallora.support.progress import track


@dataclass(frozen=True)
class Found:
    """One subject, found once.

    Args:
        subject: its name.
        odd: whether it is the first, third, ... of its cohort.
        frames: ``ED and ES`` or ``cine``.
        distance_mm: from the place to the segmentation's centre.
        inside: whether the whole left ventricle lies in the crop around it.
        confidence: of the place.
    """

    subject: str
    odd: bool
    frames: str
    distance_mm: float
    inside: bool
    confidence: float


def main() -> None:
    """Find every heart and print the distances."""
    options = _parse()
    rows: list[Found] = []
    for name, reader, place in (("ACDC", acdc.read, options.acdc), ("M&Ms", mnms.read, options.mnms)):
        if place:
            found = _cohort(reader(place)[0])
            rows += found
            _print(name, found)
    if options.out:
        with options.out.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acdc", type=Path, metavar="DIR", help="raw ACDC")
    parser.add_argument("--mnms", type=Path, metavar="DIR", help="raw M&Ms")
    parser.add_argument("--out", type=Path, metavar="CSV", help="one row per subject")
    options = parser.parse_args()
    if not (options.acdc or options.mnms):
        parser.error("give --acdc or --mnms")
    return options


def _cohort(subjects: Sequence[RawSubject]) -> list[Found]:
    rows = []
    for number, raw in enumerate(track(subjects, "finding hearts", len(subjects)), start=1):
        try:
            stacks = load_stacks(raw, files_sha256(list(dict.fromkeys(s.path for _, s in raw.sources())))[1])
        except SubjectRefused as refused:
            print(f"{raw.subject} left out: {refused.detail}")
            continue
        if stacks.ed_labels is None or stacks.es_labels is None:
            continue
        pair = find_heart(np.stack([stacks.ed, stacks.es], axis=3), stacks.spacing)
        rows.append(_judged(raw, number, stacks, pair, "ED and ES"))
        cine = cine_frames(raw, stacks)
        if cine is not None:
            rows.append(_judged(raw, number, stacks, find_heart(cine, stacks.spacing), "cine"))
    return rows


def _judged(raw: RawSubject, number: int, stacks: Stacks, place: HeartPlace, frames: str) -> Found:
    lv = raw.label_numbers.index(LV)
    ed, es = (np.nonzero((labels == lv).any(axis=2)) for labels in (stacks.ed_labels, stacks.es_labels))
    off, inside = [], True
    for axis in range(2):
        spacing, n = stacks.spacing[axis], stacks.ed.shape[axis]
        found = place.centre[axis] * spacing
        off.append(found - (ed[axis].min() + ed[axis].max()) / 2 * spacing)
        # the crop is shifted back into the image, as the preparation does
        width = (n - 1) * spacing
        low = min(max(found - CROP_SIZE / 2, 0.0), max(width - CROP_SIZE, 0.0))
        edges = [edge * spacing for part in (ed, es) for edge in (part[axis].min(), part[axis].max())]
        inside &= low <= min(edges) and max(edges) <= low + CROP_SIZE
    return Found(raw.subject, number % 2 == 1, frames, float(np.hypot(*off)), bool(inside), place.confidence)


def _print(name: str, rows: Sequence[Found]) -> None:
    heads = ("n", 4), ("median", 9), ("95 %", 8), ("largest", 9), ("inside", 8), ("unsure", 8)
    print(f"{'cohort':<7}{'frames':<11}{'which':<6}" + "".join(f"{text:>{width}}" for text, width in heads))
    for frames in ("ED and ES", "cine"):
        for which, keep in (("all", (True, False)), ("odd", (True,)), ("even", (False,))):
            some = [row for row in rows if row.frames == frames and row.odd in keep]
            if some:
                distances = [row.distance_mm for row in some]
                middle, high = np.percentile(distances, (50, 95))
                unsure = sum(row.confidence < CONFIDENT for row in some)
                n_inside = sum(row.inside for row in some)
                numbers = f"{len(some):>4}{middle:>9.1f}{high:>8.1f}{max(distances):>9.1f}{n_inside:>8}{unsure:>8}"
                print(f"{name:<7}{frames:<11}{which:<6}{numbers}")


if __name__ == "__main__":
    main()
