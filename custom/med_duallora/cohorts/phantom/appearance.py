"""A scan's look: tissue signals, coil fall-off, blur, banding and noise, drawn per subject from its vendor's table."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from med_duallora.cohorts.phantom.parameters import VendorAppearance
from med_duallora.cohorts.phantom.streams import truncated_normal
from med_duallora.cohorts.phantom.texture import Array

FWHM_PER_SD = 2.3548
MAX_GREY = 4095


@dataclass(frozen=True)
class Appearance:
    """Signals relative to blood, and what the scanner does to them.

    Args:
        myocardium: signal of the heart's muscle.
        fat: signal.
        lung: signal.
        liver: signal.
        muscle: signal of skeletal muscle.
        marrow: signal of bone marrow.
        blood_in_lung: factor on lung vessels.
        ink: depth of dark fat-water borders, 0 to 1.
        coil: strength of the fall-off.
        coil_angle: where the coil sits, in radians in heart coordinates.
        snr: of blood.
        blur_mm: full width at half maximum.
        banding: (depth, wavelength in mm, angle, phase); depth 0 is none.
        blood_level: stored grey value of blood.
        scanner: which of the vendor's models, from 0.
        field_t: field strength in T.
    """

    myocardium: float
    fat: float
    lung: float
    liver: float
    muscle: float
    marrow: float
    blood_in_lung: float
    ink: float
    coil: float
    coil_angle: float
    snr: float
    blur_mm: float
    banding: tuple[float, float, float, float]
    blood_level: float
    scanner: int
    field_t: float


def draw_appearance(rng: np.random.Generator, vendor: VendorAppearance) -> Appearance:
    """Draw a scan's look; nothing here knows the class."""
    scanner = int(rng.integers(len(vendor.scanners)))
    offset = vendor.scanners[scanner]

    def near(pair: tuple[float, float], low: float, high: float) -> float:
        return truncated_normal(rng, pair[0] + offset * pair[1], 0.85 * pair[1], low, high)

    has_ink, has_bands, is_3t = (
        bool(value) for value in rng.uniform(size=3) < (vendor.ink_probability, vendor.banding_probability, 0.35)
    )
    depth, wavelength, angle, phase = rng.uniform((0.15, 90, 0, 0), (0.4, 160, np.pi, 2 * np.pi))
    ink = rng.uniform(0.45, 0.85)
    return Appearance(
        myocardium=near(vendor.myocardium, 0.12, 0.55),
        fat=near(vendor.fat, 0.4, 1.8),
        lung=near(vendor.lung, 0.01, 0.25),
        liver=truncated_normal(rng, 0.33, 0.06, 0.18, 0.5),
        muscle=truncated_normal(rng, 0.19, 0.03, 0.1, 0.3),
        marrow=truncated_normal(rng, 0.5, 0.1, 0.25, 0.8),
        blood_in_lung=truncated_normal(rng, 1.0, 0.2, 0.4, 1.4),
        ink=float(ink) if has_ink else 0.0,
        coil=truncated_normal(rng, *vendor.coil, 0.0, 1.8),
        coil_angle=truncated_normal(rng, -2.6, 0.35, -3.6, -1.6),
        snr=truncated_normal(rng, *vendor.snr, 8, 80),
        blur_mm=truncated_normal(rng, vendor.blur_mm, 0.25, 1.2, 3.5),
        banding=(float(depth) if has_bands else 0.0, float(wavelength), float(angle), float(phase)),
        blood_level=float(
            vendor.blood_level[0] * np.exp(vendor.blood_level[1] * np.clip(rng.standard_normal(), -2, 1.5))
        ),
        scanner=scanner,
        field_t=3.0 if is_3t else 1.5,
    )


def receive_field(u: Array, v: Array, look: Appearance) -> Array:
    """Return what coil and banding multiply the signal by, at in-plane positions in mm, (x, y); 1 near the heart."""
    along = np.cos(look.coil_angle) * u + np.sin(look.coil_angle) * v
    across = np.cos(look.coil_angle) * v - np.sin(look.coil_angle) * u
    field = np.exp(look.coil * (along / 130 - (across / 260) ** 2))
    field = field / (0.6 + 0.4 * field)  # scanners even it out in part
    depth, wavelength, angle, phase = look.banding
    wave = np.cos(2 * np.pi * (np.cos(angle) * u + np.sin(angle) * v) / wavelength + phase)
    banded: Array = (field * (1 - depth * np.clip(wave - 0.4, 0, None) / 0.6)).astype(np.float32)
    return banded


def acquire(signal: Array, field: Array, look: Appearance, spacing: float, rng: np.random.Generator) -> Array:
    """Return the stored image: blurred signal times ``field``, Rician noise, grey values.

    Args:
        signal: (slices, x, y), blood is 1.
        field: (x, y), from ``receive_field``.
        look: the scan's look.
        spacing: in-plane spacing in mm.
        rng: the noise stream.
    """
    sigma = look.blur_mm / FWHM_PER_SD / spacing
    blurred = gaussian_filter1d(gaussian_filter1d(signal, sigma, axis=1, truncate=3), sigma, axis=2, truncate=3)
    blurred *= field
    noise_sd = np.float32(1 / look.snr)
    stored: Array = np.empty(signal.shape, np.int16)
    real = np.asarray(rng.standard_normal(signal.shape, dtype=np.float32))
    for k, still in enumerate(blurred):  # one by one: a slice fits into the processor's cache
        imaginary = np.asarray(rng.standard_normal(still.shape, dtype=np.float32))
        stored[k] = _magnitude(still, noise_sd * real[k], noise_sd * imaginary, np.float32(look.blood_level))
    return stored


def _magnitude(still: Array, real: Array, imaginary: Array, level: np.float32) -> Array:
    """Return grey values of a slice with noise in both channels; the noise is overwritten."""
    real += still
    real *= real
    imaginary *= imaginary
    real += imaginary
    np.sqrt(real, out=real)
    real *= level
    return np.rint(real, out=real).clip(np.float32(0), np.float32(MAX_GREY), out=real)
