"""What speaks against trusting a prediction: where the scan differs from what the model was trained on.

None of it says that a prediction is wrong, and its absence does not say that it is right.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.heart_place import CONFIDENT
from med_duallora.inference.scan import Scan
from med_duallora.site.reference import distances

Statistics = Mapping[str, np.ndarray]

UNUSUAL = 0.95
"""Part of the training subjects that must be nearer for a distance to be called unusual."""
TOLERANCE = 0.01
"""Of a voxel size: scanners and programs round it."""


@dataclass(frozen=True)
class Distance:
    """How far a scan lies from the training subjects.

    Args:
        value: see ``site.reference.distances``.
        nearer: part of the training subjects that lie nearer to the others than this scan does, 0 to 1.
        usual: distance within which ``UNUSUAL`` of the training subjects lie.
        n_subjects: how many there are.
    """

    value: float
    nearer: float
    usual: float
    n_subjects: int


def distance_of(reference: Statistics, summary: np.ndarray) -> Distance | None:
    """Return how far a scan's trunk features (n_features,) lie from the training subjects; None: nothing tells it."""
    if not len(reference.get("distances", ())):
        return None
    own = np.asarray(reference["distances"])
    value = float(distances(reference, summary[None])[0])
    usual = float(np.quantile(own, UNUSUAL, method="higher"))
    return Distance(value, float(np.mean(own < value)), usual, len(own))


def against_trust(scan: Scan, reference: Statistics, distance: Distance | None) -> tuple[str, ...]:
    """Return what speaks against trusting a prediction, one sentence each; what follows a colon is the detail."""
    return (*_of_distance(distance), *_of_sizes(scan, reference), *_of_place(scan))


def _of_distance(distance: Distance | None) -> Iterator[str]:
    if distance is None:
        yield "it is not known how far the scan is from the training subjects: the model holds no statistics of them"
    elif distance.value > distance.usual:
        yield (
            f"the scan looks unlike the training subjects: farther from them than {distance.nearer:.0%} of the "
            f"{distance.n_subjects} are from each other (distance {distance.value:.1f}, usual is up to "
            f"{distance.usual:.1f})"
        )


def _of_sizes(scan: Scan, reference: Statistics) -> Iterator[str]:
    if scan.spacing and len(reference.get("spacing", ())):
        low, high = reference["spacing"]
        for axis, value, least, most in zip("xyz", scan.spacing, low, high, strict=True):
            if not least * (1 - TOLERANCE) <= value <= most * (1 + TOLERANCE):
                yield (
                    f"voxel size along {axis} outside the training range: {value:.3g} mm, not {least:.3g} to "
                    f"{most:.3g} mm"
                )
    if len(reference.get("n_slices", ())):
        least, most = (int(n) for n in reference["n_slices"])
        if not least <= scan.n_slices <= most:
            yield f"number of slices at 10 mm outside the training range: {scan.n_slices}, not {least} to {most}"


def _of_place(scan: Scan) -> Iterator[str]:
    if scan.crop_confidence is not None and scan.crop_confidence < CONFIDENT:
        yield f"the heart was not found with confidence, the crop may miss it: confidence {scan.crop_confidence:.2f}"
