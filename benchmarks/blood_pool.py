"""How often the blood pool's size finds end-diastole and end-systole (docs/dicom.md).

On phantom cines of 25 frames, where both are known to the frame; and on the ED and ES frames of raw ACDC patients,
where only their order can be asked for::

    python benchmarks/blood_pool.py [--acdc RAW/acdc]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from med_duallora.cohorts import acdc
from med_duallora.cohorts.dicom.phases import find_phases
from med_duallora.cohorts.nifti import read_nifti
from med_duallora.cohorts.phantom import Identity, draw_subject, render_subject
from med_duallora.cohorts.phantom.parameters import VENDORS

Array = np.ndarray[Any, np.dtype[Any]]

N_FRAMES = 25
# Share of the way from ED to ES over the cycle: contraction, early filling, a plateau, filling by the atria.
CYCLE = ((0, 0.0), (0.08, 0.1), (0.33, 1.0), (0.40, 0.95), (0.55, 0.35), (0.80, 0.2), (0.92, 0.02), (1.0, 0.0))
PATHOLOGIES = ("NOR", "DCM", "HCM", "MINF", "RV")


def phantom_cine(
    number: int, vendor: str, pathology: str, first: int
) -> tuple[Array, tuple[float, float, float], int, int]:
    """Return a phantom's cine (X, Y, Z, T), its spacing in mm, and its ED and ES frames.

    Args:
        number: of the vendor, for the random stream.
        vendor: of the scanner.
        pathology: of the heart.
        first: frame of end-diastole, modulo ``N_FRAMES``.
    """
    at, share = np.transpose(CYCLE)
    shares = np.interp(np.arange(N_FRAMES) / N_FRAMES, at, share)
    shares = np.roll((shares - shares.min()) / (shares.max() - shares.min()), first)
    rendering = render_subject(draw_subject(Identity(5, number, first, vendor, pathology)), tuple(shares))
    x, y, z = (float(length) for length in np.linalg.norm(rendering.affine[:3, :3], axis=0))
    return np.moveaxis(rendering.frames, 0, -1), (x, y, z), int(shares.argmin()), int(shares.argmax())


def off_by(found: int, true: int, n_frames: int) -> int:
    """Return how many frames lie between two, the short way round the cycle."""
    return min((found - true) % n_frames, (true - found) % n_frames)


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acdc", type=Path, help="raw ACDC")
    options = parser.parse_args()
    errors = []
    for number, vendor in enumerate(VENDORS):
        for index, pathology in enumerate(PATHOLOGIES):
            cine, spacing, ed, es = phantom_cine(number, vendor, pathology, 7 * index + 3)
            phases = find_phases(cine, spacing)
            errors.append((off_by(phases.ed, ed, N_FRAMES), off_by(phases.es, es, N_FRAMES)))
    within = (np.array(errors) <= 1).sum(axis=0)
    print(f"phantoms: ED within one frame in {within[0]} of {len(errors)}, ES in {within[1]} of {len(errors)}")
    if options.acdc is not None:
        print_acdc(options.acdc)


def print_acdc(place: Path) -> None:
    """Print in how many patients the blood pool is larger at ED than at ES."""
    subjects, _ = acdc.read(place)
    n_right = 0
    for subject in subjects:
        ed, es = (read_nifti(source.path) for source in (subject.ed, subject.es))
        n_right += find_phases(np.stack([ed.data, es.data], axis=3), ed.spacing).ed == 0
    print(f"ACDC: ED before ES in {n_right} of {len(subjects)}")


if __name__ == "__main__":
    main()
