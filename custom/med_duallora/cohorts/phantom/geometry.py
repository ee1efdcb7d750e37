"""Continuous heart shapes at ED and ES, solved so that their volumes are the latent ones.

Everything is a radius around the left ventricle's long axis as a function of height z (mm, 0 at the endocardial
apex at ED, growing towards the base) and angle. A slice then has, from the axis outwards: LV cavity, LV wall,
RV cavity (a crescent over the septum), RV wall.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from med_duallora.cohorts.phantom.anatomy import TERRITORIES, Anatomy
from med_duallora.cohorts.phantom.texture import Array

N_ANGLES = 360
WIDEST_LEVEL = 0.85


def angles() -> Array:
    """Return the ``N_ANGLES`` angles at which radii are tabulated, in [0, 2 pi)."""
    return np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)


def wrapped(angle: Array) -> Array:
    """Return ``angle`` in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def _bump(angle: Array, centre: float, width: float) -> Array:
    return np.exp(-((wrapped(angle - centre) / width) ** 2) / 2)


@dataclass(frozen=True)
class Layers:
    """Radii in mm, each (levels, ``N_ANGLES``): ``endo``, ``epi``, ``rv`` cavity's outside, ``outer`` of it all."""

    endo: Array
    epi: Array
    rv: Array
    outer: Array


@dataclass(frozen=True)
class Phase:
    """The heart at ED or ES.

    Args:
        anatomy: the latent heart.
        contraction: 0 at ED; at ES the share of the endocardial radius lost where contraction is normal.
        apex: height of the endocardial apex in mm.
        base: height of the mitral plane on the axis in mm.
        rv_base: height of the tricuspid plane in mm.
        flattening: share of radius by which the septum is pushed in.
        radius: scale of the endocardium in mm.
        wall: scale of the wall in mm.
        rv_height: scale of the RV crescent in mm.
        thickening: how strongly the wall thickens where it contracts.
    """

    anatomy: Anatomy
    contraction: float
    apex: float
    base: float
    rv_base: float
    flattening: float
    radius: float
    wall: float
    rv_height: float
    thickening: float

    def layers(self, z: Array) -> Layers:
        """Return the radii at heights ``z`` (levels,); zero where a structure is absent. No base plane is applied."""
        level = (np.asarray(z, dtype=float)[:, None] - self.apex) / (self.base - self.apex)
        endo = self.endo(level)
        epi = self.epi(level, endo)
        crescent = self.crescent(np.asarray(z, dtype=float)[:, None])
        wall = self.anatomy.rv_wall * np.clip(crescent / 3, 0, 1)
        return Layers(endo, epi, epi + crescent, epi + crescent + wall)

    def endo(self, level: Array) -> Array:
        """Return the endocardial radius at ``level`` (0 apex, 1 base; (levels, 1)) as (levels, angles)."""
        profile = np.sqrt(np.clip(1 - ((WIDEST_LEVEL - level) / WIDEST_LEVEL) ** 2, 0, 1))
        profile = np.where(level > 0, profile, 0.0)
        shape = outline(self.anatomy, self.flattening) * self.radius
        return profile * shape * np.clip(1 - self.contraction * motion(self.anatomy, level), 0.03, None)

    def thickness(self, level: Array) -> Array:
        """Return the wall's thickness at ``level`` in mm."""
        relative = wall_shape(self.anatomy, level)
        return self.wall * relative * (1 + self.thickening * motion(self.anatomy, level))

    def epi(self, level: Array, endo: Array) -> Array:
        """Return the epicardial radius: endocardium plus wall, closed below the apex by an elliptic cap."""
        return closed(endo, self.thickness(np.clip(level, 0, None)), level, self.base - self.apex)

    def crescent(self, z: Array) -> Array:
        """Return the RV cavity's radial depth in mm at heights ``z`` ((levels, 1)) as (levels, angles)."""
        return self.rv_height * unit_crescent(self.anatomy, self.rv_level(z))

    def rv_level(self, z: Array) -> Array:
        """Return heights as RV levels: 0 at the RV's apex, 1 at its base."""
        bottom = self.rv_bottom
        return (z - bottom) / (self.rv_base - bottom)

    @cached_property
    def rv_reach(self) -> float:
        """Distance of the tricuspid valve's centre from the LV's axis in mm."""
        return 0.8 * float(self.layers(np.array([self.rv_base - 5.0])).rv.max())

    @property
    def rv_bottom(self) -> float:
        """Height of the RV's apex in mm."""
        return self.apex + self.anatomy.rv_apex * (self.base - self.apex)


