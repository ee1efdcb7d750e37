"""A vendor's look laid over the finished images of a real heart: what another scanner might have shown of it."""

import numpy as np

from med_duallora.cohorts.phantom.appearance import Appearance, acquire, receive_field
from med_duallora.cohorts.phantom.parameters import VendorAppearance
from med_duallora.cohorts.phantom.texture import Array
from med_duallora.cohorts.volume import CLIP_PERCENTILES

USED = ("myocardium", "coil", "snr", "blur_mm", "banding_probability", "scanners", "blood_level")
"""What of a vendor's table an image without tissues can take."""
NEAR_MM, BLOOD_PERCENTILE = 64, 80
"""Where blood's grey value is read: in the middle of the image, which is centred on the left ventricle.

In a third of the ACDC patients it was 1.03 times the median of the segmented left cavity (sd 0.10).
"""


def rescanned(volume: Array, look: Appearance, own: VendorAppearance, noise: np.random.Generator) -> Array:
    """Return a subject's prepared images as a scanner of another look would show them.

    Grey values relative to blood are raised to a power (``contrast``). Then comes what the phantoms' scanner does to a
    signal (``acquire``), on top of what the real one did, and the scaling of a preparation, with one window for both
    frames. ED and ES are changed alike, and each has noise of its own, as in two acquisitions. What is 0 in all slices
    of both frames lies outside the scanned field, or is an empty slice, and stays 0.

    Args:
        volume: uint8 (2, X, Y, Z), ED and ES, 1 mm in plane.
        look: of the simulated scanner.
        own: table of the vendor that really scanned.
        noise: its stream.

    Returns:
        uint8 of the same shape.
    """
    u, v = (np.arange(n) - (n - 1) / 2 for n in volume.shape[1:3])
    near = volume[:, np.abs(u) < NEAR_MM / 2][:, :, np.abs(v) < NEAR_MM / 2]
    blood = max(float(np.percentile(near, BLOOD_PERCENTILE)), 1.0)
    signal = (volume / np.float32(blood)).astype(np.float32) ** np.float32(contrast(look, own))
    field = receive_field(u[:, None], v[None], look)
    stored = np.stack([acquire(frame.transpose(2, 0, 1), field, look, 1.0, noise) for frame in signal])
    scanned: Array = np.logical_and.outer(volume.any(axis=(0, 3)), volume.any(axis=(0, 1, 2)))
    grey = np.where(scanned, stored.transpose(0, 2, 3, 1), 0).astype(np.float64)
    low, high = np.percentile(grey, CLIP_PERCENTILES)
    scaled: Array = ((grey.clip(low, high) - low) / max(high - low, 1.0) * 255 * scanned).astype(np.uint8)
    return scaled


def contrast(look: Appearance, own: VendorAppearance) -> float:
    """Return the exponent that moves the usual myocardium of the ``own`` vendor to that of ``look``; blood is 1."""
    return float(np.log(look.myocardium) / np.log(own.myocardium[0]))
