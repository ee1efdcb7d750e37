"""A subject's latent heart: true volumes, function and shape parameters, drawn from the class tables.

Angles are in radians around the left ventricle's long axis, as seen in a short-axis slice with the septum on the
left: 0 points to the lateral wall, pi/2 to the inferior wall, pi to the septum, -pi/2 to the anterior wall.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from med_duallora.cohorts.phantom.parameters import (
    CANDIDATES,
    CRITERIA,
    LV_EF_WITH_RV_EF,
    LV_WITH_LV_EF,
    LV_WITH_MYOCARDIUM,
    RV_EXCESS_WITH_RV_EF,
    SEVERITY_MILD,
    SEVERITY_RANGE,
    ClassAnatomy,
    class_anatomy,
)
from med_duallora.cohorts.phantom.texture import Array

MYOCARDIUM_G_PER_ML = 1.05
# centre angle, half width, lowest and highest level (0 apex, 1 base) of the coronary territories
TERRITORIES = {
    "lad": (-1.95, 1.15, -0.2, 0.75),
    "lcx": (0.0, 1.05, 0.15, 1.2),
    "rca": (1.75, 1.05, 0.15, 1.2),
}


@dataclass(frozen=True)
class Anatomy:
    """The latent truth of one heart; volumes in mL, lengths in mm, EF in percent, angles in radians."""

    pathology: str
    severity: float
    lv_edv: float
    lv_esv: float
    rv_edv: float
    rv_esv: float
    myocardium_ed: float
    myocardium_es: float
    length_ed: float
    shortening: float
    rv_shortening: float
    rv_wall: float
    rv_angle: float
    rv_apex: float
    rv_skew: float
    asymmetry: float
    asymmetry_angle: float
    asymmetry_level: float
    flattening_ed: float
    flattening_es: float
    akinesia: float
    thinning: float
    territory: str
    ellipticity: float
    ellipticity_angle: float
    waves: tuple[float, ...]
    papillary: tuple[float, ...]
    trabeculation: float
    tilt: tuple[float, float]
    slant: tuple[float, float]
    epicardial_fat: float

    @property
    def lv_ef(self) -> float:
        """Left ventricular ejection fraction in percent."""
        return 100 * (1 - self.lv_esv / self.lv_edv)

    @property
    def rv_ef(self) -> float:
        """Right ventricular ejection fraction in percent."""
        return 100 * (1 - self.rv_esv / self.rv_edv)

    @property
    def mass(self) -> float:
        """Myocardial mass in g."""
        return MYOCARDIUM_G_PER_ML * self.myocardium_ed

    def to_dict(self) -> dict[str, object]:
        """Return every field by name."""
        return asdict(self)


def draw_anatomy(rng: np.random.Generator, pathology: str, borderline: bool) -> Anatomy:
    """Draw a heart of a class.

    Every class consumes the same draws in the same order, so that two classes with one stream differ by their
    tables only.

    Args:
        rng: the subject's anatomy stream.
        pathology: one of ``parameters.PATHOLOGIES``.
        borderline: draw mild disease too; without it every diseased subject is at its class's table row, as in ACDC.
    """
    severity_draw, latents, shape = rng.standard_normal(), rng.standard_normal((CANDIDATES, 6)), rng.standard_normal(40)
    uniform = rng.uniform(size=16)
    severity = float(np.clip(SEVERITY_MILD[0] + SEVERITY_MILD[1] * severity_draw, *SEVERITY_RANGE))
    severity = 0.0 if pathology == "NOR" else (severity if borderline else 1.0)
    table = class_anatomy(pathology, severity)
    volumes = _select([_draw_volumes(table, draws[:5], draws[5]) for draws in latents], pathology, borderline)
    return Anatomy(
        pathology=pathology,
        severity=severity,
        **volumes,
        **_draw_long_axis(table, volumes, shape[1:4]),
        **_draw_shape(table, shape[4:12], uniform),
        **_draw_details(shape[12:], uniform),
    )


def _log_normal(mean: float, log_sd: float, draw: float) -> float:
    return float(np.exp(np.log(mean) - log_sd**2 / 2 + log_sd * np.clip(draw, -2.5, 2.5)))


def _select(candidates: list[dict[str, Any]], pathology: str, borderline: bool) -> dict[str, Any]:
    """Return the first candidate that meets its class's criteria, or the last; borderline disease meets none."""
    if borderline and pathology != "NOR":
        return candidates[0]
    for volumes in candidates:
        values = (
            100 * (1 - volumes["lv_esv"] / volumes["lv_edv"]),
            100 * (1 - volumes["rv_esv"] / volumes["rv_edv"]),
            volumes["rv_edv"] / volumes["lv_edv"],
            volumes["myocardium_ed"] / volumes["lv_edv"],
        )
        if all(low <= value <= high for value, (low, high) in zip(values, CRITERIA[pathology], strict=True)):
            return volumes
    return candidates[-1]


