"""What surrounds the heart: lungs with vessels, chest wall, diaphragm, liver, stomach, aorta and spine (draws)."""

from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.phantom.streams import truncated_normal
from med_duallora.cohorts.phantom.texture import Array

N_VESSELS = 330
N_ORGANS = 34
N_LIVER_VESSELS = 60
N_WAVES = 5


@dataclass(frozen=True)
class Body:
    """One body, in heart coordinates: u to the lateral wall, v down, z to the base; mm.

    Args:
        chest_centre: of the thoracic cavity's ellipse at mid heart.
        chest_radii: its semi-axes.
        chest_angle: its rotation in radians.
        chest_approach: mm by which the anterior wall comes closer per mm towards the apex.
        chest_waves: amplitudes in mm of the inner surface's and the fat's harmonics, (2, waves, cosine and sine).
        wall: thickness of muscle and ribs.
        fat: thickness of subcutaneous fat.
        diaphragm: height of the dome's top below the heart's axis at mid heart.
        dome: (curvature per mm, u of the top, slope along the long axis).
        split: u where liver gives way to stomach.
        fat_pad: (u, v, two semi-axes) of the fat between heart, diaphragm and chest wall.
        organs: stomach, spleen, bowel: (n, 5): u, v, z, radius, signal.
        liver_vessels: the same for vessels in the liver.
        aorta: (u, v, radius, elongation) of the descending aorta at the base.
        spine: (u, v, radius).
        vessels: lung vessels, (n, 5): u, v, z, radius, signal.
        person: (age in years, sex as M or F, height in cm, weight in kg).
    """

    chest_centre: tuple[float, float]
    chest_radii: tuple[float, float]
    chest_angle: float
    chest_approach: float
    chest_waves: Array
    wall: float
    fat: float
    diaphragm: float
    dome: tuple[float, float, float]
    split: float
    fat_pad: tuple[float, float, float, float]
    aorta: tuple[float, float, float, float]
    spine: tuple[float, float, float]
    organs: Array
    liver_vessels: Array
    vessels: Array
    person: tuple[int, str, int, int]


def draw_body(rng: np.random.Generator) -> Body:
    """Draw a body; nothing here knows the class."""

    def near(mean: float, sd: float) -> float:
        return truncated_normal(rng, mean, sd, mean - 2.2 * sd, mean + 2.2 * sd)

    radii = (near(118, 8), near(100, 7))
    left_edge = near(-70, 5)
    return Body(
        chest_centre=(left_edge + radii[0], near(-14, 7)),
        chest_radii=radii,
        chest_angle=near(-0.15, 0.15),
        chest_approach=near(0.75, 0.15),
        chest_waves=_draw_waves(rng),
        wall=near(12, 2.5),
        fat=near(19, 6.5),
        diaphragm=near(41, 3.0),
        dome=(near(0.0012, 0.0005), near(-10, 12), near(0.3, 0.08)),
        split=near(5, 15),
        fat_pad=(near(-50, 6), near(30, 6), near(27, 5), near(16, 3)),
        aorta=(near(60, 4), near(36, 5), near(11, 1.2), near(1.35, 0.15)),
        spine=(near(97, 5), near(44, 7), 21.0),
        organs=_draw_organs(rng),
        liver_vessels=_draw_liver_vessels(rng),
        vessels=_draw_vessels(rng),
        person=_draw_person(rng),
    )


def _draw_person(rng: np.random.Generator) -> tuple[int, str, int, int]:
    male = bool(rng.uniform() < 0.55)
    height = truncated_normal(rng, 176 if male else 163, 7, 148, 198)
    weight = truncated_normal(rng, 25.5, 4, 18, 38) * (height / 100) ** 2
    return int(truncated_normal(rng, 52, 16, 18, 85)), "M" if male else "F", int(height), int(weight)


def _draw_waves(rng: np.random.Generator) -> Array:
    falling = 1 / np.arange(1, N_WAVES + 1)[:, None]
    inner, fat = 3.0 * rng.standard_normal((N_WAVES, 2)), 4.5 * rng.standard_normal((N_WAVES, 2))
    return np.stack([inner * falling, fat * falling])


def _draw_organs(rng: np.random.Generator) -> Array:
    """Round things below the diaphragm: soft tissue mostly, some with bright fluid, some with gas."""
    u, v = rng.uniform(-30, 120, N_ORGANS), rng.uniform(10, 80, N_ORGANS)
    z, radius = rng.uniform(-40, 110, N_ORGANS), 5 + 17 * rng.uniform(size=N_ORGANS) ** 1.5
    kind = rng.uniform(size=N_ORGANS)
    signal = np.select([kind < 0.15, kind < 0.75], [0.04, 0.18 + 0.3 * rng.uniform(size=N_ORGANS)], 0.55 + 0.4 * kind)
    return np.stack([u, v, z, radius, signal], axis=1)


def _draw_liver_vessels(rng: np.random.Generator) -> Array:
    u, v = rng.uniform(-90, 40, N_LIVER_VESSELS), rng.uniform(5, 60, N_LIVER_VESSELS)
    radius = 1 + 2.5 * rng.uniform(size=N_LIVER_VESSELS) ** 2
    z, signal = rng.uniform(0, 110, N_LIVER_VESSELS), rng.uniform(0.45, 0.7, N_LIVER_VESSELS)
    return np.stack([u, v, z, radius, signal], axis=1)


def _draw_vessels(rng: np.random.Generator) -> Array:
    """Vessels fan out from the hilum, beside and above the base of the heart: thick and dense there, thin far away."""
    angle = -1.0 + 0.75 * rng.standard_normal(N_VESSELS)
    far = rng.uniform(size=N_VESSELS) ** 1.2
    reach = 48 + 75 * far
    height = 100 - 125 * rng.uniform(size=N_VESSELS) ** 1.3
    radius = 1.0 + 3.6 * (1 - 0.6 * far) * rng.uniform(size=N_VESSELS) ** 2.5
    signal = 0.25 + 1.0 * rng.uniform(size=N_VESSELS)
    return np.stack([reach * np.cos(angle), reach * np.sin(angle), height, radius, signal], axis=1)