def closed(endo: Array, thickness: Array, level: Array, span: float) -> Array:
    """Return ``endo`` plus ``thickness``, closed below level 0 by an elliptic cap; ``span`` mm are one level."""
    cap_levels = 0.8 * thickness.mean(axis=1, keepdims=True) / span
    cap = np.sqrt(np.clip(1 - (np.clip(-level, 0, None) / cap_levels) ** 2, 0, 1))
    radius: Array = (endo + thickness) * cap
    return radius


@lru_cache(maxsize=16)  # like those below that depend on the angle alone: they are asked for at many heights
def outline(anatomy: Anatomy, flattening: float) -> Array:
    """Return the endocardium's relative radius by angle, (1, angles): oval, with the septum pushed in."""
    theta = angles()
    oval = anatomy.ellipticity * np.cos(2 * (theta - anatomy.ellipticity_angle))
    waves = 0.008 * (anatomy.waves[0] * np.cos(3 * theta) + anatomy.waves[1] * np.sin(3 * theta))
    pushed = flattening * _bump(theta, anatomy.rv_angle, 0.75)
    relative: Array = (1 + oval + waves - pushed)[None]
    return relative


def motion(anatomy: Anatomy, level: Array) -> Array:
    """Return relative contraction, (levels, angles): 1 is normal, 0 is akinetic."""
    share: Array = _motion_by_angle(anatomy) * (1 - anatomy.akinesia * infarct(anatomy, level))
    return share


@lru_cache(maxsize=8)
def _motion_by_angle(anatomy: Anatomy) -> Array:
    theta = angles()
    a, b, c, d = anatomy.waves[2:6]
    uneven = 0.05 * (a * np.cos(theta) + b * np.sin(theta)) + 0.04 * (c * np.cos(2 * theta) + d * np.sin(2 * theta))
    share: Array = 1 + uneven
    return share


def infarct(anatomy: Anatomy, level: Array) -> Array:
    """Return how much of each place belongs to the subject's coronary territory, (levels, angles), 0 to 1."""
    _, _, low, high = TERRITORIES[anatomy.territory]
    along = 1 / (1 + np.exp((low - level) / 0.05)) / (1 + np.exp((level - high) / 0.05))
    weight: Array = along * _territory_by_angle(anatomy.territory)[None]
    return weight


@lru_cache(maxsize=8)
def _territory_by_angle(territory: str) -> Array:
    centre, half_width, _, _ = TERRITORIES[territory]
    around: Array = 1 / (1 + np.exp((np.abs(wrapped(angles() - centre)) - half_width) / 0.12))
    return around


def wall_shape(anatomy: Anatomy, level: Array) -> Array:
    """Return the wall's relative thickness at ED, (levels, angles)."""
    uneven, septal = _wall_by_angle(anatomy)
    along = 0.72 + 0.28 * np.clip(level / 0.5, 0, 1)
    septal = septal * np.exp(-(((level - anatomy.asymmetry_level) / 0.4) ** 2) / 2)
    thinned = 1 - anatomy.thinning * infarct(anatomy, level)
    thickness: Array = np.clip(along * (uneven + septal) * thinned, 0.25, None)
    return thickness


@lru_cache(maxsize=8)
def _wall_by_angle(anatomy: Anatomy) -> tuple[Array, Array]:
    """Return what multiplies the wall's thickness everywhere, and what is added to it where the septum is thick."""
    theta = angles()
    a, b, c, d, e, f = anatomy.waves[6:12]
    uneven = 0.1 * (a * np.cos(theta) + b * np.sin(theta)) + 0.08 * (c * np.cos(2 * theta) + d * np.sin(2 * theta))
    uneven = uneven + 0.04 * (e * np.cos(3 * theta) + f * np.sin(3 * theta))
    return 1 + uneven, anatomy.asymmetry * _bump(theta, anatomy.asymmetry_angle, 0.9)


def unit_crescent(anatomy: Anatomy, level: Array) -> Array:
    """Return the RV crescent's relative depth at RV ``level`` ((levels, 1)) as (levels, angles)."""
    inside = (level > 0) & (level <= 1)
    clipped = np.clip(level, 1e-6, 1)
    width = (0.75 + 0.5 * clipped**0.7) * (1 + 0.12 * np.clip(anatomy.rv_edv / anatomy.lv_edv - 1.15, -0.5, 0.9))
    x = wrapped(angles()[None] - anatomy.rv_angle) / width
    arch, under = np.zeros_like(x), np.abs(x) < 1  # powers take long, and most angles are not under the arch
    x = x[under]
    arch[under] = np.clip(1 - np.abs(x) ** 2.4, 0, None) ** 0.6 * (1 - anatomy.rv_skew * x)
    height = clipped**0.55 * (1 - 0.12 * clipped**3)
    return np.where(inside, height * arch, 0.0)
