"""What surrounds the heart: lungs with vessels, chest wall, diaphragm, liver, stomach, aorta and spine (draws)."""

from dataclasses import dataclass

import numpy as np

from med_duallora.cohorts.phantom.streams import truncated_normal
from med_duallora.cohorts.phantom.texture import Array

N_VESSELS = 170


@dataclass(frozen=True)
class Body:
    """One body, in heart coordinates: u to the lateral wall, v down, z to the base; mm.

    Args:
        chest_centre: of the thoracic cavity's ellipse at mid heart.
        chest_radii: its semi-axes.
        chest_angle: its rotation in radians.
        chest_approach: mm by which the anterior wall comes closer per mm towards the apex.
        wall: thickness of muscle and ribs.
        fat: thickness of subcutaneous fat.
        diaphragm: height of the dome's top below the heart's axis at mid heart.
        dome: (curvature per mm, u of the top, slope along the long axis).
        split: u where liver gives way to stomach.
        stomach: (u, v) relative to (split, diaphragm), and two semi-axes.
        fat_pad: (u, v, two semi-axes) of the fat between heart, diaphragm and chest wall.
        aorta: (u, v, radius, elongation) of the descending aorta at the base.
        spine: (u, v, radius).
        vessels: lung vessels, (n, 5): u, v, z, radius, signal.
        person: (age in years, sex as M or F, height in cm, weight in kg).
    """

    chest_centre: tuple[float, float]
    chest_radii: tuple[float, float]
    chest_angle: float
    chest_approach: float
    wall: float
    fat: float
    diaphragm: float
    dome: tuple[float, float, float]
    split: float
    stomach: tuple[float, float, float, float]
    fat_pad: tuple[float, float, float, float]
    aorta: tuple[float, float, float, float]
    spine: tuple[float, float, float]
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
        chest_approach=near(0.55, 0.13),
        wall=near(12, 2.5),
        fat=near(18, 6.5),
        diaphragm=near(43, 3.5),
        dome=(near(0.0022, 0.0006), near(-15, 12), near(0.22, 0.08)),
        split=near(5, 15),
        stomach=(near(45, 8), near(34, 6), near(30, 5), near(22, 4)),
        fat_pad=(near(-40, 6), near(30, 6), near(26, 5), near(17, 4)),
        aorta=(near(60, 4), near(36, 5), near(11, 1.2), near(1.35, 0.15)),
        spine=(near(97, 5), near(44, 7), 21.0),
        vessels=_draw_vessels(rng),
        person=_draw_person(rng),
    )


def _draw_person(rng: np.random.Generator) -> tuple[int, str, int, int]:
    male = bool(rng.uniform() < 0.55)
    height = truncated_normal(rng, 176 if male else 163, 7, 148, 198)
    weight = truncated_normal(rng, 25.5, 4, 18, 38) * (height / 100) ** 2
    return int(truncated_normal(rng, 52, 16, 18, 85)), "M" if male else "F", int(height), int(weight)


def _draw_vessels(rng: np.random.Generator) -> Array:
    """Vessels fan out from the hilum, beside and above the base of the heart: thick and dense there, thin far away."""
    angle = -1.0 + 0.75 * rng.standard_normal(N_VESSELS)
    far = rng.uniform(size=N_VESSELS) ** 1.2
    reach = 48 + 75 * far
    height = 100 - 125 * rng.uniform(size=N_VESSELS) ** 1.3
    radius = 0.8 + 3.0 * (1 - 0.7 * far) * rng.uniform(size=N_VESSELS) ** 2.5
    signal = 0.15 + 0.8 * rng.uniform(size=N_VESSELS) ** 1.5
    return np.stack([reach * np.cos(angle), reach * np.sin(angle), height, radius, signal], axis=1)
