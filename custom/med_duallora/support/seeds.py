"""Random streams by name: every draw depends on the experiment's seed and on what it is for, on nothing else.

Because a stream is a function of (seed, purpose, site, round, ...), a site that is restarted, swapped between
processes or that skipped a round draws what it would have drawn anyway; no generator state has to survive.
"""

import hashlib

import numpy as np


def derived_seed(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for ``purpose``, e.g. ``derived_seed(0, "shuffle", "siemens", 3)``."""
    text = "\x1f".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """Return the numpy generator of ``purpose``."""
    return np.random.default_rng(derived_seed(seed, *purpose))