def _draw_volumes(table: ClassAnatomy, latents: Array, ratio_draw: float) -> dict[str, Any]:
    lv, rv_excess, mass_excess, lv_ef_rest, rv_ef_rest = latents

    def tied(correlation: float, rest: float) -> float:
        return float(correlation * lv + np.sqrt(1 - correlation**2) * rest)

    rv, mass = tied(table.coupling, rv_excess), tied(LV_WITH_MYOCARDIUM, mass_excess)
    lv_ef = tied(LV_WITH_LV_EF, lv_ef_rest)
    rest = np.sqrt(1 - LV_EF_WITH_RV_EF**2 - RV_EXCESS_WITH_RV_EF**2)
    rv_ef = LV_EF_WITH_RV_EF * lv_ef + RV_EXCESS_WITH_RV_EF * rv_excess + rest * rv_ef_rest

    def log_sd(pair: tuple[float, float]) -> float:
        return float(np.sqrt(np.log1p((pair[1] / pair[0]) ** 2)))

    lv_edv = _log_normal(table.lv_edv[0], table.lv_edv_log_sd, lv)
    rv_edv = _log_normal(table.rv_edv[0], log_sd(table.rv_edv), rv)
    myocardium = _log_normal(table.myocardium[0], log_sd(table.myocardium), mass)
    ejected_lv = np.clip(table.lv_ef[0] + table.lv_ef[1] * lv_ef, 8, 82) / 100
    ejected_rv = np.clip(table.rv_ef[0] + table.rv_ef[1] * rv_ef, 8, 78) / 100
    ratio = np.clip(table.myocardium_ratio[0] + table.myocardium_ratio[1] * ratio_draw, 1.0, 1.35)
    return {
        "lv_edv": lv_edv,
        "lv_esv": float(lv_edv * (1 - ejected_lv)),
        "rv_edv": rv_edv,
        "rv_esv": float(rv_edv * (1 - ejected_rv)),
        "myocardium_ed": myocardium,
        "myocardium_es": float(myocardium * ratio),
    }


def _draw_long_axis(table: ClassAnatomy, volumes: dict[str, float], draws: Array) -> dict[str, Any]:
    ef = 1 - volumes["lv_esv"] / volumes["lv_edv"]
    rv_ef = 1 - volumes["rv_esv"] / volumes["rv_edv"]
    length = 85 * (volumes["lv_edv"] / 130) ** 0.22 * np.exp(0.06 * draws[0])
    shortening = 13 * (ef / 0.6) ** 0.65 * table.long_axis * np.exp(0.2 * draws[1])
    rv_shortening = 18 * (rv_ef / 0.55) ** 0.7 * np.exp(0.2 * draws[2])
    return {
        "length_ed": float(length),
        "shortening": float(np.clip(shortening, 1.5, 0.25 * length)),
        "rv_shortening": float(np.clip(rv_shortening, 2.0, 0.3 * length)),
    }


def _draw_shape(table: ClassAnatomy, draws: Array, uniform: Array) -> dict[str, Any]:
    flattening = np.clip(table.septal_flattening[0] + table.septal_flattening[1] * draws[0], 0, 0.35)
    return {
        "asymmetry": float(np.clip(table.asymmetry[0] + table.asymmetry[1] * draws[1], -0.15, 0.9)),
        "asymmetry_angle": float(np.pi + 0.3 + 0.35 * draws[2]),
        "asymmetry_level": float(np.clip(0.6 + 0.15 * draws[3], 0.1, 0.9)),
        "flattening_ed": float(0.4 * flattening),
        "flattening_es": float(flattening),
        "akinesia": float(table.akinesia * (0.85 + 0.3 * uniform[0])),
        "thinning": float(table.thinning * (0.7 + 0.6 * uniform[1])),
        "territory": tuple(TERRITORIES)[int(np.searchsorted([0.5, 0.72], uniform[2]))],
        "rv_wall": float(np.clip(3.5 + 0.4 * draws[4] + 4 * max(flattening - 0.05, 0), 2.6, 5.5)),
    }


def _draw_details(draws: Array, uniform: Array) -> dict[str, Any]:
    return {
        "rv_angle": float(2.88 + 0.12 * draws[0]),
        "rv_apex": float(0.1 + 0.15 * uniform[3]),
        "rv_skew": float(0.15 + 0.12 * draws[1]),
        "ellipticity": float(0.025 + 0.02 * abs(draws[2])),
        "ellipticity_angle": float(np.pi * uniform[4]),
        "waves": tuple(float(value) for value in draws[3:15]),
        "papillary": tuple(float(value) for value in (*draws[15:21], *uniform[5:9])),
        "trabeculation": float(0.6 + 0.8 * uniform[9]),
        "tilt": (float(0.08 + 0.05 * draws[21]), float(0.05 * draws[22])),
        "slant": (float(0.06 * draws[23]), float(0.06 * draws[24])),
        "epicardial_fat": float(2.0 + 3.5 * uniform[10]),
    }
