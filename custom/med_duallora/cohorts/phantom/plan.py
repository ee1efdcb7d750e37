"""Who is in a phantom cohort: pathologies, places and table entries of every subject, decided before any drawing."""

from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.phantom.parameters import (
    ACDC_MIXTURE,
    MNMS_MIXTURE,
    PATHOLOGIES,
    POOL_MIXTURE,
    VENDORS,
    Mixture,
)
from med_duallora.cohorts.phantom.subject import Identity

PRESETS = {"demo": 28, "study": 120, "pretrain": 400}
LARGEST_COHORT = 5000
PLAN_INDEX = 2**31  # spawn key of a pool's own draws, beyond every subject's

# centres of M&Ms by vendor; each site of the federation is one vendor
CENTRES = {"siemens": (1,), "philips": (2, 3), "ge": (4,), "canon": (5,)}
# shares of (Training/Labeled, Validation, Testing): Canon was never in the training part, GE hardly labelled there
PLACES = ("Training/Labeled", "Validation", "Testing")
PLACE_SHARES = {
    "siemens": (0.75, 0.05, 0.2),
    "philips": (0.6, 0.1, 0.3),
    "ge": (0.0, 0.2, 0.8),
    "canon": (0.0, 0.2, 0.8),
}


@dataclass(frozen=True)
class Entry:
    """One subject of the plan.

    Args:
        identity: what it is made from.
        layout: acdc or mnms.
        name: its folder's name.
        place: its folder's parent inside the layout.
        centre: number of the centre (M&Ms).
        first_frame: how many frames the stored M&Ms cine is rotated by.
    """

    identity: Identity
    layout: str
    name: str
    place: str
    centre: int
    first_frame: int


def plan_cohort(preset: str, seed: int, n_per_vendor: int) -> tuple[Entry, ...]:
    """Return every subject of a cohort in a stable order.

    Half of the Siemens subjects are in ACDC's layout with its mixture of marked disease; all others are in M&Ms'
    layout with their vendor's mixture, borderline disease included. The pretrain pool is Siemens alone, in ACDC's
    layout, with borderline disease.
    """
    first_pool = 16 * tuple(PRESETS).index(preset)
    if preset == "pretrain":
        return _acdc_part(_pathologies(POOL_MIXTURE, n_per_vendor, seed, first_pool), seed, first_pool, borderline=True)
    entries: list[Entry] = []
    for number, vendor in enumerate(VENDORS):
        pool = first_pool + number
        n_acdc = n_per_vendor // 2 if vendor == "siemens" else 0
        entries.extend(_acdc_part(_pathologies(ACDC_MIXTURE, n_acdc, seed, pool + 8), seed, pool))
        classes = _pathologies(MNMS_MIXTURE[vendor], n_per_vendor - n_acdc, seed, pool)
        entries.extend(_mnms_part(classes, vendor, seed, pool, n_acdc))
    return tuple(entries)


def _plan_stream(seed: int, pool: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(pool, PLAN_INDEX)))


def class_counts(mixture: Mixture, n: int) -> dict[str, int]:
    """Return how many of ``n`` subjects each pathology gets: the normal share first, then largest remainders."""
    n_normal = int(np.floor(mixture.normal * n + 0.5))
    wanted = {name: share * (n - n_normal) for name, share in mixture.disease.items()}
    counts = {name: int(share) for name, share in wanted.items()}
    left = n - n_normal - sum(counts.values())
    for name in sorted(wanted, key=lambda key: counts[key] - wanted[key])[:left]:
        counts[name] += 1
    return {"NOR": n_normal, **counts}


def _pathologies(mixture: Mixture, n: int, seed: int, pool: int) -> list[str]:
    counts = class_counts(mixture, n)
    names = [name for name in PATHOLOGIES for _ in range(counts.get(name, 0))]
    return [names[i] for i in _plan_stream(seed, pool).permutation(n)]


def _acdc_part(classes: list[str], seed: int, pool: int, borderline: bool = False) -> tuple[Entry, ...]:
    # the pool of one part alone has no test set
    n_training = len(classes) if borderline else round(2 / 3 * len(classes))
    return tuple(
        Entry(
            identity=Identity(seed, pool, index, "siemens", pathology, borderline),
            layout="acdc",
            name=f"patient{index + 1:03d}",
            place="database/training" if index < n_training else "database/testing",
            centre=0,
            first_frame=0,
        )
        for index, pathology in enumerate(classes)
    )


def _mnms_part(classes: list[str], vendor: str, seed: int, pool: int, offset: int) -> list[Entry]:
    rng = _plan_stream(seed, pool + 4)
    entries = []
    for index, pathology in enumerate(classes):
        place = PLACES[int(rng.choice(3, p=PLACE_SHARES[vendor]))]
        centre = CENTRES[vendor][int(rng.integers(len(CENTRES[vendor])))]
        first_frame = int(rng.choice(3, p=(0.7, 0.2, 0.1)))
        identity = Identity(seed, pool, offset + index, vendor, pathology, True)
        entries.append(Entry(identity, "mnms", _code(vendor, index), f"OpenDataset/{place}", centre, first_frame))
    return entries


def _code(vendor: str, index: int) -> str:
    """Return a code of M&Ms' form (letter, digit, three times), unique over vendors and indices."""
    number = 4 * index + VENDORS.index(vendor)
    # the factor shares no divisor with 260^3, so that the codes are shuffled without a clash
    scattered = (number * 7_654_321 + 9_104_729) % 260**3
    pairs = [(scattered // 260**power) % 260 for power in (2, 1, 0)]
    return "".join(f"{chr(ord('A') + pair // 10)}{pair % 10}" for pair in pairs)
