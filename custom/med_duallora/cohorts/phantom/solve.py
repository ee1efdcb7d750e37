"""Fit the shapes of ``geometry`` to a subject's latent volumes, and measure them."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq

from med_duallora.cohorts.phantom.anatomy import Anatomy
from med_duallora.cohorts.phantom.geometry import (
    N_ANGLES,
    Phase,
    closed,
    motion,
    unit_crescent,
)
from med_duallora.cohorts.phantom.texture import Array

APEX_LIFT = 0.12
THICKENING = 0.6
ML = 1000.0
N_LEVELS = 48
CAP_DEPTH = 0.5


def solve_phases(anatomy: Anatomy, shares: tuple[float, ...] = (0.0, 1.0)) -> tuple[Phase, ...]:
    """Return the heart at each share of the way from ED (0) to ES (1), with the latent volumes at both ends.

    Cavity, myocardial and RV volumes are met to about 1e-4; between ED and ES they change linearly.
    """
    return tuple(_phase_at(anatomy, share) for share in shares)


@lru_cache(maxsize=8)  # images and table of a subject want the same phases
def _phase_at(anatomy: Anatomy, share: float) -> Phase:
    return _solve_at(anatomy, _phase_at(anatomy, 0.0), share) if share else _solve_ed(anatomy)


def _solve_ed(anatomy: Anatomy) -> Phase:
    start = Phase(
        anatomy=anatomy,
        contraction=0.0,
        apex=0.0,
        base=anatomy.length_ed,
        rv_base=anatomy.length_ed,
        flattening=anatomy.flattening_ed,
        radius=1.0,
        wall=1.0,
        rv_height=1.0,
        thickening=0.0,
    )
    radius = (anatomy.lv_edv / cavity_volume(start)) ** 0.5
    return _fit_outside(replace(start, radius=radius), anatomy.lv_edv + anatomy.myocardium_ed, anatomy.rv_edv)


def _solve_at(anatomy: Anatomy, ed: Phase, share: float) -> Phase:
    lv = anatomy.lv_edv + share * (anatomy.lv_esv - anatomy.lv_edv)
    rv = anatomy.rv_edv + share * (anatomy.rv_esv - anatomy.rv_edv)
    myocardium = anatomy.myocardium_ed + share * (anatomy.myocardium_es - anatomy.myocardium_ed)
    start = replace(
        ed,
        apex=ed.apex + share * APEX_LIFT * anatomy.shortening,
        base=ed.base - share * (1 - APEX_LIFT) * anatomy.shortening,
        rv_base=ed.rv_base - share * anatomy.rv_shortening,
        flattening=ed.flattening + share * (anatomy.flattening_es - ed.flattening),
        thickening=share * THICKENING,
    )
    level, span = _levels(), start.base - start.apex
    relaxed, moves = start.endo(level), motion(anatomy, level)

    def miss(contraction: float) -> float:
        return _integral(relaxed * np.clip(1 - contraction * moves, 0.03, None), span / N_LEVELS) - lv

    contracted = replace(start, contraction=float(brentq(miss, -1.0, 4.0, xtol=1e-6)))
    return _fit_outside(contracted, lv + myocardium, rv)


def _fit_outside(phase: Phase, epicardial: float, rv: float) -> Phase:
    """Scale the wall so that ``epicardial`` mL lie inside the epicardium, then the crescent so that it holds ``rv``."""
    level, span = _cap_levels(), phase.base - phase.apex
    endo, relative = phase.endo(level), replace(phase, wall=1.0).thickness(np.clip(level, 0, None))
    dz = span * (1 + CAP_DEPTH) / (2 * N_LEVELS)

    def miss(wall: float) -> float:
        return _integral(closed(endo, wall * relative, level, span), dz) - epicardial

    phase = replace(phase, wall=float(brentq(miss, 0.5, 60.0, xtol=1e-5)))
    z, dz = _rv_heights(phase)
    unit, epi = unit_crescent(phase.anatomy, phase.rv_level(z[:, None])), phase.layers(z).epi
    # the crescent's volume is quadratic in its depth: sum of epi * depth + depth^2 / 2
    scale = (2 * np.pi / N_ANGLES) * dz / ML
    square, linear = float((unit**2).sum()) * scale / 2, float((epi * unit).sum()) * scale
    depth = (np.sqrt(linear**2 + 4 * square * rv) - linear) / (2 * square)
    return replace(phase, rv_height=float(depth))


def _levels() -> Array:
    return ((np.arange(N_LEVELS) + 0.5) / N_LEVELS)[:, None]


def _cap_levels() -> Array:
    return (-CAP_DEPTH + (1 + CAP_DEPTH) * (np.arange(2 * N_LEVELS) + 0.5) / (2 * N_LEVELS))[:, None]


def _rv_heights(phase: Phase) -> tuple[Array, float]:
    span = phase.rv_base - phase.rv_bottom
    return phase.rv_bottom + span * _levels()[:, 0], span / N_LEVELS


def _integral(radius: Array, dz: float) -> float:
    """Return the volume in mL inside ``radius`` (levels, angles) whose levels are ``dz`` mm apart."""
    return float((radius**2).sum() * (np.pi / N_ANGLES) * dz / ML)


def cavity_volume(phase: Phase) -> float:
    """Return the LV cavity's volume in mL."""
    return _integral(phase.endo(_levels()), (phase.base - phase.apex) / N_LEVELS)


def myocardial_volume(phase: Phase) -> float:
    """Return the LV wall's volume in mL, from below the apex to the base."""
    level, span = _cap_levels(), phase.base - phase.apex
    dz = span * (1 + CAP_DEPTH) / (2 * N_LEVELS)
    return _integral(phase.epi(level, phase.endo(level)), dz) - cavity_volume(phase)


def rv_volume(phase: Phase) -> float:
    """Return the RV cavity's volume in mL."""
    z, dz = _rv_heights(phase)
    layers = phase.layers(z)
    return _integral(layers.rv, dz) - _integral(layers.epi, dz)


def wall_thickness(phase: Phase) -> tuple[float, float]:
    """Return (largest slice mean, largest sector) of the wall's thickness in mm, between 15 and 90 % of the length."""
    thickness = phase.thickness(np.linspace(0.15, 0.9, 12)[:, None])
    return float(thickness.mean(axis=1).max()), float(thickness.max())
